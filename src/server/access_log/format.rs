//! PURE. The content and format of a line of the access log. Whatever a client sends, it is exactly one line.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, UNIX_EPOCH};

use crate::server::http::{Origin, Request};
use crate::shared::config::{AccessLogFormat, LogPart as Part, LogVariable as Variable};

/// Writes the lines of one worker.
#[derive(Debug)]
pub(crate) struct Formatter {
    parts: Vec<Part>,
    /// Whether values are JSON.
    is_json: bool,
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

/// The part of a line that is known from the request.
#[derive(Debug, Default)]
pub(crate) struct Line {
    text: Vec<u8>,
    /// Where the parts go that are not known yet, and which they are.
    late: Vec<(usize, usize)>,
}

impl Line {
    /// The bytes allocated.
    pub(crate) fn capacity(&self) -> usize {
        self.text.capacity()
    }
}

/// The outcome of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub(crate) status: u16,
    /// The bytes sent after the head.
    pub(crate) bytes: u64,
    pub(crate) duration: Duration,
}

/// The client and the peer, as they are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Who<'a> {
    pub(crate) client: &'a str,
    pub(crate) peer: Option<IpAddr>,
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

/// The maximum length of an address, and of each value known at the end of a response.
const ADDRESS_MAX: usize = 48;
const LATE_MAX: usize = 40;

/// Replaces the rest of a value that is too long.
const CUT: &[u8] = b"...";

/// The length of what may surround a value, and of what marks its end.
const AROUND: usize = CUT.len() + 2;

/// The share of a target in the space for long values. Each other value has a share of one.
const TARGET_SHARE: usize = 4;

/// Formats a client's address. A client on a Unix socket has none, but log readers expect one.
pub(crate) fn remote(client: Option<IpAddr>) -> String {
    client.unwrap_or(Ipv4Addr::UNSPECIFIED.into()).to_canonical().to_string()
}

impl Formatter {
    /// The minimum for the length of a line.
    pub(crate) const ROOM_MIN: usize = 4096;

    /// For lines of at most `room` bytes, at least [`ROOM_MIN`](Formatter::ROOM_MIN). Longer values are cut.
    pub(crate) fn new(format: &AccessLogFormat, room: usize, worker: usize, process: u32) -> Formatter {
        let template = format.template();
        let is_json = template.is_none();
        let parts = template.map_or_else(object, |template| template.parts);
        let mut formatter = Formatter {
            parts,
            is_json,
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

    /// Begins the line of a request.
    pub(crate) fn begin(&self, line: &mut Line, who: Who<'_>, request: &Request<'_>, origin: &Origin<'_>) {
        let said = Said {
            method: Some(request.method().as_bytes()),
            target: Some(request.target().as_bytes()),
            version: Some(request.version().as_str().as_bytes()),
            host: origin.host.map(str::as_bytes).or(request.own_host()),
            is_https: origin.is_https,
            request: Some(request),
        };
        self.begin_with(line, who, &said);
    }

    /// Begins the line of a request that is refused, from what has arrived of it.
    pub(crate) fn begin_refused(&self, line: &mut Line, who: Who<'_>, head: &[u8]) {
        let start = head.iter().position(|byte| !b"\r\n".contains(byte)).unwrap_or(head.len());
        let first = head[start..].split(|byte| b"\r\n".contains(byte)).next().unwrap_or_default();
        let mut words = first.splitn(3, |byte| *byte == b' ').filter(|_| !first.is_empty());
        let (method, target, version) = (words.next(), words.next(), words.next());
        self.begin_with(line, who, &Said { method, target, version, ..Said::default() });
    }

    fn begin_with(&self, line: &mut Line, who: Who<'_>, said: &Said<'_>) {
        line.text.clear();
        line.late.clear();
        let share = self.share;
        for (index, part) in self.parts.iter().enumerate() {
            let variable = match part {
                Part::Text(text) => {
                    line.text.extend_from_slice(text.as_bytes());
                    continue;
                }
                Part::Variable(variable) => variable,
            };
            let text = &mut line.text;
            match variable {
                Variable::Client => self.own_value(who.client, text),
                Variable::Peer => self.own_value(&remote(who.peer), text),
                Variable::User => self.value(None, WORD_MAX, text),
                Variable::Request => self.request_line(said, share, text),
                Variable::Method => self.value(said.method, WORD_MAX, text),
                Variable::Target => self.value(said.target, share * TARGET_SHARE, text),
                Variable::Version => self.value(said.version, WORD_MAX, text),
                Variable::Scheme => self.own_value(if said.is_https { "https" } else { "http" }, text),
                Variable::Host => self.value(said.host, share, text),
                Variable::Field(name) => {
                    self.value(said.request.and_then(|request| request.header_bytes(name)), share, text);
                }
                Variable::Worker => text.extend_from_slice(self.worker.as_bytes()),
                Variable::Process => text.extend_from_slice(self.process.as_bytes()),
                Variable::TimeLocal
                | Variable::TimeIso
                | Variable::TimeMillis
                | Variable::Millis
                | Variable::Status
                | Variable::Bytes
                | Variable::Seconds
                | Variable::Micros
                | Variable::Exact => line.late.push((line.text.len(), index)),
            }
        }
    }

    /// The maximum length of each value that clients can make long, in a line of this length.
    fn share_of(&self, room: usize) -> usize {
        let (mut fixed, mut shares) = (1, 0);
        for part in &self.parts {
            match part {
                Part::Text(text) => fixed += text.len(),
                Part::Variable(Variable::Client | Variable::Peer) => fixed += ADDRESS_MAX + AROUND,
                Part::Variable(Variable::Request) => {
                    (fixed, shares) = (fixed + 2 * WORD_MAX + 4 * AROUND, shares + TARGET_SHARE);
                }
                Part::Variable(Variable::Target) => (fixed, shares) = (fixed + AROUND, shares + TARGET_SHARE),
                Part::Variable(Variable::Host | Variable::Field(_)) => (fixed, shares) = (fixed + AROUND, shares + 1),
                Part::Variable(_) => fixed += LATE_MAX,
            }
        }
        room.saturating_sub(fixed) / shares.max(1)
    }

    fn value(&self, value: Option<&[u8]>, room: usize, text: &mut Vec<u8>) {
        match (value, self.is_json) {
            (Some(value), false) => escape_text(value, room, text),
            (None, false) => text.push(b'-'),
            (Some(value), true) => {
                text.push(b'"');
                escape_json(value, room, text);
                text.push(b'"');
            }
            (None, true) => text.extend_from_slice(b"null"),
        }
    }

    /// Appends a value that no client has written: it is short and needs no escaping.
    fn own_value(&self, value: &str, text: &mut Vec<u8>) {
        if !self.is_json {
            return text.extend_from_slice(value.as_bytes());
        }
        text.push(b'"');
        text.extend_from_slice(value.as_bytes());
        text.push(b'"');
    }

    fn request_line(&self, said: &Said<'_>, share: usize, text: &mut Vec<u8>) {
        escape_text(said.method.unwrap_or(b"-"), WORD_MAX, text);
        for (word, room) in [(said.target, share * TARGET_SHARE), (said.version, WORD_MAX)] {
            if let Some(word) = word {
                text.push(b' ');
                escape_text(word, room, text);
            }
        }
    }

    /// The maximum length of the finished line.
    pub(crate) fn bound(&self, line: &Line) -> usize {
        line.text.len() + line.late.len() * LATE_MAX + 1
    }

    /// Appends a whole line, for a response that was complete at this time, in milliseconds since 1970.
    pub(crate) fn finish(&mut self, line: &Line, millis: u64, outcome: Outcome, out: &mut Vec<u8>) {
        if millis / 1000 != self.second {
            self.refresh(millis / 1000);
        }
        let start = out.len();
        let mut written = 0;
        for (place, index) in &line.late {
            out.extend_from_slice(&line.text[written..*place]);
            written = *place;
            if let Some(Part::Variable(variable)) = self.parts.get(*index) {
                self.finish_value(variable, millis, outcome, out);
            }
        }
        out.extend_from_slice(&line.text[written..]);
        out.push(b'\n');
        debug_assert!(out.len() - start <= self.room, "a line fits");
    }

    fn finish_value(&self, variable: &Variable, millis: u64, outcome: Outcome, out: &mut Vec<u8>) {
        let mut number = itoa::Buffer::new();
        let micros = u64::try_from(outcome.duration.as_micros()).unwrap_or(u64::MAX);
        match variable {
            Variable::TimeLocal => out.extend_from_slice(&self.local),
            Variable::TimeIso => {
                out.extend_from_slice(&self.iso);
                out.extend_from_slice(b"+00:00");
            }
            Variable::TimeMillis => {
                out.extend_from_slice(&self.iso);
                push_fraction(millis % 1000, 3, out);
                out.push(b'Z');
            }
            Variable::Millis => {
                out.extend_from_slice(number.format(millis / 1000).as_bytes());
                push_fraction(millis % 1000, 3, out);
            }
            Variable::Status => out.extend_from_slice(number.format(outcome.status).as_bytes()),
            Variable::Bytes => out.extend_from_slice(number.format(outcome.bytes).as_bytes()),
            Variable::Micros => out.extend_from_slice(number.format(micros).as_bytes()),
            Variable::Seconds => {
                out.extend_from_slice(number.format(micros / 1_000_000).as_bytes());
                push_fraction(micros / 1000 % 1000, 3, out);
            }
            Variable::Exact => {
                out.extend_from_slice(number.format(micros / 1_000_000).as_bytes());
                push_fraction(micros % 1_000_000, 6, out);
            }
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

/// The template of a JSON object on each line.
fn object() -> Vec<Part> {
    let members = [
        ("time", None),
        ("remote", Some(Variable::Client)),
        ("host", Some(Variable::Host)),
        ("method", Some(Variable::Method)),
        ("target", Some(Variable::Target)),
        ("version", Some(Variable::Version)),
        ("status", Some(Variable::Status)),
        ("bytes", Some(Variable::Bytes)),
        ("duration", Some(Variable::Exact)),
        ("referer", Some(Variable::Field("referer".to_owned()))),
        ("user_agent", Some(Variable::Field("user-agent".to_owned()))),
        ("worker", Some(Variable::Worker)),
        ("pid", Some(Variable::Process)),
    ];
    let mut parts = Vec::new();
    let text = |text: String| Part::Text(text);
    for (name, variable) in members {
        match variable {
            None => parts.extend([
                text(format!("{{\"{name}\":\"")),
                Part::Variable(Variable::TimeMillis),
                text("\"".into()),
            ]),
            Some(variable) => parts.extend([text(format!(",\"{name}\":")), Part::Variable(variable)]),
        }
    }
    parts.push(text("}".to_owned()));
    parts
}

/// Appends a point and this number of digits.
fn push_fraction(value: u64, digits: u32, out: &mut Vec<u8>) {
    out.push(b'.');
    out.extend((0..digits).rev().map(|place| b'0' + (value / 10_u64.pow(place) % 10) as u8));
}

/// Appends a value. Bytes that could end a value or a line, or command a terminal, are written as `\xHH`.
fn escape_text(value: &[u8], room: usize, out: &mut Vec<u8>) {
    if value.len() <= room && is_plain(value) {
        return out.extend_from_slice(value);
    }
    let end = out.len() + room;
    for byte in value {
        let escaped = [b'\\', b'x', hex(byte >> 4), hex(byte & 15)];
        let text = if is_plain(&[*byte]) { &[*byte][..] } else { &escaped };
        if out.len() + text.len() > end {
            return out.extend_from_slice(CUT);
        }
        out.extend_from_slice(text);
    }
}

/// Appends a value as the content of a string (RFC 8259 section 7). U+FFFD replaces bytes that are not UTF-8.
fn escape_json(value: &[u8], room: usize, out: &mut Vec<u8>) {
    if value.len() <= room && is_plain(value) {
        return out.extend_from_slice(value);
    }
    let end = out.len() + room;
    let chunks = value.utf8_chunks();
    let characters = chunks.flat_map(|chunk| {
        let replaced = (!chunk.invalid().is_empty()).then_some(char::REPLACEMENT_CHARACTER);
        chunk.valid().chars().chain(replaced)
    });
    for character in characters {
        let (mut utf8, code) = ([0; 4], character as u32);
        // C1 controls command terminals, too. Everything that is escaped is below 256.
        let escaped = [b'\\', b'u', b'0', b'0', hex((code >> 4 & 15) as u8), hex((code & 15) as u8)];
        let text = match character {
            '"' => b"\\\"",
            '\\' => b"\\\\",
            _ if character.is_control() => &escaped[..],
            _ => character.encode_utf8(&mut utf8).as_bytes(),
        };
        if out.len() + text.len() > end {
            return out.extend_from_slice(CUT);
        }
        out.extend_from_slice(text);
    }
}

fn hex(digit: u8) -> u8 {
    b"0123456789abcdef"[usize::from(digit & 15)]
}

/// Whether a value consists of visible ASCII and blanks, without quotes and backslashes. Nearly all do, so it checks
/// eight bytes at once.
fn is_plain(value: &[u8]) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = ONES * 0x80;
    // Not zero if some byte is zero, and zero if none is.
    let has_zero = |word: u64| word.wrapping_sub(ONES) & !word;
    let eights = value.chunks_exact(8);
    let rest = eights.remainder();
    let mut found = 0;
    for eight in eights {
        let word = u64::from_le_bytes(eight.try_into().expect("it has eight"));
        let controls = word.wrapping_sub(ONES * 0x20) & !word;
        let others = [b'"', b'\\', 0x7f].map(|byte| has_zero(word ^ (ONES * u64::from(byte))));
        found |= word | controls | others[0] | others[1] | others[2];
    }
    found & HIGHS == 0 && rest.iter().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\'))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
