//! PURE. What a line of the access log says, and how: whatever a client sends, it is one line and cannot be taken for
//! two.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::time::{Duration, UNIX_EPOCH};

use crate::server::http::Request;
use crate::shared::config::AccessLogFormat;

/// Writes lines, all for one worker.
#[derive(Debug)]
pub(crate) struct Formatter {
    format: AccessLogFormat,
    /// Most bytes of a line.
    room: usize,
    /// What ends each line.
    end: Vec<u8>,
    /// The second that was written last, and how.
    second: u64,
    date: Vec<u8>,
}

/// The part of a line that the request decides.
#[derive(Debug, Default)]
pub(crate) struct Line {
    text: Vec<u8>,
    /// Where the time goes, and where the outcome does.
    time: usize,
    outcome: usize,
}

impl Line {
    /// Bytes that it holds on to.
    pub(crate) fn capacity(&self) -> usize {
        self.text.capacity()
    }
}

/// What has become of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub(crate) status: u16,
    /// Of what followed the head, as sent.
    pub(crate) bytes: u64,
    pub(crate) duration: Duration,
}

/// What a request says of itself; what is missing could not be read.
#[derive(Default)]
struct Said<'a> {
    method: Option<&'a [u8]>,
    target: Option<&'a [u8]>,
    version: Option<&'a [u8]>,
    referer: Option<&'a [u8]>,
    user_agent: Option<&'a [u8]>,
}

/// Most bytes of a method and of a version that are written.
const WORD_MAX: usize = 32;

/// Most bytes that time, outcome and end add to a line.
const REST_MAX: usize = 192;

/// What stands for the rest of a value that is too long.
const CUT: &[u8] = b"...";

/// How the client's address is written; Unix sockets have none.
pub(crate) fn remote(peer: Option<SocketAddr>) -> String {
    peer.map_or_else(|| "unix:".to_owned(), |peer| peer.ip().to_canonical().to_string())
}

impl Formatter {
    /// The least room for a line.
    pub(crate) const ROOM_MIN: usize = 4096;

    /// Lines of at most `room` bytes, at least [`ROOM_MIN`](Formatter::ROOM_MIN): of longer values the end is cut off.
    pub(crate) fn new(format: AccessLogFormat, room: usize, worker: usize, process: u32) -> Formatter {
        let end = match format {
            AccessLogFormat::Common | AccessLogFormat::Combined => "\n".to_owned(),
            AccessLogFormat::Json => format!(",\"worker\":{worker},\"pid\":{process}}}\n"),
        };
        let mut formatter = Formatter { format, room, end: end.into_bytes(), second: 0, date: Vec::new() };
        formatter.refresh(0);
        formatter
    }

    /// Changes the length that lines may have.
    pub(crate) fn set_room(&mut self, room: usize) {
        self.room = room;
    }

    /// Begins the line of a request.
    pub(crate) fn begin(&self, line: &mut Line, remote: &str, request: &Request<'_>) {
        let mut said = Said {
            method: Some(request.method().as_bytes()),
            target: Some(request.target().as_bytes()),
            version: Some(request.version().as_str().as_bytes()),
            ..Said::default()
        };
        if self.format != AccessLogFormat::Common {
            for (name, value) in request.headers() {
                let place = match name.len() {
                    7 if name.eq_ignore_ascii_case("referer") => &mut said.referer,
                    10 if name.eq_ignore_ascii_case("user-agent") => &mut said.user_agent,
                    _ => continue,
                };
                place.get_or_insert(value);
            }
        }
        self.begin_with(line, remote, &said);
    }

    /// Begins the line of a request that is refused, from what has come of it.
    pub(crate) fn begin_refused(&self, line: &mut Line, remote: &str, head: &[u8]) {
        let start = head.iter().position(|byte| !b"\r\n".contains(byte)).unwrap_or(head.len());
        let first = head[start..].split(|byte| b"\r\n".contains(byte)).next().unwrap_or_default();
        let mut words = first.splitn(3, |byte| *byte == b' ').filter(|_| !first.is_empty());
        let (method, target, version) = (words.next(), words.next(), words.next());
        self.begin_with(line, remote, &Said { method, target, version, ..Said::default() });
    }

    fn begin_with(&self, line: &mut Line, remote: &str, said: &Said<'_>) {
        line.text.clear();
        match self.format {
            AccessLogFormat::Common | AccessLogFormat::Combined => self.begin_text(line, remote, said),
            AccessLogFormat::Json => self.begin_json(line, remote, said),
        }
    }

    fn begin_text(&self, line: &mut Line, remote: &str, said: &Said<'_>) {
        let text = &mut line.text;
        text.extend_from_slice(remote.as_bytes());
        text.extend_from_slice(b" - - [");
        line.time = text.len();
        text.extend_from_slice(b"] \"");
        escape_text(said.method.unwrap_or(b"-"), WORD_MAX, text);
        for (word, room) in [(said.target, self.room / 2), (said.version, WORD_MAX)] {
            if let Some(word) = word {
                text.push(b' ');
                escape_text(word, room, text);
            }
        }
        text.extend_from_slice(b"\" ");
        line.outcome = text.len();
        if self.format == AccessLogFormat::Combined {
            for field in [said.referer, said.user_agent] {
                text.extend_from_slice(b" \"");
                match field {
                    Some(value) => escape_text(value, self.field_room(), text),
                    None => text.push(b'-'),
                }
                text.push(b'"');
            }
        }
    }

    fn begin_json(&self, line: &mut Line, remote: &str, said: &Said<'_>) {
        let text = &mut line.text;
        text.extend_from_slice(b"{\"time\":\"");
        line.time = text.len();
        text.extend_from_slice(b"\",\"remote\":\"");
        text.extend_from_slice(remote.as_bytes());
        text.push(b'"');
        member(text, b",\"method\":", said.method, WORD_MAX);
        member(text, b",\"target\":", said.target, self.room / 2);
        member(text, b",\"version\":", said.version, WORD_MAX);
        line.outcome = text.len();
        member(text, b",\"referer\":", said.referer, self.field_room());
        member(text, b",\"user_agent\":", said.user_agent, self.field_room());
    }

    /// Of the rest of the line, after the target, half for each field and some for all else.
    fn field_room(&self) -> usize {
        self.room / 16 * 3
    }

    /// As many bytes at most as the line will have.
    pub(crate) fn bound(&self, line: &Line) -> usize {
        line.text.len() + REST_MAX
    }

    /// Appends a whole line, for an answer that was complete so many milliseconds after the beginning of 1970.
    pub(crate) fn finish(&mut self, line: &Line, millis: u64, outcome: Outcome, out: &mut Vec<u8>) {
        if millis / 1000 != self.second {
            self.refresh(millis / 1000);
        }
        let mut number = itoa::Buffer::new();
        out.extend_from_slice(&line.text[..line.time]);
        out.extend_from_slice(&self.date);
        match self.format {
            AccessLogFormat::Common | AccessLogFormat::Combined => {
                out.extend_from_slice(&line.text[line.time..line.outcome]);
                out.extend_from_slice(number.format(outcome.status).as_bytes());
                out.push(b' ');
                out.extend_from_slice(number.format(outcome.bytes).as_bytes());
            }
            AccessLogFormat::Json => {
                push_millis(millis, out);
                out.push(b'Z');
                out.extend_from_slice(&line.text[line.time..line.outcome]);
                out.extend_from_slice(b",\"status\":");
                out.extend_from_slice(number.format(outcome.status).as_bytes());
                out.extend_from_slice(b",\"bytes\":");
                out.extend_from_slice(number.format(outcome.bytes).as_bytes());
                out.extend_from_slice(b",\"duration\":");
                out.extend_from_slice(number.format(outcome.duration.as_secs()).as_bytes());
                push_millis(outcome.duration.subsec_millis().into(), out);
            }
        }
        out.extend_from_slice(&line.text[line.outcome..]);
        out.extend_from_slice(&self.end);
    }

    /// Writes the date for a second since 1970, in UTC.
    fn refresh(&mut self, second: u64) {
        self.second = second;
        // The end of the year 9999: the formats have four digits for it.
        let date = httpdate::HttpDate::from(UNIX_EPOCH + Duration::from_secs(second.min(253_402_300_799)));
        // IMF-fixdate: Sun, 06 Nov 1994 08:49:37 GMT.
        let text = date.to_string();
        let (day, month, year, time) = (&text[5..7], &text[8..11], &text[12..16], &text[17..25]);
        self.date = match self.format {
            AccessLogFormat::Common | AccessLogFormat::Combined => format!("{day}/{month}/{year}:{time} +0000"),
            AccessLogFormat::Json => {
                let number = MONTHS.iter().position(|name| *name == month).map_or(0, |index| index + 1);
                format!("{year}-{number:02}-{day}T{time}")
            }
        }
        .into_bytes();
    }
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Appends the thousandths of a number of milliseconds.
fn push_millis(millis: u64, out: &mut Vec<u8>) {
    let digit = |value: u64| b'0' + (value % 10) as u8;
    out.extend_from_slice(&[b'.', digit(millis / 100), digit(millis / 10), digit(millis)]);
}

/// Appends a member of an object, `null` if there is nothing.
fn member(out: &mut Vec<u8>, name: &[u8], value: Option<&[u8]>, room: usize) {
    out.extend_from_slice(name);
    match value {
        None => out.extend_from_slice(b"null"),
        Some(value) => {
            out.push(b'"');
            escape_json(value, room, out);
            out.push(b'"');
        }
    }
}

/// Appends what could end a value, or a line, or command a terminal, as `\xHH`, and everything else as it is.
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

/// Appends the value as the inside of a string (RFC 8259 section 7); U+FFFD stands for bytes that are not UTF-8.
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
        // C1 controls command terminals, too; all that is escaped is below 256.
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

/// Whether a value is of visible ASCII and blanks, without quotes and backslashes: nearly all are, so eight bytes are
/// looked at together.
fn is_plain(value: &[u8]) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = ONES * 0x80;
    // Not zero if a byte is, and zero if none is.
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
