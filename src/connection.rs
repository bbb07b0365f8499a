//! One client's socket and one codec: the only file that reads and writes client sockets.
//!
//! All connections of a worker share one read buffer and one write buffer. A connection holds bytes of its own only while a
//! request is incomplete, or while its client has not taken an answer whole; an idle one holds none.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};

use crate::config::ServerConfig;
use crate::http::{Codec, Common, Next, Phase, Reject, Request, Response, Scratch, CONTINUE};
use crate::scoreboard::Row;
use crate::time::Time;

/// Bytes read at once, besides what is held of an incomplete head.
const READ_SIZE: usize = 64 * 1024;

/// Most bytes of the shared output buffer that are kept between turns.
const OUTPUT_KEPT: usize = 256 * 1024;

/// How long a client may take to read the last answer while it still sends (RFC 9112 section 9.6): closing at once would reset the
/// connection, and the reset can overtake the answer.
const LINGER: Duration = Duration::from_secs(2);

/// What the connections of a worker share.
pub(crate) struct Context<'w> {
    pub(crate) config: &'w ServerConfig,
    pub(crate) row: Row<'w>,
    pub(crate) worker: usize,
    /// The worker drains: every answer is the last one of its connection.
    pub(crate) is_draining: bool,
    pub(crate) now: Time,
    pub(crate) common: Common,
    input: Box<[u8]>,
    output: Vec<u8>,
}

impl<'w> Context<'w> {
    pub(crate) fn new(config: &'w ServerConfig, row: Row<'w>, worker: usize, common: Common, now: Time) -> Context<'w> {
        let input = vec![0; READ_SIZE + config.limits.head].into_boxed_slice();
        Context { config, row, worker, is_draining: false, now, common, input, output: Vec::new() }
    }
}

/// What is to become of a connection after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing can be done before its next event.
    Wait,
    /// There is more to do, but others have a turn first.
    Again,
    /// It is over.
    Close,
}

/// What a connection waits for, which decides how long it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timing {
    /// The whole head of a request; from the start of the connection also its first byte.
    Head,
    /// The next bytes of a body.
    Body,
    /// The next request.
    Idle,
    /// Room for the next bytes of an answer.
    Write,
    /// The client's end of a connection that is over.
    Linger,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: Stream,
    codec: Codec,
    kept: Option<Box<Kept>>,
    peer: Option<SocketAddr>,
    /// When the connection is out of time.
    pub(crate) deadline: Time,
    timing: Timing,
    /// The socket may have bytes to read: an edge has come, and no short read since.
    is_readable: bool,
    /// The client has sent its end of file, though perhaps not read yet.
    is_half_closed: bool,
    /// End of file has been read.
    is_at_end: bool,
    /// The client may still be sending when the last answer has been sent.
    must_linger: bool,
}

/// Bytes that could not be dealt with at once.
#[derive(Debug, Default)]
struct Kept {
    input: Vec<u8>,
    output: Vec<u8>,
    /// How much of `output` has been sent.
    sent: usize,
}

impl Connection {
    pub(crate) fn new(stream: Stream, peer: Option<SocketAddr>, config: &ServerConfig, now: Time) -> Connection {
        let mut connection = Connection {
            stream,
            codec: Codec::new(),
            kept: None,
            peer,
            deadline: now,
            timing: Timing::Head,
            is_readable: false,
            is_half_closed: false,
            is_at_end: false,
            must_linger: false,
        };
        connection.time(Timing::Head, config, now);
        connection
    }

    /// Registers for its whole life, edge-triggered and in both directions: one epoll_ctl(2) per connection.
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        match &mut self.stream {
            Stream::Tcp(stream) => stream.register(registry, token, both),
            Stream::Unix(stream) => stream.register(registry, token, both),
        }
    }

    /// Learns what an event says.
    pub(crate) fn notice(&mut self, readable: bool, read_closed: bool) {
        self.is_readable |= readable || read_closed;
        self.is_half_closed |= read_closed;
    }

    /// Whether it waits for a request of which nothing has come.
    pub(crate) fn is_idle(&self) -> bool {
        self.codec.phase() == Phase::Idle && self.kept.is_none() && self.timing != Timing::Linger
    }

    /// Sends what is left, reads once, answers what is complete, sends.
    pub(crate) fn advance<H>(&mut self, cx: &mut Context<'_>, handler: &mut H) -> Step
    where
        H: FnMut(&Request<'_>) -> Response,
    {
        if self.timing == Timing::Linger {
            return self.discard(cx);
        }
        match self.send_kept(cx) {
            Ok(true) => {}
            Ok(false) => return Step::Wait,
            Err(_) => return Step::Close,
        }
        if self.codec.is_closing() {
            return self.finish(cx);
        }
        let Ok(len) = self.fill(cx) else { return Step::Close };
        let read = self.answer(len, cx, handler);
        self.keep_input(&cx.input[read.consumed..len]);
        let Ok(is_sent) = self.send(cx) else { return Step::Close };
        self.time_after(&read, is_sent, len, cx);
        match is_sent {
            false => Step::Wait,
            true if self.codec.is_closing() => self.finish(cx),
            true if read.is_cut_short => Step::Again,
            // Complete requests were answered; of an incomplete one the rest will never come.
            true if self.is_at_end => Step::Close,
            true if self.is_readable => Step::Again,
            true => Step::Wait,
        }
    }

    /// Ends a connection that is out of time: with 408 when a request has begun, silently otherwise.
    pub(crate) fn expire(&mut self, cx: &mut Context<'_>) -> Step {
        let reject = match self.timing {
            Timing::Head if self.codec.phase() != Phase::Idle => Reject::HeadTimeout,
            Timing::Body => Reject::BodyTimeout,
            _ => return Step::Close,
        };
        self.reject(reject, cx);
        match self.send(cx) {
            Ok(true) => self.finish(cx),
            Ok(false) => {
                self.time(Timing::Write, cx.config, cx.now);
                Step::Wait
            }
            Err(_) => Step::Close,
        }
    }

    /// Puts what was kept at the front of the shared buffer and reads once behind it; returns how much there is.
    fn fill(&mut self, cx: &mut Context<'_>) -> io::Result<usize> {
        let mut len = 0;
        if let Some(kept) = self.kept.take() {
            len = kept.input.len();
            cx.input[..len].copy_from_slice(&kept.input);
        }
        let room = &mut cx.input[len..];
        if !self.is_readable || room.is_empty() {
            return Ok(len);
        }
        loop {
            match self.stream.read(room) {
                Ok(0) => {
                    self.is_at_end = true;
                    self.is_readable = false;
                    return Ok(len);
                }
                Ok(count) => {
                    // A short read has emptied the socket: the next byte brings a new edge. Only an end of file that was
                    // announced already does not.
                    self.is_readable = count == room.len() || self.is_half_closed;
                    return Ok(len + count);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.is_readable = false;
                    return Ok(len);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives out the requests among the first `len` bytes of the buffer, within the turn's budget.
    fn answer<H>(&mut self, len: usize, cx: &mut Context<'_>, handler: &mut H) -> Answered
    where
        H: FnMut(&Request<'_>) -> Response,
    {
        let mut read = Answered { consumed: 0, requests: 0, is_cut_short: false };
        while !self.codec.is_closing() {
            if read.requests == cx.config.max_pipelined || cx.output.len() >= cx.config.max_output {
                read.is_cut_short = read.consumed < len;
                break;
            }
            let mut scratch = Scratch::new();
            let input = &cx.input[read.consumed..len];
            let (consumed, next) = self.codec.next(input, &mut scratch, &cx.config.limits);
            read.consumed += consumed;
            match next {
                Next::NeedMore => break,
                Next::Continue => cx.output.extend_from_slice(CONTINUE),
                Next::Request(request) => {
                    cx.row.count_request();
                    let response = handler(&request.with_origin(self.peer, cx.worker));
                    self.codec.respond(response, &cx.common, cx.is_draining, &cx.config.limits, &mut cx.output);
                    read.requests += 1;
                }
                Next::Reject(reject) => self.reject(reject, cx),
            }
        }
        // Whatever follows the last answer is not read, and must not reset it away.
        self.must_linger |= self.codec.is_closing() && read.consumed < len;
        read
    }

    fn reject(&mut self, reject: Reject, cx: &mut Context<'_>) {
        cx.row.count_refused();
        self.must_linger = true;
        self.codec.reject(reject, &cx.common, &mut cx.output);
    }

    fn keep_input(&mut self, rest: &[u8]) {
        if !rest.is_empty() && !self.codec.is_closing() {
            self.kept = Some(Box::new(Kept { input: rest.to_vec(), ..Kept::default() }));
        }
    }

    /// Sends the shared output; keeps what the client does not take. Returns whether all is sent.
    fn send(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let sent = write_some(&mut self.stream, &cx.output)?;
        let is_sent = sent == cx.output.len();
        if !is_sent {
            let kept = self.kept.get_or_insert_default();
            kept.output = std::mem::take(&mut cx.output);
            kept.sent = sent;
        }
        cx.output.clear();
        // One large answer is no reason to hold its memory for good.
        cx.output.shrink_to(OUTPUT_KEPT);
        Ok(is_sent)
    }

    /// Sends what was kept. Returns whether all is sent.
    fn send_kept(&mut self, cx: &Context<'_>) -> io::Result<bool> {
        let Some(kept) = &mut self.kept else { return Ok(true) };
        let sent = write_some(&mut self.stream, &kept.output[kept.sent..])?;
        kept.sent += sent;
        let is_sent = kept.sent == kept.output.len();
        if is_sent {
            kept.output = Vec::new();
            kept.sent = 0;
        } else if sent > 0 {
            self.time(Timing::Write, cx.config, cx.now);
        }
        Ok(is_sent)
    }

    /// The last answer is sent.
    fn finish(&mut self, cx: &mut Context<'_>) -> Step {
        if !self.must_linger || self.is_at_end {
            return Step::Close;
        }
        self.time(Timing::Linger, cx.config, cx.now);
        if self.stream.shutdown(Shutdown::Write).is_err() {
            return Step::Close;
        }
        self.discard(cx)
    }

    /// Reads and forgets what the client still sends, until it has closed too.
    fn discard(&mut self, cx: &mut Context<'_>) -> Step {
        match self.stream.read(&mut cx.input) {
            Ok(0) => Step::Close,
            Ok(count) if count == cx.input.len() => Step::Again,
            Ok(_) if self.is_half_closed => Step::Again,
            Ok(_) => Step::Wait,
            Err(error) if error.kind() == ErrorKind::WouldBlock => Step::Wait,
            Err(error) if error.kind() == ErrorKind::Interrupted => Step::Again,
            Err(_) => Step::Close,
        }
    }

    /// Starts the clock again where there was progress.
    fn time_after(&mut self, read: &Answered, is_sent: bool, received: usize, cx: &Context<'_>) {
        let timing = match self.codec.phase() {
            _ if !is_sent => Timing::Write,
            Phase::Head => Timing::Head,
            Phase::Body => Timing::Body,
            Phase::Idle if self.timing == Timing::Head && read.requests == 0 => Timing::Head,
            Phase::Idle => Timing::Idle,
        };
        let progress = read.requests > 0 || (timing == Timing::Body && received > 0);
        if timing != self.timing || progress {
            self.time(timing, cx.config, cx.now);
        }
    }

    fn time(&mut self, timing: Timing, config: &ServerConfig, now: Time) {
        let timeout = match timing {
            Timing::Head => config.head_timeout,
            Timing::Body => config.body_timeout,
            Timing::Idle => config.idle_timeout,
            Timing::Write => config.write_timeout,
            Timing::Linger => LINGER,
        };
        self.timing = timing;
        self.deadline = if timeout.is_zero() { Time::NEVER } else { now + timeout };
    }
}

/// What one step has read.
struct Answered {
    consumed: usize,
    requests: usize,
    /// The budget ended before the input.
    is_cut_short: bool,
}

/// Writes until done or until the socket takes no more; returns how much it took.
fn write_some(stream: &mut Stream, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match stream.write(&bytes[sent..]) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}

/// A client's socket.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.shutdown(how),
            Stream::Unix(stream) => stream.shutdown(how),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(bytes),
            Stream::Unix(stream) => stream.read(bytes),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
