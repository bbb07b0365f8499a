//! A client's socket with a codec: reads, passes requests to the handler, and sends responses.
//!
//! All connections of a worker share one read buffer and one write buffer. A connection only holds bytes of its own
//! while a request is incomplete, or while its client has not read a whole response. An idle connection holds none.

mod application;
mod buffers;
mod exchange;
mod input;
mod linger;
mod moving;
mod proxied;
mod send;
mod session;
mod timer;
mod transport;
mod waiting;

use std::io;

use mio::Registry;

use crate::server::answer::guard::UpgradeGuard;
use crate::server::answer::response::Response;
use crate::server::answer::upgrade::{Socket, Upgrade, Upgraded};
use crate::server::client::{Client, Peer};
use crate::server::context::Context;
use crate::server::http::{Phase, Reject, Request};
use crate::server::outgoing::Outgoing;
use crate::server::timing::Timing;
use crate::shared::config::ServerConfig;
use crate::time::Time;

use self::buffers::Buffers;
pub(crate) use self::linger::LINGER;
pub(crate) use self::proxied::refuse;
use self::session::Session;
use self::timer::Timer;
use self::transport::Transport;
pub(crate) use self::waiting::Waiting;

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
    Upgrade,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) transport: Transport,
    buffers: Buffers,
    session: Session,
    pub(crate) timer: Timer,
}

impl Connection {
    /// A new connection. If the peer sends a header of the PROXY protocol first, `peer` waits for it.
    pub(crate) fn new(mut client: Client, peer: Peer, config: &ServerConfig, now: Time) -> Connection {
        if peer.awaits_header() {
            client.await_header();
        }
        Connection {
            transport: Transport::new(client),
            buffers: Buffers::default(),
            session: Session::new(peer),
            timer: Timer::new(&config.timeouts, now),
        }
    }

    /// What the loop asks about it between two steps.
    #[inline]
    pub(crate) fn waiting(&self) -> Waiting<'_> {
        Waiting { transport: &self.transport, buffers: &self.buffers, session: &self.session, timer: &self.timer }
    }

    /// Sends what is left, reads once, answers complete requests, and sends.
    pub(crate) fn advance<H>(&mut self, cx: &mut Context<'_>, handler: &mut H) -> Step
    where
        H: FnMut(&Request<'_>) -> Response,
    {
        if self.timer.timing == Timing::Linger {
            return self.discard(cx);
        }
        if self.waiting().has_to_send() {
            if let Some(step) = self.send_again(cx) {
                return step;
            }
        }
        let Ok(len) = self.fill(cx) else { return linger::failed(self, cx) };
        let (start, len) = match self.session.peer.awaits_header() {
            false => (0, len),
            true => match self.take_header(len, cx) {
                Ok(client) => (client.start, client.end),
                Err(step) => return step,
            },
        };
        let tls = self.transport.client.tls_info();
        let read = self.session.answer(start..len, self.timer.timing, tls, cx, handler);
        self.keep_input(&read, len, cx);
        match self.session.exchange.waits_for_reader() {
            true => self.timer.wait_for_reader(cx),
            false => self.timer.after_reading(self.session.codec.phase(), read.requests, len, cx),
        }
        self.session.count_latency(read.requests, cx);
        match self.send(cx) {
            Some(step) => step,
            // There may be a complete request after the one whose response took more than one step.
            None if read.is_cut_short || self.buffers.is_some() && read.has_outgoing => Step::Again,
            // The waker is called when it has read.
            None if self.timer.timing == Timing::Reader => Step::Wait,
            // Complete requests were answered. The rest of an incomplete one will never come.
            None if self.transport.is_ended() => Step::Close,
            None if self.transport.is_readable() && self.timer.timing != Timing::Memory => Step::Again,
            None => Step::Wait,
        }
    }

    /// The connection has ended.
    pub(crate) fn end(&mut self, cx: &mut Context<'_>) {
        if self.session.codec.ending.delimits() && self.session.exchange.outgoing().is_some() {
            self.waiting().reset();
        } else {
            self.transport.client.send_close_notify();
        }
        self.session.ended(cx);
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
        let Some(Outgoing::Upgrade(upgrade)) = self.session.exchange.take_outgoing() else {
            return Err(io::Error::other("no upgrade is under way"));
        };
        self.transport.client.deregister(registry)?;
        Ok((upgrade, Upgraded::new(Socket::of(self.transport.client), self.buffers.into_input(), guard)?))
    }

    /// Ends a connection at its deadline: with 408 if a request has begun, else silently. Within a response, the client
    /// gets what the kernel still holds, and sees by the length or the chunks that the response is incomplete. If it
    /// could not see that, the connection is reset.
    pub(crate) fn expire(&mut self, cx: &mut Context<'_>) -> Step {
        let reject = match self.timer.timing {
            Timing::Head if self.session.codec.phase() != Phase::Idle => Reject::HeadTimeout,
            Timing::Body => Reject::BodyTimeout,
            Timing::Memory => Reject::NoRoom,
            Timing::Answer | Timing::Reader => return self.answer_for_application(cx),
            Timing::Write => {
                if self.session.codec.ending.delimits() {
                    // After what the kernel still holds would come an end that looks like that of the response.
                    self.waiting().reset();
                }
                return Step::Close;
            }
            _ => return Step::Close,
        };
        let len = self.buffers.take_input(&mut cx.input);
        self.session.refuse(reject, 0..len, cx);
        if cx.is_draining() && matches!(reject, Reject::HeadTimeout) {
            // Everything that arrived was just read, so closing at once does not reset the response.
            self.session.codec.ending.set_unread(false);
        }
        self.send_again(cx).unwrap_or(Step::Close)
    }

    /// The worker drains. Returns whether the connection is idle; otherwise an incomplete head has a moment left.
    pub(crate) fn begin_to_drain(&mut self, cx: &Context<'_>) -> bool {
        let is_idle = self.waiting().is_idle();
        match is_idle {
            // Also a connection that has sent nothing yet; its head has its own time from its beginning.
            true => self.timer.timing = Timing::Idle,
            false => self.timer.hurry(cx),
        }
        is_idle
    }

    /// Checks what a client has read of what the kernel holds for it, which counts as progress as well. So much of a
    /// large socket buffer must be free before the next bytes find space that a slow client would reach its deadline.
    pub(crate) fn look_at_queue(&mut self, cx: &mut Context<'_>) {
        if !self.timer.is_unsent() {
            return;
        }
        let Ok(unsent) = self.transport.client.unsent() else { return };
        let taken = cx.memory.taken_since_last_look(cx.waker.place, self.timer.deadline, unsent);
        if taken > 0 {
            self.timer.credit(taken as u64, Timing::Write, cx);
            cx.memory.move_unsent(cx.waker.place, self.timer.deadline, unsent);
        }
    }
}
