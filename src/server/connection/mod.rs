//! A client's socket with a codec: reads, passes requests to the handler, and sends responses.
//!
//! All connections of a worker share one read buffer and one write buffer. A connection only holds bytes of its own
//! while a request is incomplete, or while its client has not read a whole response. An idle connection holds none.

mod guard;
mod input;
mod linger;
mod proxied;
mod receiving;
mod record;
mod send;
mod timing;
mod transport;
mod waiting;

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{self, AssertUnwindSafe};

use mio::event::Event;
use mio::{Registry, Token};

use crate::server::answer::guard::UpgradeGuard;
use crate::server::answer::receive::Receiver;
use crate::server::answer::response::{Body, Response};
use crate::server::answer::upgrade::{Upgrade, Upgraded};
use crate::server::client::{Client, Peer};
use crate::server::context::Context;
use crate::server::http::{Codec, Next, Phase, Reject, Request, Scratch, CONTINUE};
use crate::server::outgoing::{Outgoing, COPY_MAX};
use crate::shared::config::ServerConfig;
use crate::shared::listener;
use crate::shared::scoreboard::NameRow;
use crate::sys::clock;
use crate::time::Time;

use self::linger::Linger;
pub(crate) use self::proxied::refuse;
use self::receiving::asked_for;
use self::timing::{Timer, Timing};
use self::transport::Transport;

/// What to do with a connection after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing can be done before its next event.
    Wait,
    /// There is more to do, but others have a turn first.
    Again,
    /// Close it.
    Close,
    /// It switches to another protocol: [`Connection::into_upgraded`].
    HandOver,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    transport: Transport,
    codec: Codec,
    kept: Option<Box<Kept>>,
    /// The request that was passed to the handler, if its response takes more than one step.
    exchange: Option<Box<Exchange>>,
    peer: Peer,
    timer: Timer,
    /// Whether the client may still be sending when the last response was sent.
    must_linger: bool,
    /// Whether only the end of the connection marks the end of its last response, so that a client cannot notice that
    /// it is incomplete.
    looks_whole: bool,
    /// Whether it is among those that have more to do in the next turn.
    pub(crate) is_again: bool,
}

/// A request that was passed to the handler, and whose response is not complete.
#[derive(Debug)]
enum Exchange {
    /// The application receives its body as it arrives.
    Receiving(Receiver<Response>),
    /// The response is being made or sent.
    Sending(Outgoing),
}

impl Exchange {
    fn is_sending(&self) -> bool {
        matches!(self, Exchange::Sending(_))
    }
}

/// Bytes that could not be handled at once.
#[derive(Debug, Default)]
struct Kept {
    input: Vec<u8>,
    output: Vec<u8>,
    /// How much of `output` was sent.
    sent: usize,
    /// Set when the last response was sent. Nothing else is kept then.
    linger: Option<Linger>,
}

impl Connection {
    pub(crate) fn new(client: Client, peer: Option<SocketAddr>, config: &ServerConfig, now: Time) -> Connection {
        Connection {
            transport: Transport::new(client),
            codec: Codec::new(),
            kept: None,
            exchange: None,
            peer: Peer::from(peer),
            timer: Timer::new(config, now),
            must_linger: false,
            looks_whole: false,
            is_again: false,
        }
    }

    /// Registers the socket for its whole life, edge-triggered and in both directions: one epoll_ctl(2) per connection.
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.transport.client.register(registry, token)
    }

    /// Learns from an event.
    #[inline]
    pub(crate) fn notice(&mut self, event: &Event) {
        self.transport.notice(event);
    }

    /// Its deadline.
    #[inline]
    pub(crate) fn deadline(&self) -> Time {
        self.timer.deadline
    }

    /// The response that is being made or sent, if it takes more than one step.
    #[inline]
    fn outgoing(&self) -> Option<&Outgoing> {
        match self.exchange.as_deref() {
            Some(Exchange::Sending(outgoing)) => Some(outgoing),
            _ => None,
        }
    }

    fn take_outgoing(&mut self) -> Option<Outgoing> {
        match *self.exchange.take_if(|exchange| exchange.is_sending())? {
            Exchange::Sending(outgoing) => Some(outgoing),
            Exchange::Receiving(_) => None,
        }
    }

    /// Whether the application receives the request's body as it arrives.
    #[inline]
    fn is_receiving(&self) -> bool {
        matches!(self.exchange.as_deref(), Some(Exchange::Receiving(_)))
    }

    /// Whether it may hold memory.
    #[inline]
    pub(crate) fn is_holding(&self) -> bool {
        self.kept.is_some() || self.exchange.is_some() || self.codec.is_gathering()
    }

    /// The file that is sent.
    pub(crate) fn file(&self) -> Option<BorrowedFd<'_>> {
        match self.outgoing() {
            Some(Outgoing::File(file)) => Some(file.as_fd()),
            _ => None,
        }
    }

    /// How much memory it holds.
    pub(crate) fn held(&self) -> usize {
        let kept = self.kept.as_ref().map_or(0, |kept| kept.input.capacity() + kept.output.capacity());
        kept + self.codec.held() + self.outgoing().map_or(0, Outgoing::held)
    }

    /// Makes the next step read the socket, whatever events have said.
    pub(crate) fn look(&mut self) {
        self.transport.look();
    }

    /// Sends what is left, reads once, answers complete requests, and sends.
    pub(crate) fn advance<H>(&mut self, cx: &mut Context<'_>, handler: &mut H) -> Step
    where
        H: FnMut(&Request<'_>) -> Response,
    {
        if self.timer.timing == Timing::Linger {
            return self.discard(cx);
        }
        if self.has_to_send() {
            if let Some(step) = self.send_again(cx) {
                return step;
            }
        }
        let Ok(len) = self.fill(cx) else { return Step::Close };
        let start = match self.peer.awaits_header() {
            false => 0,
            true => match self.take_header(len, cx) {
                Ok(start) => start,
                Err(step) => return step,
            },
        };
        let read = self.answer(start..len, cx, handler);
        self.keep_input(&read, len, cx);
        self.time_after(&read, len, cx);
        if let Some(latency) = cx.stats.latency {
            let is_simple =
                !cx.stats.is_late(cx.waker.place) && self.exchange.is_none() && self.codec.phase() == Phase::Idle;
            match read.requests {
                0 if is_simple => {}
                // The case of nearly all steps.
                count if is_simple => latency.count(count as u64, clock::now_micros().saturating_sub(cx.clock.micros)),
                count => self.count_answers(count as u64, latency, cx),
            }
        }
        match self.send(cx) {
            Some(step) => step,
            // There may be a complete request after the one whose response took more than one step.
            None if read.is_cut_short || self.kept.is_some() && read.has_outgoing => Step::Again,
            // Complete requests were answered. The rest of an incomplete one will never come.
            None if self.transport.is_ended() => Step::Close,
            None if self.transport.is_readable() && self.timer.timing != Timing::Room => Step::Again,
            None => Step::Wait,
        }
    }

    /// The connection has ended.
    pub(crate) fn end(&mut self, cx: &mut Context<'_>) {
        if self.looks_whole && self.outgoing().is_some() {
            listener::reset_at_close(&self.transport.client);
        }
        self.ended(cx);
    }

    /// Gives the socket away, with what its client has sent after the request.
    ///
    /// # Errors
    ///
    /// If the connection does not switch to another protocol, or its socket cannot be made blocking.
    pub(crate) fn into_upgraded(
        mut self,
        registry: &Registry,
        guard: UpgradeGuard,
    ) -> io::Result<(Box<Upgrade>, Upgraded)> {
        let Some(Exchange::Sending(Outgoing::Upgrade(upgrade))) = self.exchange.map(|exchange| *exchange) else {
            return Err(io::Error::other("no upgrade is under way"));
        };
        self.transport.client.deregister(registry)?;
        let leftover = self.kept.map(|kept| kept.input).unwrap_or_default();
        Ok((upgrade, Upgraded::new(self.transport.client.into_socket(), leftover, guard)?))
    }

    /// Ends a connection at its deadline: with 408 if a request has begun, else silently. Within a response, the client
    /// gets what the kernel still holds, and sees by the length or the chunks that the response is incomplete. If it
    /// could not see that, the connection is reset.
    pub(crate) fn expire(&mut self, cx: &mut Context<'_>) -> Step {
        let reject = match self.timer.timing {
            Timing::Head if self.codec.phase() != Phase::Idle => Reject::HeadTimeout,
            Timing::Body => Reject::BodyTimeout,
            Timing::Room => Reject::NoRoom,
            Timing::Answer => return self.answer_for_application(cx),
            Timing::Write => {
                if self.looks_whole {
                    // After what the kernel still holds would come an end that looks like that of the response.
                    listener::reset_at_close(&self.transport.client);
                }
                return Step::Close;
            }
            _ => return Step::Close,
        };
        let len = self.fill_from_kept(cx);
        self.begin_refused(0..len, cx);
        self.reject(reject, cx);
        if cx.is_draining() && matches!(reject, Reject::HeadTimeout) {
            // Everything that arrived was just read, so closing at once does not reset the response.
            self.must_linger = false;
        }
        self.send_again(cx).unwrap_or(Step::Close)
    }

    /// Passes the requests in this part of the buffer to the handler, within the turn's budget.
    fn answer<H>(&mut self, input: Range<usize>, cx: &mut Context<'_>, handler: &mut H) -> Answered
    where
        H: FnMut(&Request<'_>) -> Response,
    {
        let len = input.end;
        let mut read = Answered { consumed: input.start, requests: 0, is_cut_short: false, has_outgoing: false };
        while !self.codec.is_closing() {
            let is_receiving = self.is_receiving();
            if !is_receiving && (read.consumed == len || self.exchange.is_some()) {
                break;
            }
            if read.requests == cx.config.capacity.max_pipelined || cx.output.len() >= cx.config.capacity.max_output {
                read.is_cut_short = read.consumed < len;
                break;
            }
            if is_receiving {
                let consumed = self.receive(read.consumed..len, cx);
                read.consumed += consumed;
                if consumed == 0 && self.is_receiving() {
                    break;
                }
                continue;
            }
            let mut scratch = Scratch::with(&mut cx.http.recall);
            let start = read.consumed;
            let input = &cx.input[start..len];
            let is_whole = self.codec.phase() != Phase::Body;
            let (consumed, next) = self.codec.next(input, &mut scratch, &cx.config.limits, &mut *cx.http.streams);
            read.consumed += consumed;
            match next {
                Next::NeedMore if cx.memory.budget.has_room(0) => break,
                Next::Continue if cx.memory.budget.has_room(0) => cx.output.extend_from_slice(CONTINUE),
                // A body that has just begun would have to be held.
                Next::NeedMore | Next::Continue => {
                    if self.codec.phase() != Phase::Body || matches!(self.timer.timing, Timing::Body | Timing::Room) {
                        break;
                    }
                    self.begin_refused(start..len, cx);
                    self.reject(Reject::NoRoom, cx);
                }
                Next::Request(request) => {
                    cx.stats.row.count_request();
                    if let Some(name) = &cx.stats.name {
                        match is_whole && input[0] != b'\r' {
                            true => name.set(input, request.name_len()),
                            // Its head came earlier, or after empty lines.
                            false => name_gathered(request, name),
                        }
                    }
                    request.worker = cx.station.id;
                    self.peer.tell(&mut request.peer);
                    if cx.proxies.are_trusted {
                        request.via = Some(self.peer.via(cx.config));
                    }
                    if let Some(log) = &mut cx.log {
                        log.begin(self.peer.track(), request, cx.clock.micros);
                    }
                    if let Some(slow) = &mut cx.slow {
                        slow.begin();
                    }
                    let answered = panic::catch_unwind(AssertUnwindSafe(|| handler(request)));
                    if let Some(slow) = &mut cx.slow {
                        let is_pending =
                            matches!(&answered, Ok(Response { body: Body::Deferred(_) | Body::Receive(_), .. }));
                        slow.handled(request, is_pending, cx.waker.place, &cx.station.tag);
                    }
                    match &answered {
                        // The case of nearly all responses. By reference, since each move of one costs as much as a field.
                        Ok(Response { head, body: Body::Bytes(bytes) }) if bytes.len() as u64 <= COPY_MAX => {
                            self.start_at_once(head, bytes, cx);
                        }
                        _ => {
                            let response = guard::unless_panicked(answered, request, &cx.station);
                            let (body, takes_trailers) = asked_for(&response, request);
                            self.start_other(response, &body, takes_trailers, cx);
                        }
                    }
                    read.requests += 1;
                }
                Next::Reject(reject) => {
                    self.begin_refused(start..len, cx);
                    self.reject(reject, cx);
                }
            }
        }
        read.has_outgoing = self.outgoing().is_some();
        // What follows the last response is not read, and must not reset it.
        if read.consumed < len && self.codec.is_closing() {
            self.must_linger = true;
        }
        read
    }

    fn reject(&mut self, reject: Reject, cx: &mut Context<'_>) {
        cx.stats.row.count_refused();
        self.must_linger = true;
        if self.is_receiving() {
            self.exchange = None;
        }
        self.codec.reject(reject, &mut cx.http.encoder, &mut cx.output);
        self.refused(reject, cx);
    }
}

/// Names a request whose head is not among the bytes that arrived last.
#[cold]
fn name_gathered(request: &Request<'_>, name: &NameRow<'_>) {
    let mut head = format!("{} {}", request.method(), request.target()).into_bytes();
    let len = request.name_len();
    head.resize(head.len().next_multiple_of(8), 0);
    name.set(&head, len);
}

/// The result of reading in one step.
struct Answered {
    consumed: usize,
    requests: usize,
    /// Whether the budget ended before the input.
    is_cut_short: bool,
    /// Whether the last response takes more than one step.
    has_outgoing: bool,
}
