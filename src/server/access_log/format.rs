//! PURE. The content and format of a line of the access log. Whatever a client sends, it is exactly one line.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, UNIX_EPOCH};

use super::buffer::{Buffer, Short, Space};
use super::escape::{escape_json, escape_text, ELLIPSIS};
use super::plan::{Plan, Step, LATE_MAX};
use crate::server::http::{Origin, Request, Version};
use crate::shared::config::{AccessLogFormat, LogVariable as Variable};

/// Writes the lines of one worker.
#[derive(Debug)]
pub(crate) struct Formatter {
    plan: Plan,
    /// The maximum length of a line, and of each value in it that clients can make long.
    room: usize,
    share: usize,
    worker: String,
    process: String,
    /// The last second that was formatted, and its text.
    second: u64,
    local: Vec<u8>,
    iso: Vec<u8>,
}

/// The parts of lines that are known from their requests, one line after the other.
#[derive(Debug, Default)]
pub(super) struct Begun {
    text: Buffer,
    /// The end of each chunk.
    ends: Vec<usize>,
}

impl Begun {
    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
    }

    /// The bytes allocated.
    pub(super) fn capacity(&self) -> usize {
        self.text.capacity() + self.ends.capacity() * size_of::<usize>()
    }
}

/// The outcome of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub(crate) status: u16,
    /// The bytes sent after the head.
    pub(crate) bytes: u64,
    /// The duration in microseconds.
    pub(crate) micros: u64,
}

/// The client and the peer, as they are written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Who<'a> {
    pub(super) client: &'a str,
    pub(super) peer: Option<IpAddr>,
    /// [`Formatter::prefix`] of the two.
    pub(super) prefix: &'a [u8],
}

/// The parts of a request; those that are missing could not be parsed.
#[derive(Default)]
struct Said<'a> {
    method: Option<&'a [u8]>,
    target: Option<&'a [u8]>,
    version: Option<&'a [u8]>,
    host: Option<&'a [u8]>,
    is_https: bool,
    /// For its header fields.
    request: Option<&'a Request<'a>>,
}

/// The maximum length of a method and of a version in a line.
const WORD_MAX: usize = 32;

/// The maximum length of an address.
const ADDRESS_MAX: usize = 48;

/// The length of what may surround a value, and of what marks its end.
const AROUND: usize = ELLIPSIS.len() + 2;

/// The share of a target in the space for long values. Each other value has a share of one.
const TARGET_SHARE: usize = 4;

/// Formats a client's address. A client on a Unix socket has none, but log readers expect one.
pub(super) fn remote(client: Option<IpAddr>) -> String {
    client.unwrap_or(Ipv4Addr::UNSPECIFIED.into()).to_canonical().to_string()
}

impl Formatter {
    /// The minimum for the length of a line.
    pub(crate) const ROOM_MIN: usize = 4096;

    /// For lines of at most `room` bytes, at least [`ROOM_MIN`](Formatter::ROOM_MIN). Longer values are cut.
    pub(crate) fn new(format: &AccessLogFormat, room: usize, worker: usize, process: u32) -> Formatter {
        let mut formatter = Formatter {
            plan: Plan::of(format),
            room,
            share: 0,
            worker: worker.to_string(),
            process: process.to_string(),
            second: 0,
            local: Vec::new(),
            iso: Vec::new(),
        };
        formatter.set_room(room);
        formatter.refresh(0);
        formatter
    }

    /// Changes the maximum length of lines.
    pub(crate) fn set_room(&mut self, room: usize) {
        (self.room, self.share) = (room, self.share_of(room));
    }

    /// What all lines of this client begin with.
    pub(super) fn prefix(&self, client: &str, peer: Option<IpAddr>) -> Vec<u8> {
        let (mut prefix, who) = (Begun::default(), Who { client, peer, prefix: b"" });
        self.append(&self.plan.prefix, &mut prefix, who, &Said::default());
        prefix.text.as_slice().to_owned()
    }

    /// Begins the line of a request.
    pub(super) fn begin(&self, line: &mut Begun, who: Who<'_>, request: &Request<'_>, origin: &Origin<'_>) {
        let said = Said {
            method: Some(request.method().as_bytes()),
            target: Some(request.target().as_bytes()),
            version: Some(request.version().as_str().as_bytes()),
            host: origin.host.map(str::as_bytes).or(request.own_host()),
            is_https: origin.is_https,
            request: Some(request),
        };
        self.append_all(line, who, &said);
    }

    /// Begins the line of a request that is refused, from what has arrived of it.
    pub(super) fn begin_refused(&self, line: &mut Begun, who: Who<'_>, head: &[u8]) {
        let start = head.iter().position(|byte| !b"\r\n".contains(byte)).unwrap_or(head.len());
        let first = head[start..].split(|byte| b"\r\n".contains(byte)).next().unwrap_or_default();
        let mut words = first.splitn(3, |byte| *byte == b' ').filter(|_| !first.is_empty());
        let (method, target, version) = (words.next(), words.next(), words.next());
        self.append_all(line, who, &Said { method, target, version, ..Said::default() });
    }

    fn append_all(&self, line: &mut Begun, who: Who<'_>, said: &Said<'_>) {
        if !self.plan.prefix.is_empty() {
            line.text.append(who.prefix);
            line.ends.push(line.text.len());
        }
        self.append(&self.plan.early, line, who, said);
    }

    fn append(&self, steps: &[Step], line: &mut Begun, who: Who<'_>, said: &Said<'_>) {
        let share = self.share;
        let text = &mut line.text;
        for step in steps {
            let variable = match step {
                Step::Text(short) => {
                    text.append_short(short);
                    continue;
                }
                Step::Chunk => {
                    line.ends.push(text.len());
                    continue;
                }
                Step::Value(variable) => variable,
            };
            match variable {
                Variable::Request => request_line(said, share, text),
                Variable::Field(name) => {
                    self.value(said.request.and_then(|request| request.header_bytes(name)), share, text);
                }
                other => self.append_other(other, text, who, said),
            }
        }
    }

    #[inline(never)]
    fn append_other(&self, variable: &Variable, text: &mut Buffer, who: Who<'_>, said: &Said<'_>) {
        let share = self.share;
        match variable {
            Variable::Client => self.own_value(who.client, text),
            Variable::Peer => self.own_value(&remote(who.peer), text),
            Variable::User => self.value(None, WORD_MAX, text),
            Variable::Method => self.value(said.method, WORD_MAX, text),
            Variable::Target => self.value(said.target, share * TARGET_SHARE, text),
            Variable::Version => self.value(said.version, WORD_MAX, text),
            Variable::Scheme => self.own_value(if said.is_https { "https" } else { "http" }, text),
            Variable::Host => self.value(said.host, share, text),
            Variable::Worker => text.append(self.worker.as_bytes()),
            Variable::Process => text.append(self.process.as_bytes()),
            // Known at the end.
            _ => {}
        }
    }

    /// The maximum length of each value that clients can make long, in a line of this length.
    fn share_of(&self, room: usize) -> usize {
        let (mut fixed, mut shares) = (0, 0);
        for step in self.plan.steps() {
            match step {
                Step::Text(text) => fixed += text.len(),
                Step::Value(Variable::Client | Variable::Peer) => fixed += ADDRESS_MAX + AROUND,
                Step::Value(Variable::Request) => {
                    (fixed, shares) = (fixed + 2 * WORD_MAX + 4 * AROUND, shares + TARGET_SHARE);
                }
                Step::Value(Variable::Target) => (fixed, shares) = (fixed + AROUND, shares + TARGET_SHARE),
                Step::Value(Variable::Host | Variable::Field(_)) => (fixed, shares) = (fixed + AROUND, shares + 1),
                Step::Value(_) => fixed += LATE_MAX,
                Step::Chunk => {}
            }
        }
        room.saturating_sub(fixed) / shares.max(1)
    }

    #[inline]
    fn value(&self, value: Option<&[u8]>, room: usize, text: &mut Buffer) {
        match (value, self.plan.is_json) {
            (Some(value), false) => escape_text(value, room, text),
            (None, false) => text.push(b'-'),
            (Some(value), true) => {
                text.push(b'"');
                escape_json(value, room, text);
                text.push(b'"');
            }
            (None, true) => text.append(b"null"),
        }
    }

    /// Appends a value that no client has written: it is short and needs no escaping.
    fn own_value(&self, value: &str, text: &mut Buffer) {
        if !self.plan.is_json {
            return text.append(value.as_bytes());
        }
        text.push(b'"');
        text.append(value.as_bytes());
        text.push(b'"');
    }

    /// How many chunks of text the beginning of a line has.
    pub(super) fn chunks(&self) -> usize {
        self.plan.chunks
    }

    /// The maximum length of a finished line: the one that begins with this chunk.
    pub(super) fn bound(&self, begun: &Begun, first: usize) -> usize {
        begin_of(first + self.plan.chunks, &begun.ends) - begin_of(first, &begun.ends) + self.plan.late_max
    }

    /// Appends the line that begins with chunk `first` and has at most `most` bytes, for a response that was complete
    /// at this time, in milliseconds since 1970.
    pub(super) fn finish(
        &mut self,
        (begun, first, most): (&Begun, usize, usize),
        millis: u64,
        outcome: Outcome,
        out: &mut Buffer,
    ) {
        if millis / 1000 != self.second {
            self.refresh(millis / 1000);
        }
        let line = out.len();
        out.append_with(most, |out| {
            let mut start = begin_of(first, &begun.ends);
            let mut ends = begun.ends[first..].iter();
            for step in &self.plan.late {
                match step {
                    Step::Text(short) => out.append_short(short),
                    Step::Value(variable) => self.append_late(variable, millis, outcome, out),
                    Step::Chunk => {
                        let end = ends.next().map_or(start, |end| *end);
                        out.append(&begun.text.as_slice()[start..end]);
                        start = end;
                    }
                }
            }
        });
        debug_assert!(out.len() - line <= self.room && out.as_slice().ends_with(b"\n"), "a line fits");
    }

    #[inline]
    fn append_late(&self, variable: &Variable, millis: u64, outcome: Outcome, out: &mut Space<'_>) {
        match variable {
            Variable::TimeLocal => out.append(&self.local),
            Variable::Status if outcome.status == 200 => out.append_short(&const { Short::of(b"200") }),
            Variable::Bytes => out.append(itoa::Buffer::new().format(outcome.bytes).as_bytes()),
            _ => self.append_other_late(variable, millis, outcome, out),
        }
    }

    /// The rest. If this were inlined, each line would cost 200 more instructions, for divisions ahead of the loop.
    #[inline(never)]
    fn append_other_late(&self, variable: &Variable, millis: u64, outcome: Outcome, out: &mut Space<'_>) {
        let mut number = itoa::Buffer::new();
        match variable {
            Variable::Status => out.append(number.format(outcome.status).as_bytes()),
            Variable::TimeIso => {
                out.append(&self.iso);
                out.append(b"+00:00");
            }
            Variable::TimeMillis => {
                out.append(&self.iso);
                append_fraction(millis % 1000, 3, out);
                out.append(b"Z");
            }
            Variable::Millis => {
                out.append(number.format(millis / 1000).as_bytes());
                append_fraction(millis % 1000, 3, out);
            }
            Variable::Micros => out.append(number.format(outcome.micros).as_bytes()),
            Variable::Seconds => {
                out.append(number.format(outcome.micros / 1_000_000).as_bytes());
                append_fraction(outcome.micros / 1000 % 1000, 3, out);
            }
            Variable::Exact => {
                out.append(number.format(outcome.micros / 1_000_000).as_bytes());
                append_fraction(outcome.micros % 1_000_000, 6, out);
            }
            // Known earlier.
            _ => {}
        }
    }

    /// Formats the date for a second since 1970, in UTC.
    fn refresh(&mut self, second: u64) {
        self.second = second;
        // The end of the year 9999, since the formats have four digits for the year.
        let date = httpdate::HttpDate::from(UNIX_EPOCH + Duration::from_secs(second.min(253_402_300_799)));
        // IMF-fixdate: Sun, 06 Nov 1994 08:49:37 GMT.
        let text = date.to_string();
        let (day, month, year, time) = (&text[5..7], &text[8..11], &text[12..16], &text[17..25]);
        let number = MONTHS.iter().position(|name| *name == month).map_or(0, |index| index + 1);
        self.local = format!("{day}/{month}/{year}:{time} +0000").into_bytes();
        self.iso = format!("{year}-{number:02}-{day}T{time}").into_bytes();
    }
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Where this chunk begins: at the end of the one before it.
fn begin_of(chunk: usize, ends: &[usize]) -> usize {
    chunk.checked_sub(1).and_then(|before| ends.get(before)).map_or(0, |end| *end)
}

fn request_line(said: &Said<'_>, share: usize, text: &mut Buffer) {
    match said.request {
        // What nearly all are. The parser has accepted the method and the version, so they need no escaping.
        Some(request) if request.method() == "GET" && request.version() == Version::Http11 => {
            text.append_short(&const { Short::of(b"GET ") });
            escape_text(request.target().as_bytes(), share * TARGET_SHARE, text);
            text.append_short(&const { Short::of(b" HTTP/1.1") });
        }
        _ => {
            escape_text(said.method.unwrap_or(b"-"), WORD_MAX, text);
            for (word, room) in [(said.target, share * TARGET_SHARE), (said.version, WORD_MAX)] {
                if let Some(word) = word {
                    text.push(b' ');
                    escape_text(word, room, text);
                }
            }
        }
    }
}

/// Appends a point and this number of digits.
fn append_fraction(value: u64, digits: u32, out: &mut Space<'_>) {
    out.append(b".");
    (0..digits).rev().for_each(|place| out.append(&[b'0' + (value / 10_u64.pow(place) % 10) as u8]));
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
