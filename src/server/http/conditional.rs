//! Conditional requests (RFC 9110 section 13).

use std::fmt;
use std::time::{Duration, SystemTime};

use super::date::fixdate;
use super::request::Request;
use super::response::ResponseHead;

/// Identifies a state of a resource.
#[derive(Debug)]
pub(crate) struct Validators {
    /// A strong entity tag, with its quotes.
    pub(crate) etag: String,
    /// `None` if it is unknown.
    modified: Option<SystemTime>,
    /// Both, as header fields.
    rendered: String,
}

impl Validators {
    /// `tag` is the content of a strong entity tag between its quotes, in ASCII.
    pub(crate) fn new(tag: fmt::Arguments<'_>, modified: Option<SystemTime>) -> Validators {
        let etag = format!("\"{tag}\"");
        let mut rendered = format!("ETag: {etag}\r\n");
        if let Some(modified) = modified {
            rendered += &format!("Last-Modified: {}\r\n", fixdate(modified));
        }
        Validators { etag, modified, rendered }
    }

    /// Adds both to a head.
    pub(crate) fn add_to(&self, head: &mut ResponseHead) {
        head.fields.extend_from_slice(self.rendered.as_bytes());
    }
}

/// The result of a request's conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is answered; its Range applies or not.
    Go { ranges: bool },
    /// 304.
    NotModified,
    /// 412.
    Failed,
}

/// Evaluates the conditions in the order of RFC 9110 section 13.2.2.
pub(crate) fn evaluate(request: &Request<'_>, validators: &Validators) -> Verdict {
    // All conditions begin with this, and most requests have none.
    let begins = |name: &[u8]| name.get(..3).is_some_and(|begin| begin.eq_ignore_ascii_case(b"If-"));
    if !request.headers().any(|(name, _)| begins(name.as_bytes())) {
        return Verdict::Go { ranges: request.method() == "GET" };
    }
    let is_read = matches!(request.method(), "GET" | "HEAD");
    let unchanged_since = |name| {
        let (date, modified) = (date(single(request, name)?)?, validators.modified?);
        Some(whole_seconds(modified) <= date)
    };
    if request.header_bytes("If-Match").is_some() {
        if !any_matches(request, "If-Match", &validators.etag, Comparison::Strong) {
            return Verdict::Failed;
        }
    } else if unchanged_since("If-Unmodified-Since") == Some(false) {
        return Verdict::Failed;
    }
    if request.header_bytes("If-None-Match").is_some() {
        if any_matches(request, "If-None-Match", &validators.etag, Comparison::Weak) {
            return if is_read { Verdict::NotModified } else { Verdict::Failed };
        }
    } else if is_read && unchanged_since("If-Modified-Since") == Some(true) {
        return Verdict::NotModified;
    }
    Verdict::Go { ranges: request.method() == "GET" && range_applies(request, validators) }
}

/// The value of a field that may occur only once, since it is no list (RFC 9110 section 5.3); `None` if it occurs
/// twice.
pub(crate) fn single<'a>(request: &Request<'a>, name: &str) -> Option<&'a str> {
    let mut fields = request.headers().filter(|(field, _)| field.eq_ignore_ascii_case(name));
    let (_, value) = fields.next()?;
    std::str::from_utf8(value).ok().filter(|_| fields.next().is_none())
}

/// If-Range: whether the range is of the state of which the client has a part (section 13.1.5).
fn range_applies(request: &Request<'_>, validators: &Validators) -> bool {
    match request.header_bytes("If-Range") {
        None => true,
        Some(_) => single(request, "If-Range").is_some_and(|condition| match condition.starts_with('"') {
            true => condition == validators.etag,
            // A weak tag is not a date either, and never matches.
            false => validators.modified.is_some_and(|modified| date(condition) == Some(whole_seconds(modified))),
        }),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

/// Whether one of the listed entity tags is this one, or the list is `*`. Several fields form one list.
fn any_matches(request: &Request<'_>, name: &str, etag: &str, comparison: Comparison) -> bool {
    let fields = request.headers().filter(|(field, _)| field.eq_ignore_ascii_case(name));
    // Tags of other servers may contain bytes that are not UTF-8 (section 8.8.3).
    let mut tags = fields.flat_map(|(_, value)| entity_tags(value)).filter(|tag| !tag.is_empty()).peekable();
    let mut is_any = tags.peek() == Some(&&b"*"[..]);
    let mut is_listed = false;
    for (index, tag) in tags.enumerate() {
        is_any &= index == 0;
        is_listed |= match tag.strip_prefix(b"W/") {
            Some(weak) => comparison == Comparison::Weak && weak == etag.as_bytes(),
            None => tag == etag.as_bytes(),
        };
    }
    is_any || is_listed
}

/// Splits a list of entity tags. A comma may be inside the quotes.
fn entity_tags(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut is_quoted = false;
    list.split(move |byte| {
        is_quoted ^= *byte == b'"';
        *byte == b',' && !is_quoted
    })
    .map(<[u8]>::trim_ascii)
}

fn date(text: &str) -> Option<SystemTime> {
    httpdate::parse_http_date(text).ok()
}

/// The time as in Last-Modified.
fn whole_seconds(time: SystemTime) -> SystemTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::super::{Codec, Limits, Next, Scratch};
    use super::*;

    const LIMITS: Limits = Limits { target: 40, head: 400, fields: 6, body: 0, requests: 0, utf8_query: true };

    #[test]
    fn a_range_is_of_the_state_that_the_client_has() {
        // A Wednesday, whose name begins like a weak tag.
        let modified = date("Wed, 21 Oct 2015 07:28:00 GMT").expect("a date");
        let validators = Validators::new(format_args!("x"), Some(modified + Duration::from_millis(5)));
        for (condition, applies) in [
            ("\"x\"", true),
            ("\"y\"", false),
            ("W/\"x\"", false),
            ("Wed, 21 Oct 2015 07:28:00 GMT", true),
            ("Wednesday, 21-Oct-15 07:28:00 GMT", true),
            ("Wed, 21 Oct 2015 07:28:01 GMT", false),
            ("W", false),
            ("x", false),
            ("", false),
        ] {
            let text = format!("GET / HTTP/1.1\r\nHost: a\r\nIf-Range: {condition}\r\n\r\n");
            let (mut codec, mut scratch) = (Codec::new(), Scratch::new());
            let (_, Next::Request(request)) = codec.next(text.as_bytes(), &mut scratch, &LIMITS, &mut |_| false) else {
                panic!("valid")
            };
            assert_eq!(evaluate(request, &validators), Verdict::Go { ranges: applies }, "{condition}");
        }
    }

    #[test]
    fn conditions_are_lists_or_single_values() {
        let modified = date("Wed, 21 Oct 2015 07:28:00 GMT");
        let (go, some) = (Verdict::Go { ranges: true }, Verdict::Go { ranges: false });
        let late = "If-Modified-Since: Thu, 22 Oct 2015 07:28:00 GMT\r\n";
        let early = "If-Unmodified-Since: Tue, 20 Oct 2015 07:28:00 GMT\r\n";
        for (modified, fields, verdict) in [
            (modified, b"If-None-Match: , \"y\",, \"x\"\r\n".to_vec(), Verdict::NotModified),
            (modified, b"If-None-Match: \"y\"\r\nIf-None-Match: W/\"x\"\r\n".to_vec(), Verdict::NotModified),
            (modified, b"If-None-Match: \"\xe9\", \"x\"\r\n".to_vec(), Verdict::NotModified),
            (modified, b"If-None-Match: *\r\n".to_vec(), Verdict::NotModified),
            (modified, b"If-None-Match: \"y\", *\r\n".to_vec(), go),
            (modified, b"If-None-Match: *, \"y\"\r\n".to_vec(), go),
            (modified, b"If-Match: *, \"y\"\r\n".to_vec(), Verdict::Failed),
            (modified, b"If-Match: *\r\n".to_vec(), go),
            (modified, late.into(), Verdict::NotModified),
            (modified, [late, late].concat().into(), go),
            (modified, early.into(), Verdict::Failed),
            (modified, [early, early].concat().into(), go),
            (modified, b"If-Range: \"x\"\r\nIf-Range: \"x\"\r\n".to_vec(), some),
            // It is not known when it was modified.
            (None, late.into(), go),
            (None, early.into(), go),
            (None, b"If-Range: Thu, 01 Jan 1970 00:00:00 GMT\r\n".to_vec(), some),
        ] {
            let validators = Validators::new(format_args!("x"), modified);
            let text = [b"GET / HTTP/1.1\r\nHost: a\r\n", &fields[..], b"\r\n"].concat();
            let (mut codec, mut scratch) = (Codec::new(), Scratch::new());
            let (_, Next::Request(request)) = codec.next(&text, &mut scratch, &LIMITS, &mut |_| false) else {
                panic!("valid")
            };
            assert_eq!(evaluate(request, &validators), verdict, "{}", fields.escape_ascii());
        }
    }
}
