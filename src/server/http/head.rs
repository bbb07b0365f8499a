//! A request's head: where it ends, what it says, and how the body behind it is framed.
//!
//! A head that comes whole and is valid takes the short way: one pass through httparse, one over the fields that
//! concern the protocol. Every other head is checked line by line ([`lines`]).

use std::mem::MaybeUninit;

use memchr::memchr;

use super::grammar::{find_query, is_token, METHOD_MAX};
use super::headers::Headers;
use super::message::{Framing, Head};
use super::request::{Request, Version};
use super::{host, lines, Limits, Reject, FIELDS_MAX};

/// Room for one head.
pub(super) struct Room<'a> {
    /// Never initialised as a whole.
    fields: [MaybeUninit<httparse::Header<'a>>; FIELDS_MAX],
    /// Requests are made where they stay: they are large, and pass through many hands.
    pub(super) request: Option<Request<'a>>,
}

impl Room<'_> {
    pub(super) fn new() -> Self {
        Room { fields: [const { MaybeUninit::uninit() }; FIELDS_MAX], request: None }
    }
}

/// Parses the head that `input` begins with, if it is complete and well formed; returns also its length. `None` leaves
/// it to be looked at line by line.
pub(super) fn parse_whole<'a>(
    input: &'a [u8],
    room: &'a mut Room<'a>,
    limits: &Limits,
) -> Option<(usize, Result<Head<'a>, Reject>)> {
    // httparse skips empty lines, whatever ends them.
    if matches!(input, [] | [b'\r' | b'\n', ..]) {
        return None;
    }
    let Room { fields, request: place } = room;
    let slots = &mut fields[..limits.fields.min(FIELDS_MAX)];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(input, slots) {
        Ok(httparse::Status::Complete(len))
            if len <= limits.head && has_strict_lines(&input[..len], request.headers) =>
        {
            Some((len, judge(request, place, limits)))
        }
        _ => None,
    }
}

/// Whether all lines of a head end in CRLF. httparse takes a lone LF too, but never a lone CR: so it is enough to look
/// for a CR two bytes before each field and at the end, at a tenth of what it costs to find the line ends again.
fn has_strict_lines(head: &[u8], fields: &[httparse::Header<'_>]) -> bool {
    let start = head.as_ptr() as usize;
    let mut names = fields.iter().map(|field| field.name.as_ptr() as usize - start);
    names.all(|name| head.get(name - 2) == Some(&b'\r')) && head.ends_with(b"\r\n\r\n")
}

/// Parses a complete head, of lines that end in CRLF.
pub(super) fn parse<'a>(head: &'a [u8], room: &'a mut Room<'a>, limits: &Limits) -> Result<Head<'a>, Reject> {
    let Room { fields, request: place } = room;
    let slots = &mut fields[..limits.fields.min(FIELDS_MAX)];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(head, slots) {
        Ok(httparse::Status::Complete(len)) if len == head.len() => judge(request, place, limits),
        _ => Err(lines::first_broken_rule(head, limits)),
    }
}

/// Applies the rules that httparse does not know.
fn judge<'a>(
    request: httparse::Request<'a, 'a>,
    place: &'a mut Option<Request<'a>>,
    limits: &Limits,
) -> Result<Head<'a>, Reject> {
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
        return Err(Reject::RequestLine);
    };
    if method.len() > METHOD_MAX {
        return Err(Reject::LongMethod);
    }
    if target.len() > limits.target {
        return Err(Reject::TargetTooLong);
    }
    let version = if minor == 0 { Version::Http10 } else { Version::Http11 };
    let query_mark = find_query(target.as_bytes(), limits)?;
    let authority = authority(method, target)?;
    let facts = Facts::of(request.headers, version)?;
    // The target's own authority takes the place of Host (RFC 9112 section 3.2.2), which must be there all the same.
    let host = authority.or(facts.host);
    let fields = Headers::parsed(request.headers);
    let request = place.insert(Request {
        method,
        target,
        query_mark,
        version,
        host,
        fields,
        body: b"",
        peer: None,
        worker: 0,
        via: None,
    });
    Ok(Head {
        request,
        framing: facts.framing(version)?,
        keep_alive: !facts.close && (facts.keep_alive || version == Version::Http11),
        expects_continue: facts.expects_continue,
        upgrade: facts.upgrade && facts.protocol,
    })
}

/// The minor version, for a head whose first line says HTTP/1.2 or later: it is to be read as HTTP/1.1 (RFC 9110
/// section 2.5). Returns where the digit stands.
pub(super) fn later_minor_version(head: &[u8]) -> Option<usize> {
    let end = memchr(b'\n', head)?;
    let version = head.get(end.checked_sub(9)?..end - 1)?;
    (version.starts_with(b"HTTP/1.") && matches!(version[7], b'2'..=b'9')).then_some(end - 2)
}

/// Checks the form of a target of valid bytes (RFC 9112 section 3.2); returns its authority if it has one.
fn authority<'a>(method: &str, target: &'a str) -> Result<Option<&'a [u8]>, Reject> {
    if method == "CONNECT" {
        return Err(Reject::Connect);
    }
    if target.starts_with('/') {
        return Ok(None);
    }
    if target == "*" {
        return if method == "OPTIONS" { Ok(None) } else { Err(Reject::Target) };
    }
    let (scheme, rest) = target.split_once("://").ok_or(Reject::Target)?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(Reject::Target);
    }
    let authority = &rest[..rest.find(['/', '?']).unwrap_or(rest.len())];
    // Neither without a host (RFC 9110 section 4.2.1) nor with user information (section 4.2.4).
    if authority.is_empty() || !host::is_valid(authority.as_bytes()) {
        return Err(Reject::Target);
    }
    Ok(Some(authority.as_bytes()))
}

/// What the fields say about the message and the connection.
#[derive(Default)]
struct Facts<'a> {
    host: Option<&'a [u8]>,
    has_two_hosts: bool,
    length: Option<u64>,
    coding: Option<TransferCoding>,
    close: bool,
    keep_alive: bool,
    /// An option of Connection.
    upgrade: bool,
    /// The field.
    protocol: bool,
    expects_continue: bool,
}

impl<'a> Facts<'a> {
    /// One pass, by length and first letter: most fields but Host concern nobody here.
    fn of(fields: &[httparse::Header<'a>], version: Version) -> Result<Facts<'a>, Reject> {
        let mut facts = Facts::default();
        for field in fields {
            // A letter in lower case.
            let first = field.name.as_bytes().first().map_or(0, |byte| byte | 0x20);
            match (field.name.len(), first) {
                (4, b'h') if field.name == "Host" || field.name.eq_ignore_ascii_case("host") => {
                    facts.has_two_hosts |= facts.host.replace(field.value).is_some();
                }
                (6, b'e') | (7, b'u') | (10 | 14, b'c') | (17, b't') => facts.learn(field, version)?,
                _ => {}
            }
        }
        let is_needed = version == Version::Http11;
        match facts.host {
            // An http URI has a host (RFC 9110 section 4.2.1), and what is asked for here is none without authority.
            Some(b"") if is_needed => Err(Reject::Host),
            Some(host) if !facts.has_two_hosts && host::is_valid(host) => Ok(facts),
            None if !is_needed => Ok(facts),
            _ => Err(Reject::Host),
        }
    }

    fn learn(&mut self, field: &httparse::Header<'_>, version: Version) -> Result<(), Reject> {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        match () {
            () if is("expect") && version == Version::Http11 => {
                for expectation in elements(field.value) {
                    if !expectation.eq_ignore_ascii_case(b"100-continue") {
                        return Err(Reject::Expectation);
                    }
                    self.expects_continue = true;
                }
            }
            () if is("upgrade") => self.protocol = true,
            () if is("connection") => {
                for option in field.value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                    self.upgrade |= option.eq_ignore_ascii_case(b"upgrade");
                }
            }
            () if is("content-length") => {
                // Even twice the same: somebody upstream may have taken another one.
                let value = content_length(field.value)?;
                if self.length.replace(value).is_some() {
                    return Err(Reject::ContentLength);
                }
            }
            () if is("transfer-encoding") => self.coding.get_or_insert_default().add(field.value),
            () => {}
        }
        Ok(())
    }

    fn framing(&self, version: Version) -> Result<Framing, Reject> {
        match (&self.coding, self.length) {
            (None, length) => Ok(Framing::Length(length.unwrap_or(0))),
            (Some(_), Some(_)) => Err(Reject::TwoLengths),
            (Some(_), None) if version == Version::Http10 => Err(Reject::TransferEncoding),
            (Some(coding), None) => coding.framing(),
        }
    }
}

/// The elements of a list, of which empty ones do not count (RFC 9110 section 5.6.1.2).
fn elements(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

/// `1*DIGIT` that fits in 64 bits.
fn content_length(value: &[u8]) -> Result<u64, Reject> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Reject::ContentLength);
    }
    let digits = std::str::from_utf8(value).map_err(|_| Reject::ContentLength)?;
    digits.parse().map_err(|_| Reject::ContentLength)
}

/// The transfer codings of a message, over all its Transfer-Encoding fields.
#[derive(Default)]
struct TransferCoding {
    is_malformed: bool,
    is_unknown: bool,
    /// Codings that are known, and that only a proxy would undo.
    others: u32,
    chunked: u32,
    ends_in_chunked: bool,
}

impl TransferCoding {
    fn add(&mut self, value: &[u8]) {
        for coding in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            let is = |name: &str| coding.eq_ignore_ascii_case(name.as_bytes());
            self.ends_in_chunked = is("chunked");
            match () {
                () if is("chunked") => self.chunked += 1,
                () if KNOWN_CODINGS.into_iter().any(is) => self.others += 1,
                () if is("identity") || !is_token(coding) => self.is_malformed = true,
                () => self.is_unknown = true,
            }
        }
    }

    fn framing(&self) -> Result<Framing, Reject> {
        match () {
            () if self.is_malformed || self.chunked > 1 => Err(Reject::TransferEncoding),
            () if self.is_unknown => Err(Reject::TransferCoding),
            () if !self.ends_in_chunked => Err(Reject::TransferEncoding),
            () if self.others > 0 => Err(Reject::TransferCoding),
            () => Ok(Framing::Chunked),
        }
    }
}

/// Registered, and not implemented here (RFC 9112 section 7.2).
const KNOWN_CODINGS: [&str; 5] = ["gzip", "x-gzip", "deflate", "compress", "x-compress"];
