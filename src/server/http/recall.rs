//! A head that is already known.
//!
//! A client that asks again mostly sends the same head, such as one that polls, checks health, or sends request after
//! request. So a worker keeps the last head that arrived and, once it has arrived twice, its meaning. A head with
//! exactly the same bytes means the same and is not parsed again, which saves most of a request's cost here.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::headers::Headers;
use super::message::{Framing, Head};
use super::request::{Request, Version};
use super::Reject;

/// The last head that arrived whole and was valid. All codecs that share it have the same limits.
#[derive(Debug, Default)]
pub(crate) struct Recall {
    /// The bytes of a head that has arrived once.
    seen: Vec<u8>,
    known: Option<Known>,
    /// The number of heads that were parsed.
    parsed: u32,
}

/// Of this many parsed heads, two are considered. If no two requests are alike, trying costs next to nothing.
const TRY_EVERY: u32 = 16;

/// The meaning of a head that has arrived twice.
#[derive(Debug)]
struct Known {
    text: String,
    // Each a text of its own, since slicing the whole text would check its ends every time.
    method: Box<str>,
    target: Box<str>,
    query_mark: usize,
    version: Version,
    host: Option<Box<[u8]>>,
    /// Names and values.
    fields: Vec<(Range<usize>, Range<usize>)>,
    framing: Framing,
    keep_alive: bool,
    expects_continue: bool,
    upgrade: bool,
}

impl Recall {
    /// Whether `input` begins with the known head.
    pub(super) fn knows(&self, input: &[u8]) -> bool {
        self.known.as_ref().is_some_and(|known| input.starts_with(known.text.as_bytes()))
    }

    /// The meaning of that head, and its length.
    pub(super) fn head<'a>(&'a self, place: &'a mut Option<Request<'a>>) -> Option<(usize, Result<Head<'a>, Reject>)> {
        self.known.as_ref().map(|known| (known.text.len(), Ok(known.head(place))))
    }

    /// Learns a head that was parsed from the front of `input`.
    #[inline]
    pub(super) fn learn(&mut self, input: &[u8], (len, parsed): &(usize, Result<Head<'_>, Reject>)) {
        let turn = self.parsed % TRY_EVERY;
        self.parsed = self.parsed.wrapping_add(1);
        if turn < 2 {
            if let Ok(head) = parsed {
                self.look(&input[..*len], head);
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn look(&mut self, text: &[u8], head: &Head<'_>) {
        if self.seen != text {
            self.seen.clear();
            self.seen.extend_from_slice(text);
            return;
        }
        // Values may contain other bytes; such a head is parsed each time.
        self.known = std::str::from_utf8(text).ok().map(|text| Known::new(text, head));
    }
}

impl Known {
    fn new(text: &str, head: &Head<'_>) -> Known {
        let place = |part: &[u8]| {
            let start = part.as_ptr() as usize - text.as_ptr() as usize;
            start..start + part.len()
        };
        let request = &head.request;
        Known {
            text: text.to_owned(),
            method: request.method.into(),
            target: request.target.into(),
            query_mark: request.query_mark,
            version: request.version,
            host: request.host.map(Box::from),
            fields: request.headers().map(|(name, value)| (place(name.as_bytes()), place(value))).collect(),
            framing: head.framing,
            keep_alive: head.keep_alive,
            expects_continue: head.expects_continue,
            upgrade: head.upgrade,
        }
    }

    fn head<'a>(&'a self, place: &'a mut Option<Request<'a>>) -> Head<'a> {
        let text = self.text.as_str();
        let request = place.insert(Request {
            method: &self.method,
            target: &self.target,
            query_mark: self.query_mark,
            version: self.version,
            host: self.host.as_deref(),
            fields: Headers::known(text, &self.fields),
            body: b"",
            peer: None,
            via: None,
            tls: None,
            worker: 0,
        });
        let Known { framing, keep_alive, expects_continue, upgrade, .. } = *self;
        Head { request, framing, keep_alive, expects_continue, upgrade }
    }
}
