//! PURE. The content and format of a line of the access log. Whatever a client sends, it is exactly one line.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, UNIX_EPOCH};

use super::buffer::{Buffer, Short};
use super::escape::{escape_json, escape_text, ELLIPSIS};
use super::plan::{Late, Plan, Step, Value, LATE_MAX};
use crate::server::http::{Origin, Request, Version};
use crate::shared::config::{AccessLogFormat, LogVariable as Variable};

/// Writes the lines of one worker.
#[derive(Debug)]
pub(crate) struct Formatter {
    pub(super) plan: Plan,
    /// The maximum length of a line, and of each value in it that clients can make long.
    room: usize,
    pub(super) share: usize,
    worker: String,
    process: String,
    /// The last second that was formatted, in milliseconds, and its text.
    pub(super) second: u64,
    pub(super) local: [u8; 26],
    iso: [u8; 19],
}

/// The parts of lines that are known from their requests, one line after the other.
#[derive(Debug, Default)]
pub(super) struct DraftLines {
    pub(super) text: Buffer,
    /// The places that the [`Plan`] marks: in each line those of values that come later, and its end.
    pub(super) marks: Vec<usize>,
}

impl DraftLines {
    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.marks.clear();
    }

    /// The bytes allocated.
    pub(super) fn capacity(&self) -> usize {
        self.text.capacity() + self.marks.capacity() * size_of::<usize>()
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
pub(super) struct ClientText<'a> {
    pub(super) address: &'a str,
    pub(super) peer: Option<SocketAddr>,
    /// What [`Formatter::prefix`] makes of the two.
    pub(super) prefix: &'a [u8],
}

/// The request of a line.
pub(super) enum LoggedRequest<'a> {
    /// None yet: only the client is known.
    Unknown,
    Parsed(&'a Request<'a>, &'a Origin<'a>),
    /// Method, target and version; those that are missing could not be parsed.
    Refused([Option<&'a [u8]>; 3]),
}

impl<'a> LoggedRequest<'a> {
    fn method(&self) -> Option<&'a [u8]> {
        match self {
            LoggedRequest::Parsed(request, _) => Some(request.method().as_bytes()),
            LoggedRequest::Refused([method, ..]) => *method,
            LoggedRequest::Unknown => None,
        }
    }

    fn target(&self) -> Option<&'a [u8]> {
        match self {
            LoggedRequest::Parsed(request, _) => Some(request.target().as_bytes()),
            LoggedRequest::Refused([_, target, _]) => *target,
            LoggedRequest::Unknown => None,
        }
    }

    fn version(&self) -> Option<&'a [u8]> {
        match self {
            LoggedRequest::Parsed(request, _) => Some(request.version().as_str().as_bytes()),
            LoggedRequest::Refused([.., version]) => *version,
            LoggedRequest::Unknown => None,
        }
    }

    fn host(&self) -> Option<&'a [u8]> {
        match self {
            LoggedRequest::Parsed(request, origin) => origin.host.map(str::as_bytes).or(request.own_host()),
            _ => None,
        }
    }

    fn is_https(&self) -> bool {
        matches!(self, LoggedRequest::Parsed(request, origin) if request.tls().is_some() || origin.is_https)
    }
}

/// The maximum length of a method and of a version in a line.
const WORD_MAX: usize = 32;

/// The maximum length of an address.
const ADDRESS_MAX: usize = 48;

/// The length of what may surround a value, and of what marks its end.
const AROUND: usize = ELLIPSIS.len() + 2;

/// The share of a target in the space for long values. Each other value has a share of one.
pub(super) const TARGET_SHARE: usize = 4;

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
            local: [0; 26],
            iso: [0; 19],
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
    pub(super) fn prefix(&self, address: &str, peer: Option<SocketAddr>) -> Vec<u8> {
        let (mut prefix, client) = (DraftLines::default(), ClientText { address, peer, prefix: b"" });
        self.append(&self.plan.prefix, &mut prefix, &client, &LoggedRequest::Unknown);
        prefix.text.as_slice().to_owned()
    }

    /// Begins the line of a request.
    #[inline]
    pub(super) fn begin(
        &self,
        lines: &mut DraftLines,
        client: ClientText<'_>,
        request: &Request<'_>,
        origin: &Origin<'_>,
    ) {
        self.lay_out(lines, client, LoggedRequest::Parsed(request, origin));
    }

    /// Begins the line of a request that is refused, from what has arrived of it.
    pub(super) fn begin_refused(&self, lines: &mut DraftLines, client: ClientText<'_>, head: &[u8]) {
        let start = head.iter().position(|byte| !b"\r\n".contains(byte)).unwrap_or(head.len());
        let first = head[start..].split(|byte| b"\r\n".contains(byte)).next().unwrap_or_default();
        let mut words = first.splitn(3, |byte| *byte == b' ').filter(|_| !first.is_empty());
        self.lay_out(lines, client, LoggedRequest::Refused([words.next(), words.next(), words.next()]));
    }

    #[inline]
    fn lay_out(&self, lines: &mut DraftLines, client: ClientText<'_>, logged: LoggedRequest<'_>) {
        lines.text.append(client.prefix);
        self.append(&self.plan.early, lines, &client, &logged);
        lines.marks.push(lines.text.len());
    }

    fn append(&self, steps: &[Step], lines: &mut DraftLines, client: &ClientText<'_>, logged: &LoggedRequest<'_>) {
        let text = &mut lines.text;
        for step in steps {
            text.append_short(&step.text);
            match &step.value {
                Value::Hole(width) => {
                    lines.marks.push(text.len());
                    text.leave(*width);
                }
                Value::Gap => lines.marks.push(text.len()),
                value => self.append_known(value, text, client, logged),
            }
        }
    }

    /// Appends what is known from the request.
    #[inline(always)]
    pub(super) fn append_known(
        &self,
        value: &Value,
        text: &mut Buffer,
        client: &ClientText<'_>,
        logged: &LoggedRequest<'_>,
    ) {
        match value {
            Value::Nothing | Value::Hole(_) | Value::Gap => {}
            Value::Request => request_line(logged, self.share, text),
            Value::Field(name) => match logged {
                LoggedRequest::Parsed(request, _) => match request.header_bytes(name) {
                    // Many requests have no Referer.
                    None if !self.plan.is_json => text.push(b'-'),
                    value => self.value(value, self.share, text),
                },
                _ => self.value(None, self.share, text),
            },
            Value::Of(other) => self.append_other(other, text, client, logged),
        }
    }

    #[inline(never)]
    fn append_other(
        &self,
        variable: &Variable,
        text: &mut Buffer,
        client: &ClientText<'_>,
        logged: &LoggedRequest<'_>,
    ) {
        let share = self.share;
        match variable {
            Variable::Client => self.own_value(client.address, text),
            Variable::Peer => self.own_value(&remote(client.peer.map(|peer| peer.ip())), text),
            Variable::User => self.value(None, WORD_MAX, text),
            Variable::Method => self.value(logged.method(), WORD_MAX, text),
            Variable::Target => self.value(logged.target(), share * TARGET_SHARE, text),
            Variable::Version => self.value(logged.version(), WORD_MAX, text),
            Variable::Scheme => self.own_value(if logged.is_https() { "https" } else { "http" }, text),
            Variable::Host => self.value(logged.host(), share, text),
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
            fixed += step.text.len();
            match &step.value {
                Value::Of(Variable::Client | Variable::Peer) => fixed += ADDRESS_MAX + AROUND,
                Value::Request => {
                    (fixed, shares) = (fixed + 2 * WORD_MAX + 4 * AROUND, shares + TARGET_SHARE);
                }
                Value::Of(Variable::Target) => (fixed, shares) = (fixed + AROUND, shares + TARGET_SHARE),
                Value::Of(Variable::Host) | Value::Field(_) => (fixed, shares) = (fixed + AROUND, shares + 1),
                Value::Of(_) | Value::Gap => fixed += LATE_MAX,
                Value::Hole(width) => fixed += width,
                Value::Nothing => {}
            }
        }
        room.saturating_sub(fixed) / shares.max(1)
    }

    #[inline(never)]
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

    /// How many marks a line has.
    pub(super) fn marks(&self) -> usize {
        self.plan.marks()
    }

    /// The maximum length of a finished line: the one whose first mark this is.
    #[inline]
    pub(super) fn bound(&self, lines: &DraftLines, first: usize) -> usize {
        let end = lines.marks.get(first + self.plan.late.len()).map_or(0, |end| *end);
        end - begin_of(first, &lines.marks) + self.plan.late_max
    }

    /// Appends the line whose first mark this is, for a response that was complete at this time, in milliseconds since
    /// 1970.
    pub(super) fn finish(
        &mut self,
        lines: &mut DraftLines,
        first: usize,
        millis: u64,
        outcome: Outcome,
        out: &mut Buffer,
    ) {
        if millis.wrapping_sub(self.second) >= 1000 {
            self.refresh(millis / 1000);
        }
        let line = out.len();
        let mut start = begin_of(first, &lines.marks);
        let mut marks = lines.marks[first..].iter();
        for (late, mark) in self.plan.late.iter().zip(&mut marks) {
            match late {
                Late::Local => lines.text.fill(*mark, &self.local),
                Late::Status => match outcome.status {
                    200 => lines.text.fill(*mark, b"200"),
                    status => lines.text.fill(*mark, &digits(status)),
                },
                Late::Fill(variable) => self.fill_other(variable, millis, *mark, &mut lines.text),
                Late::Bytes => {
                    out.append(lines.text.part(start..*mark));
                    append_number(outcome.bytes, out);
                    start = *mark;
                }
                Late::Insert(variable) => {
                    out.append(lines.text.part(start..*mark));
                    insert_other(variable, millis, outcome, out);
                    start = *mark;
                }
            }
        }
        out.append(lines.text.part(start..marks.next().map_or(start, |end| *end)));
        debug_assert!(out.len() - line <= self.room && out.as_slice().ends_with(b"\n"), "a line fits");
    }

    /// If the rest were inlined, each line would cost a hundred more instructions, for divisions ahead of the loop.
    #[inline(never)]
    fn fill_other(&self, variable: &Variable, millis: u64, hole: usize, text: &mut Buffer) {
        text.fill(hole, &self.iso);
        let after = hole + self.iso.len();
        match variable {
            Variable::TimeIso => text.fill(after, b"+00:00"),
            _ => {
                let millis = (millis % 1000) as u16;
                let digits = [millis / 100, millis / 10, millis].map(digit);
                text.fill(after, &[b'.', digits[0], digits[1], digits[2], b'Z']);
            }
        }
    }

    /// Formats the date for a second since 1970, in UTC.
    pub(super) fn refresh(&mut self, second: u64) {
        self.second = second.saturating_mul(1000);
        // The end of the year 9999, since the formats have four digits for the year.
        let date = httpdate::HttpDate::from(UNIX_EPOCH + Duration::from_secs(second.min(253_402_300_799)));
        // IMF-fixdate: Sun, 06 Nov 1994 08:49:37 GMT.
        let text = date.to_string();
        let (day, month, year, time) = (&text[5..7], &text[8..11], &text[12..16], &text[17..25]);
        let number = MONTHS.iter().position(|name| *name == month).map_or(0, |index| index + 1);
        self.local.copy_from_slice(format!("{day}/{month}/{year}:{time} +0000").as_bytes());
        self.iso.copy_from_slice(format!("{year}-{number:02}-{day}T{time}").as_bytes());
    }
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Where the line begins whose first mark this is: at the end of the one before it.
#[inline]
fn begin_of(first: usize, marks: &[usize]) -> usize {
    first.checked_sub(1).and_then(|before| marks.get(before)).map_or(0, |end| *end)
}

#[inline(never)]
pub(super) fn digits(status: u16) -> [u8; 3] {
    [status / 100, status / 10, status].map(digit)
}

#[inline]
fn digit(value: u16) -> u8 {
    b'0' + (value % 10) as u8
}

pub(super) fn request_line(logged: &LoggedRequest<'_>, share: usize, text: &mut Buffer) {
    match logged {
        // What nearly all are. The parser has accepted the method and the version, so they need no escaping.
        LoggedRequest::Parsed(request, _) if is_get(request) => {
            text.append_short(&const { Short::of(b"GET ") });
            escape_text(request.target().as_bytes(), share * TARGET_SHARE, text);
            text.append_short(&const { Short::of(b" HTTP/1.1") });
        }
        _ => {
            escape_text(logged.method().unwrap_or(b"-"), WORD_MAX, text);
            for (word, room) in [(logged.target(), share * TARGET_SHARE), (logged.version(), WORD_MAX)] {
                if let Some(word) = word {
                    text.push(b' ');
                    escape_text(word, room, text);
                }
            }
        }
    }
}

#[inline]
pub(super) fn is_get(request: &Request<'_>) -> bool {
    request.method() == "GET" && request.version() == Version::Http11
}

/// Appends a number. Most have few digits.
#[inline]
pub(super) fn append_number(number: u64, out: &mut Buffer) {
    match number {
        0..10 => out.push(digit(number as u16)),
        10..100 => out.append(&[number / 10, number % 10].map(|value| digit(value as u16))),
        _ => out.append(itoa::Buffer::new().format(number).as_bytes()),
    }
}

/// Appends a time whose length varies.
#[inline(never)]
fn insert_other(variable: &Variable, millis: u64, outcome: Outcome, out: &mut Buffer) {
    match variable {
        Variable::Millis => {
            append_number(millis / 1000, out);
            append_fraction(millis % 1000, 3, out);
        }
        Variable::Micros => append_number(outcome.micros, out),
        Variable::Seconds => {
            append_number(outcome.micros / 1_000_000, out);
            append_fraction(outcome.micros / 1000 % 1000, 3, out);
        }
        Variable::Exact => {
            append_number(outcome.micros / 1_000_000, out);
            append_fraction(outcome.micros % 1_000_000, 6, out);
        }
        // Of a fixed length, or known earlier.
        _ => {}
    }
}

/// Appends a point and this number of digits.
fn append_fraction(value: u64, digits: u32, out: &mut Buffer) {
    out.push(b'.');
    (0..digits).rev().for_each(|place| out.push(digit((value / 10_u64.pow(place) % 10) as u16)));
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
