//! The protocol state of a connection.

use super::ending::Ending;
use super::head;
use super::lines::Scan;
use super::message::{Framing, Head};
use super::parse::parse_whole;
use super::partial::PartialRequest;
use super::recall::Recall;
use super::request::Request;
use super::response_mode::ResponseMode;
use super::rules::HeadStorage;
use super::{Limits, Reject};

/// The maximum number of empty lines before a request line (RFC 9112 section 2.2 requires at least one).
const EMPTY_LINES_MAX: u8 = 4;

/// The result for the bytes so far.
#[derive(Debug)]
pub(crate) enum Next<'a> {
    /// An incomplete request.
    NeedMore,
    /// An incomplete request whose client waits for [`CONTINUE`](super::CONTINUE) before it sends the rest. Returned
    /// once.
    Continue,
    /// A complete request. Call [`Codec::respond`] next.
    Request(&'a mut Request<'a>),
    /// A broken rule. Call [`Codec::reject`] next.
    Reject(Reject),
}

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// A request, of which nothing has arrived.
    Idle,
    /// The rest of a head.
    Head,
    /// The rest of a body.
    Body,
}

/// Space for a request, on the caller's stack.
pub(crate) struct Scratch<'a> {
    whole: HeadStorage<'a>,
    /// For a second attempt. The borrow checker does not see that a failed parse has released its space.
    lines: HeadStorage<'a>,
    recall: Option<&'a mut Recall>,
}

impl<'a> Scratch<'a> {
    pub(crate) fn new() -> Self {
        Scratch { whole: HeadStorage::new(), lines: HeadStorage::new(), recall: None }
    }

    /// With a head that may come again.
    pub(crate) fn with(recall: &'a mut Recall) -> Self {
        Scratch { whole: HeadStorage::new(), lines: HeadStorage::new(), recall: Some(recall) }
    }
}

/// The protocol state of a connection. Small while nothing is in progress.
#[derive(Debug)]
pub(crate) struct Codec {
    /// The scan of the incomplete head at the start of the input.
    scan: Scan,
    empty_lines: u8,
    pub(super) phase: Phase,
    /// How the connection ends.
    pub(crate) ending: Ending,
    /// What the current request implies for its response.
    pub(crate) mode: ResponseMode,
    pub(super) partial: Option<Box<PartialRequest>>,
    /// Whether the request was passed on, and its body is received as it arrives, if at all.
    pub(super) is_streaming: bool,
}

impl Codec {
    pub(crate) fn new() -> Codec {
        let mode = ResponseMode::default();
        let (scan, phase, ending) = (Scan::default(), Phase::Idle, Ending::default());
        Codec { scan, empty_lines: 0, phase, ending, mode, partial: None, is_streaming: false }
    }

    /// For a connection that has had this many requests in another process.
    pub(crate) fn after(requests: u32) -> Codec {
        Codec { mode: ResponseMode::after(requests), ..Codec::new() }
    }

    /// What the connection waits for.
    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// Consumes as much as possible from the front of `input`, which is everything that has arrived and was not
    /// consumed before. Returns how much that was, and the result. `scratch` must be new for each call. `streams`
    /// chooses the requests that are passed on before their body, which [`next_piece`](Codec::next_piece) then returns.
    #[inline]
    pub(crate) fn next<'a>(
        &'a mut self,
        input: &'a [u8],
        scratch: &'a mut Scratch<'a>,
        limits: &Limits,
        streams: &mut dyn FnMut(&Request<'_>) -> bool,
    ) -> (usize, Next<'a>) {
        if self.ending.is_last() {
            // What follows the last response is not a request.
            return (input.len(), Next::NeedMore);
        }
        if self.partial.is_some() {
            return self.next_of_body(input, &mut scratch.lines, limits);
        }
        // Most heads arrive whole. An incomplete one is scanned line by line, since a client that sends byte by byte
        // must not have everything parsed again with each byte.
        let Scratch { whole, lines, recall } = scratch;
        if !self.scan.is_begun() {
            let head = match recall {
                None => parse_whole(input, whole, limits),
                Some(recall) if !recall.knows(input) => {
                    parse_whole(input, whole, limits).inspect(|head| recall.learn(input, head))
                }
                Some(recall) => recall.head(&mut whole.request),
            };
            if let Some(head) = head {
                return self.next_of_head(head, input, limits, streams);
            }
        }
        self.next_of_lines(input, lines, limits, streams)
    }

    /// Continues with a head that is incomplete, invalid, or otherwise unusual.
    #[cold]
    #[inline(never)]
    fn next_of_lines<'a>(
        &'a mut self,
        input: &'a [u8],
        storage: &'a mut HeadStorage<'a>,
        limits: &Limits,
        streams: &mut dyn FnMut(&Request<'_>) -> bool,
    ) -> (usize, Next<'a>) {
        self.mode.is_head = false;
        let skipped = match self.skip_empty_lines(input) {
            Ok(skipped) => skipped,
            Err(reject) => return (0, Next::Reject(reject)),
        };
        let input = &input[skipped..];
        if input.is_empty() {
            self.phase = Phase::Idle;
            return (skipped, Next::NeedMore);
        }
        // A refusal of HEAD has no content, and may come before the rest of the line.
        self.mode.is_head = input.starts_with(b"HEAD ");
        match self.scan.find_end(input, limits) {
            Ok(Some(len)) => {
                let (head, rest) = input.split_at(len);
                let (consumed, next) = match head::later_minor_version(head) {
                    Some(minor) => self.next_of_later_version(head, minor, rest, storage, limits),
                    None => self.next_of_head((len, head::parse(head, storage, limits)), input, limits, streams),
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

    /// Continues with a complete head of `len` bytes of `input`.
    #[inline(always)]
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
            Err(reject) => {
                self.mode.is_head = input.starts_with(b"HEAD ");
                (len, Next::Reject(reject))
            }
            Ok(head) if head.framing == Framing::Length(0) => {
                self.mode.learn(&head, limits);
                if head.upgrade {
                    let partial = self.partial.insert(PartialRequest::new(Vec::new(), head.framing));
                    partial.offered = head.offered();
                }
                (len, Next::Request(head.request))
            }
            Ok(head) => {
                let (taken, next) = self.next_with_body(head, input.split_at(len), limits, streams);
                (len + taken, next)
            }
        }
    }

    /// Continues with a head, and a body that may begin in `rest`.
    #[inline(never)]
    fn next_with_body<'a>(
        &'a mut self,
        head: Head<'a>,
        (text, rest): (&[u8], &'a [u8]),
        limits: &Limits,
        streams: &mut dyn FnMut(&Request<'_>) -> bool,
    ) -> (usize, Next<'a>) {
        let framing = head.framing;
        self.mode.is_head = head.request.method == "HEAD";
        if streams(head.request) {
            self.mode.learn(&head, limits);
            self.is_streaming = true;
            self.phase = Phase::Body;
            let partial = self.partial.insert(PartialRequest::new(Vec::new(), framing));
            partial.waits = head.expects_continue && rest.is_empty();
            partial.offered = head.offered();
            return (0, Next::Request(head.request));
        }
        match framing {
            Framing::Length(length) if length > limits.body as u64 => {
                return (0, Next::Reject(Reject::BodyTooLarge));
            }
            Framing::Length(length) if length <= rest.len() as u64 => {
                self.mode.learn(&head, limits);
                if head.upgrade {
                    let partial = self.partial.insert(PartialRequest::new(Vec::new(), Framing::Length(0)));
                    partial.offered = head.offered();
                }
                head.request.body = &rest[..length as usize];
                return (length as usize, Next::Request(head.request));
            }
            _ => {}
        }
        let mut partial = PartialRequest::new(Vec::new(), framing);
        match partial.decoder.decode(rest, &mut partial.body, limits) {
            Err(reject) => (0, Next::Reject(reject)),
            Ok((taken, true)) => {
                self.mode.learn(&head, limits);
                partial.offered = head.offered();
                let partial = self.partial.insert(partial);
                head.request.body = &partial.body;
                (taken, Next::Request(head.request))
            }
            Ok((taken, false)) => {
                partial.head.extend_from_slice(text);
                self.partial = Some(partial);
                self.phase = Phase::Body;
                let waits = head.expects_continue && taken == 0;
                (taken, if waits { Next::Continue } else { Next::NeedMore })
            }
        }
    }

    /// Parses HTTP/1.2 and later as HTTP/1.1, from a copy that says so. Nobody sends it, so the copy does not matter.
    #[cold]
    #[inline(never)]
    fn next_of_later_version<'a>(
        &'a mut self,
        head: &[u8],
        minor: usize,
        rest: &[u8],
        storage: &'a mut HeadStorage<'a>,
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
        self.partial = Some(PartialRequest::new(copy, framing));
        self.phase = Phase::Body;
        let has_body = framing != Framing::Length(0);
        if waits && has_body {
            return (consumed, Next::Continue);
        }
        let (taken, next) = self.next_of_body(rest, storage, limits);
        (consumed + taken, next)
    }

    /// Continues with a request whose body is incomplete.
    fn next_of_body<'a>(
        &'a mut self,
        input: &[u8],
        storage: &'a mut HeadStorage<'a>,
        limits: &Limits,
    ) -> (usize, Next<'a>) {
        let Some(partial) = &mut self.partial else { return (0, Next::NeedMore) };
        let taken = match partial.decoder.decode(input, &mut partial.body, limits) {
            Err(reject) => return (input.len(), Next::Reject(reject)),
            Ok((taken, false)) => return (taken, Next::NeedMore),
            Ok((taken, true)) => taken,
        };
        let PartialRequest { head, body, offered, .. } = &mut **partial;
        match head::parse(head, storage, limits) {
            // It was valid when it arrived.
            Err(reject) => (taken, Next::Reject(reject)),
            Ok(head) => {
                self.mode.learn(&head, limits);
                *offered = head.offered();
                head.request.body = body;
                (taken, Next::Request(head.request))
            }
        }
    }
}
