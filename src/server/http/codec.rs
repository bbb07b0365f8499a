//! One connection's protocol state.

use super::body::{Chunked, Decoder};
use super::encode::{self, Connection, Encoder};
use super::head::{self, Room};
use super::lines::Scan;
use super::message::{Framing, Head};
use super::recall::Recall;
use super::request::{Request, Version};
use super::response::ResponseHead;
use super::{Limits, Reject};

/// Empty lines taken before a request line (RFC 9112 section 2.2 asks for one at least).
const EMPTY_LINES_MAX: u8 = 4;

/// What the bytes so far amount to.
#[derive(Debug)]
pub(crate) enum Next<'a> {
    /// No whole request.
    NeedMore,
    /// No whole request, and the client waits for [`CONTINUE`](super::CONTINUE) before it sends the rest. Said once.
    Continue,
    /// A whole request. [`Codec::respond`] comes next.
    Request(&'a mut Request<'a>),
    /// A broken rule. [`Codec::reject`] comes next.
    Reject(Reject),
}

/// How long a response's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    Known(u64),
    /// It ends when it ends.
    Unknown,
}

/// How a response's body is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transfer {
    /// Not at all: the request was HEAD, or the status has none.
    Nothing,
    AsIs,
    /// In [`chunk`](super::chunk)s and with [`LAST_CHUNK`](super::LAST_CHUNK) at the end.
    Chunked,
}

/// The next piece of a body that is taken as it comes.
#[derive(Debug)]
pub(crate) enum Piece<'a> {
    NeedMore,
    Data(&'a [u8]),
    /// It was the last one. [`Codec::respond`] comes next.
    End,
    /// A broken rule. [`Codec::reject`] comes next.
    Reject(Reject),
}

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// A request, of which nothing has come.
    Idle,
    /// The rest of a head.
    Head,
    /// The rest of a body.
    Body,
}

/// Room for a request, on the stack of the caller.
pub(crate) struct Scratch<'a> {
    whole: Room<'a>,
    /// For a second look. The borrow checker cannot see that a parse that failed has given its room back.
    lines: Room<'a>,
    recall: Option<&'a mut Recall>,
}

impl<'a> Scratch<'a> {
    pub(crate) fn new() -> Self {
        Scratch { whole: Room::new(), lines: Room::new(), recall: None }
    }

    /// With a head that may come again.
    pub(crate) fn with(recall: &'a mut Recall) -> Self {
        Scratch { whole: Room::new(), lines: Room::new(), recall: Some(recall) }
    }
}

/// The protocol state of one connection. Small while nothing is in progress.
#[derive(Debug)]
pub(crate) struct Codec {
    /// The incomplete head at the start of the input.
    scan: Scan,
    empty_lines: u8,
    phase: Phase,
    is_closed: bool,
    /// What the request that was given out asks of its answer.
    asked: Asked,
    requests: u32,
    gathered: Option<Box<Gathered>>,
    /// The request has been given out and its body is taken as it comes, if at all.
    is_streaming: bool,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    is_head: bool,
    keep_alive: bool,
    /// The client would change the protocol (RFC 9110 section 7.8).
    upgrade: bool,
    version: Version,
}

/// A request whose body has not come whole, or is chunked.
#[derive(Debug)]
struct Gathered {
    head: Vec<u8>,
    decoder: Decoder,
    body: Vec<u8>,
    /// Of a body that is taken as it comes: the client waits to be told to go on; the last piece has been given out.
    waits: bool,
    is_done: bool,
}

impl Gathered {
    fn new(head: Vec<u8>, framing: Framing) -> Box<Gathered> {
        let decoder = match framing {
            Framing::Length(left) => Decoder::Length { left },
            Framing::Chunked => Decoder::Chunked(Chunked::default()),
        };
        Box::new(Gathered { head, decoder, body: Vec::new(), waits: false, is_done: framing == Framing::Length(0) })
    }
}

impl Codec {
    pub(crate) fn new() -> Codec {
        let asked = Asked { is_head: false, keep_alive: false, upgrade: false, version: Version::Http11 };
        let (scan, phase) = (Scan::default(), Phase::Idle);
        Codec { scan, empty_lines: 0, phase, is_closed: false, asked, requests: 0, gathered: None, is_streaming: false }
    }

    /// What the connection waits for.
    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether the last answer has been given.
    pub(crate) fn is_closing(&self) -> bool {
        self.is_closed
    }

    /// Takes what it can from the front of `input`, which is all that has come and was not consumed before. Returns
    /// how much that was, and what it amounts to. `scratch` is made anew for each call. `streams` chooses the
    /// requests that are given out before their body, which [`next_piece`](Codec::next_piece) then takes.
    #[inline]
    pub(crate) fn next<'a>(
        &'a mut self,
        input: &'a [u8],
        scratch: &'a mut Scratch<'a>,
        limits: &Limits,
        streams: &mut dyn FnMut(&Request<'_>) -> bool,
    ) -> (usize, Next<'a>) {
        if self.is_closed {
            // Nothing behind the last answer is a request.
            return (input.len(), Next::NeedMore);
        }
        if self.gathered.is_some() {
            return self.next_of_body(input, &mut scratch.lines, limits);
        }
        // Most heads come whole. One that did not is looked at line by line: a client that sends byte by byte must not
        // have all of them parsed again with each.
        let Scratch { whole, lines, recall } = scratch;
        if self.scan == Scan::default() {
            let head = match recall {
                None => head::parse_whole(input, whole, limits),
                Some(recall) if !recall.knows(input) => {
                    head::parse_whole(input, whole, limits).inspect(|head| recall.learn(input, head))
                }
                Some(recall) => recall.head(&mut whole.request),
            };
            if let Some(head) = head {
                return self.next_of_head(head, input, limits, streams);
            }
        }
        self.next_of_lines(input, lines, limits, streams)
    }

    /// Goes on with a head that is incomplete, broken, or otherwise not what most are.
    fn next_of_lines<'a>(
        &'a mut self,
        input: &'a [u8],
        room: &'a mut Room<'a>,
        limits: &Limits,
        streams: &mut dyn FnMut(&Request<'_>) -> bool,
    ) -> (usize, Next<'a>) {
        let skipped = match self.skip_empty_lines(input) {
            Ok(skipped) => skipped,
            Err(reject) => return (0, Next::Reject(reject)),
        };
        let input = &input[skipped..];
        if input.is_empty() {
            self.phase = Phase::Idle;
            return (skipped, Next::NeedMore);
        }
        match self.scan.find_end(input, limits) {
            Ok(Some(len)) => {
                let (head, rest) = input.split_at(len);
                let (consumed, next) = match head::later_minor_version(head) {
                    Some(minor) => self.next_of_later_version(head, minor, rest, room, limits),
                    None => self.next_of_head((len, head::parse(head, room, limits)), input, limits, streams),
                };
                (skipped + consumed, next)
            }
            Ok(None) => {
                self.phase = Phase::Head;
                (skipped, Next::NeedMore)
            }
            Err(reject) => (skipped, Next::Reject(reject)),
        }
    }

    fn skip_empty_lines(&mut self, input: &[u8]) -> Result<usize, Reject> {
        let mut skipped = 0;
        while input[skipped..].starts_with(b"\r\n") {
            skipped += 2;
            self.empty_lines += 1;
            if self.empty_lines > EMPTY_LINES_MAX {
                return Err(Reject::RequestLine);
            }
        }
        if skipped > 0 {
            self.scan = Scan::default();
        }
        Ok(skipped)
    }

    /// Goes on with what a complete head of `len` bytes of `input` says.
    #[inline]
    fn next_of_head<'a>(
        &'a mut self,
        (len, parsed): (usize, Result<Head<'a>, Reject>),
        input: &'a [u8],
        limits: &Limits,
        streams: &mut dyn FnMut(&Request<'_>) -> bool,
    ) -> (usize, Next<'a>) {
        self.scan = Scan::default();
        self.empty_lines = 0;
        match parsed {
            Err(reject) => (len, Next::Reject(reject)),
            Ok(head) if head.framing == Framing::Length(0) => {
                self.ask(Asked::by(&head));
                (len, Next::Request(head.request))
            }
            Ok(head) => {
                let (text, rest) = input.split_at(len);
                let (taken, next) = self.next_with_body(head, text, rest, limits, streams);
                (len + taken, next)
            }
        }
    }

    /// Goes on with a head, and a body of which `rest` may be the beginning.
    fn next_with_body<'a>(
        &'a mut self,
        head: Head<'a>,
        text: &[u8],
        rest: &'a [u8],
        limits: &Limits,
        streams: &mut dyn FnMut(&Request<'_>) -> bool,
    ) -> (usize, Next<'a>) {
        let framing = head.framing;
        if streams(head.request) {
            self.ask(Asked::by(&head));
            self.is_streaming = true;
            self.phase = Phase::Body;
            let waits = head.expects_continue && rest.is_empty();
            self.gathered.insert(Gathered::new(Vec::new(), framing)).waits = waits;
            return (0, Next::Request(head.request));
        }
        match framing {
            Framing::Length(length) if length > limits.body as u64 => {
                return (0, Next::Reject(Reject::BodyTooLarge));
            }
            Framing::Length(length) if length <= rest.len() as u64 => {
                self.ask(Asked::by(&head));
                head.request.body = &rest[..length as usize];
                return (length as usize, Next::Request(head.request));
            }
            _ => {}
        }
        let mut gathered = Gathered::new(Vec::new(), framing);
        match gathered.decoder.decode(rest, &mut gathered.body, limits) {
            Err(reject) => (0, Next::Reject(reject)),
            Ok((taken, true)) => {
                self.ask(Asked::by(&head));
                let gathered = self.gathered.insert(gathered);
                head.request.body = &gathered.body;
                (taken, Next::Request(head.request))
            }
            Ok((taken, false)) => {
                gathered.head.extend_from_slice(text);
                self.gathered = Some(gathered);
                self.phase = Phase::Body;
                let waits = head.expects_continue && taken == 0;
                (taken, if waits { Next::Continue } else { Next::NeedMore })
            }
        }
    }

    /// Reads HTTP/1.2 and later as HTTP/1.1: from a copy that says so. Nobody sends it, so it may cost a copy.
    fn next_of_later_version<'a>(
        &'a mut self,
        head: &[u8],
        minor: usize,
        rest: &[u8],
        room: &'a mut Room<'a>,
        limits: &Limits,
    ) -> (usize, Next<'a>) {
        self.scan = Scan::default();
        self.empty_lines = 0;
        let mut copy = head.to_vec();
        copy[minor] = b'1';
        let (consumed, framing, waits) = {
            let mut scratch = Scratch::new();
            match head::parse(&copy, &mut scratch.lines, limits) {
                Err(reject) => return (head.len(), Next::Reject(reject)),
                Ok(parsed) => (head.len(), parsed.framing, parsed.expects_continue && rest.is_empty()),
            }
        };
        if matches!(framing, Framing::Length(length) if length > limits.body as u64) {
            return (consumed, Next::Reject(Reject::BodyTooLarge));
        }
        self.gathered = Some(Gathered::new(copy, framing));
        self.phase = Phase::Body;
        let has_body = framing != Framing::Length(0);
        if waits && has_body {
            return (consumed, Next::Continue);
        }
        let (taken, next) = self.next_of_body(rest, room, limits);
        (consumed + taken, next)
    }

    /// Goes on with a request whose head is gathered.
    fn next_of_body<'a>(&'a mut self, input: &[u8], room: &'a mut Room<'a>, limits: &Limits) -> (usize, Next<'a>) {
        let Some(gathered) = &mut self.gathered else { return (0, Next::NeedMore) };
        let taken = match gathered.decoder.decode(input, &mut gathered.body, limits) {
            Err(reject) => return (input.len(), Next::Reject(reject)),
            Ok((taken, false)) => return (taken, Next::NeedMore),
            Ok((taken, true)) => taken,
        };
        match head::parse(&gathered.head, room, limits) {
            // It was valid when it came.
            Err(reject) => (taken, Next::Reject(reject)),
            Ok(head) => {
                self.asked = Asked::by(&head);
                self.requests = self.requests.saturating_add(1);
                head.request.body = &gathered.body;
                (taken, Next::Request(head.request))
            }
        }
    }

    /// Remembers what a request asks of its answer.
    fn ask(&mut self, asked: Asked) {
        self.asked = asked;
        self.requests = self.requests.saturating_add(1);
    }

    /// Whether the request that was given out last has a body that is still to be taken.
    pub(crate) fn is_streaming(&self) -> bool {
        self.is_streaming
    }

    /// Whether a part of a request is kept here.
    #[inline]
    pub(crate) fn is_gathering(&self) -> bool {
        self.gathered.is_some()
    }

    /// How much memory the rest of a body needs besides what it has.
    pub(crate) fn room_needed(&self) -> usize {
        let gathered = self.gathered.as_ref().filter(|_| !self.is_streaming);
        gathered.map_or(0, |gathered| gathered.decoder.room_needed(&gathered.body))
    }

    /// How much memory that takes.
    pub(crate) fn held(&self) -> usize {
        self.gathered.as_ref().map_or(0, |gathered| gathered.head.capacity() + gathered.body.capacity())
    }

    /// The head of a request whose body has not come whole.
    pub(crate) fn gathered_head(&self) -> Option<&[u8]> {
        self.gathered.as_ref().map(|gathered| &gathered.head[..])
    }

    /// Whether the client of such a request waits to be told to go on. Said once.
    pub(crate) fn take_waits(&mut self) -> bool {
        self.gathered.as_mut().is_some_and(|gathered| std::mem::take(&mut gathered.waits))
    }

    /// Takes the next piece of a body from the front of `input`, of any length in all.
    pub(crate) fn next_piece<'a>(&'a mut self, input: &'a [u8], limits: &Limits) -> (usize, Piece<'a>) {
        let Some(gathered) = self.gathered.as_mut().filter(|gathered| !gathered.is_done) else {
            self.is_streaming = false;
            return (0, Piece::End);
        };
        if let Decoder::Length { left } = &mut gathered.decoder {
            let taken = input.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= taken as u64;
            gathered.is_done = *left == 0;
            return (taken, if taken == 0 { Piece::NeedMore } else { Piece::Data(&input[..taken]) });
        }
        gathered.body.clear();
        let unlimited = Limits { body: usize::MAX, ..limits.clone() };
        match gathered.decoder.decode(input, &mut gathered.body, &unlimited) {
            Err(reject) => (input.len(), Piece::Reject(reject)),
            Ok((taken, is_done)) => {
                gathered.is_done = is_done;
                if is_done && gathered.body.is_empty() {
                    self.is_streaming = false;
                    return (taken, Piece::End);
                }
                (taken, if gathered.body.is_empty() { Piece::NeedMore } else { Piece::Data(&gathered.body) })
            }
        }
    }

    /// Appends the head of the answer to the request that was given out last, and tells how its body is to follow.
    /// `is_last` makes it the connection's last.
    #[inline]
    pub(crate) fn respond(
        &mut self,
        head: &ResponseHead,
        length: Length,
        encoder: &mut Encoder,
        is_last: bool,
        limits: &Limits,
        out: &mut Vec<u8>,
    ) -> Transfer {
        // RFC 9110 sections 8.6, 15.3.6 and 15.4.5: no length in a 204, none but zero in a 205, and none needed in a
        // 304.
        let has_none = matches!(head.status, 204 | 205 | 304);
        let framing = match length {
            _ if has_none && head.status == 205 => encode::Framing::Length(0),
            _ if has_none => encode::Framing::None,
            Length::Known(length) => encode::Framing::Length(length),
            Length::Unknown if self.asked.version == Version::Http11 => encode::Framing::Chunked,
            Length::Unknown => encode::Framing::Close,
        };
        let is_limit = limits.requests != 0 && u64::from(self.requests) >= limits.requests;
        let is_delimiter = framing == encode::Framing::Close;
        // What is left of a body is not read, and not taken for a request either.
        self.is_closed =
            is_last || is_limit || is_delimiter || self.is_streaming || head.close || !self.asked.keep_alive;
        let connection = match self.asked.version {
            _ if self.is_closed => Connection::Close,
            Version::Http10 => Connection::KeepAlive,
            Version::Http11 => Connection::Implied,
        };
        encoder.head(head, framing, connection, out);
        self.is_streaming = false;
        self.gathered = None;
        self.phase = Phase::Idle;
        match framing {
            _ if has_none || self.asked.is_head => Transfer::Nothing,
            encode::Framing::Chunked => Transfer::Chunked,
            _ => Transfer::AsIs,
        }
    }

    /// Whether the client has offered to change the protocol with the request that was given out last. What is left of a
    /// body would be taken for the other protocol (RFC 9110 section 7.8).
    pub(crate) fn may_upgrade(&self) -> bool {
        self.asked.upgrade && !self.is_streaming
    }

    /// Appends the answer that changes the protocol. Whatever follows is not this codec's.
    pub(crate) fn upgrade(&mut self, head: &ResponseHead, protocol: &str, encoder: &Encoder, out: &mut Vec<u8>) {
        encoder.switching(head, protocol, out);
        self.gathered = None;
        self.phase = Phase::Idle;
    }

    /// Appends the answer to a client that should have offered to change the protocol (RFC 9110 section 15.5.22).
    pub(crate) fn require_upgrade(
        &mut self,
        head: &ResponseHead,
        protocol: &str,
        encoder: &Encoder,
        out: &mut Vec<u8>,
    ) {
        self.is_closed = true;
        self.is_streaming = false;
        self.gathered = None;
        self.phase = Phase::Idle;
        encoder.requiring(head, protocol, out);
    }

    /// Appends the answer to a broken rule, the connection's last.
    pub(crate) fn reject(&mut self, reject: Reject, encoder: &mut Encoder, out: &mut Vec<u8>) {
        self.is_closed = true;
        self.is_streaming = false;
        self.gathered = None;
        self.phase = Phase::Idle;
        let mut head = ResponseHead::new(reject.status(), Some("text/plain; charset=utf-8".into()));
        if reject == Reject::NoRoom {
            head.add_valid("Retry-After", "1");
        }
        let reason = reject.reason().as_bytes();
        let framing = encode::Framing::Length(reason.len() as u64);
        encoder.head(&head, framing, Connection::Close, out);
        out.extend_from_slice(reason);
    }
}

impl Asked {
    #[inline]
    fn by(head: &Head<'_>) -> Asked {
        let Request { method, version, .. } = *head.request;
        let upgrade = head.upgrade && version == Version::Http11;
        Asked { is_head: method == "HEAD", keep_alive: head.keep_alive, upgrade, version }
    }
}
