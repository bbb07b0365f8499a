//! What the loop asks about a connection that waits: for whom, for how long, and what it holds meanwhile.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::buffers::Buffers;
use super::session::Session;
use super::timer::{Timer, CHECKS, LEAST};
use super::transport::Transport;
use crate::server::context::Context;
use crate::server::http::Phase;
use crate::server::timing::Timing;
use crate::server::tls::{Awaited, CLIENT_TURN_MAX};
use crate::shared::config::ServerConfig;
use crate::shared::listener;
use crate::time::Time;

/// A connection between two of its steps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting<'c> {
    pub(super) transport: &'c Transport,
    pub(super) buffers: &'c Buffers,
    pub(super) session: &'c Session,
    pub(super) timer: &'c Timer,
}

impl<'c> Waiting<'c> {
    /// Whether it may hold memory.
    #[inline]
    pub(crate) fn is_holding(self) -> bool {
        self.buffers.is_some()
            || self.session.exchange.is_some()
            || self.session.codec.is_gathering()
            || self.transport.client.held() > 0
    }

    /// Whether a response may be in progress.
    #[inline]
    pub(super) fn has_to_send(self) -> bool {
        self.buffers.is_some() || self.session.exchange.is_some() || self.session.codec.ending.is_last()
    }

    /// How much memory it holds.
    pub(crate) fn memory(self) -> usize {
        self.buffers.memory()
            + self.session.codec.held()
            + self.session.exchange.memory()
            + self.transport.client.held()
    }

    /// The file that is sent.
    pub(crate) fn file(self) -> Option<BorrowedFd<'c>> {
        self.session.exchange.file()
    }

    /// Whether it holds a part of a record of TLS, and waits for a head.
    pub(crate) fn is_between_records(self) -> bool {
        matches!(self.timer.timing, Timing::Idle | Timing::Head) && self.transport.client.held() > 0
    }

    /// Whether it waits for a request of which nothing has arrived.
    pub(crate) fn is_idle(self) -> bool {
        matches!(self.timer.timing, Timing::Idle | Timing::Head)
            && self.session.codec.phase() == Phase::Idle
            && !self.buffers.is_some()
    }

    /// Since when it is idle, if it is, and whether it has never had a request. If incomplete requests and unread
    /// responses also make room, a client that keeps the server waiting counts as idle.
    pub(crate) fn idle_since(self, config: &ServerConfig) -> Option<(bool, Time)> {
        let since = self.timer.begun(&config.timeouts)?;
        let gives_way = config.capacity.evicts_unfinished || self.is_idle() || self.timer.timing == Timing::Linger;
        gives_way.then_some((self.timer.timing == Timing::Head, since))
    }

    /// Since when its handshake waits for the client, if it does, and whether some of it has come. One that was begun
    /// counts from later on, so that those of which nothing has come go first.
    pub(crate) fn handshake_since(self, config: &ServerConfig) -> Option<(bool, Time)> {
        let awaited = self.transport.client.handshake()?;
        // Without a timeout nobody knows.
        let since = self.timer.begun(&config.timeouts).unwrap_or_default();
        match awaited {
            Awaited::All => Some((false, since)),
            Awaited::Rest => Some((true, since + CLIENT_TURN_MAX)),
        }
    }

    /// Prepares to be closed in favour of another.
    pub(crate) fn give_way(self) {
        if self.timer.is_unsent() {
            // What the kernel holds for it takes memory, too.
            self.reset();
        }
    }

    /// Makes the connection end with a reset.
    pub(crate) fn reset(self) {
        listener::reset_at_close(&self.transport.client);
    }

    /// How long its client has prevented progress; `None` if it does not wait for the client.
    pub(crate) fn stalled_for(self, config: &ServerConfig, now: Time) -> Option<Duration> {
        let begun = match self.timer.timing {
            Timing::Head | Timing::Body | Timing::Write => self.timer.begun(&config.timeouts)?,
            _ => return None,
        };
        // What its client has sent is read in its turn.
        let has_bytes = !self.timer.is_unsent() && self.transport.client.has_bytes();
        (!has_bytes).then(|| now.since(begun))
    }

    /// How much memory to keep for its body, which has its turn, if it makes progress: its client has sent something
    /// within `pause`.
    pub(crate) fn room_for_turn(self, config: &ServerConfig, now: Time, pause: Duration) -> Option<usize> {
        let needed = self.room_needed();
        if self.timer.timing != Timing::Body || self.session.codec.phase() != Phase::Body || needed == 0 {
            return None;
        }
        let begun = self.timer.begun(&config.timeouts)?;
        (now.since(begun) < pause || self.transport.client.has_bytes()).then_some(needed)
    }

    /// How much memory the rest of its body needs.
    pub(crate) fn room_needed(self) -> usize {
        self.session.codec.room_needed()
    }

    /// When to look at it.
    pub(crate) fn due(self, cx: &Context<'_>) -> Time {
        let due = self.timer.due(cx);
        match self.is_lasting_stream() && !cx.station.config.timeouts.write.is_zero() {
            true => due.min(cx.clock.running + (cx.station.config.timeouts.write / CHECKS).max(LEAST)),
            false => due,
        }
    }

    /// Whether it waits for the application without a time limit.
    fn is_lasting_stream(self) -> bool {
        self.timer.timing == Timing::Answer && self.session.exchange.is_stream()
    }

    /// Whether the client's machine has not acknowledged anything for the write timeout, although something was sent to
    /// it. No event reports this before the kernel gives up, after about a quarter of an hour, and keep-alive sends no
    /// probes while sent bytes are unacknowledged.
    pub(crate) fn is_lost(self, cx: &mut Context<'_>) -> bool {
        let timeout = cx.station.config.timeouts.write;
        if timeout.is_zero() || !self.is_lasting_stream() {
            return false;
        }
        let (place, client) = (cx.waker.place, &self.transport.client);
        let (Ok(1..), Ok(silent)) = (client.unsent(), client.silent_for()) else {
            cx.memory.acknowledged(place);
            return false;
        };
        let waited = cx.clock.running.since(cx.memory.unacknowledged(place, cx.clock.running));
        if silent < waited {
            cx.memory.acknowledged(place);
            return false;
        }
        waited >= timeout
    }

    /// Whether the application that makes its response gets notices.
    pub(crate) fn is_told(self) -> bool {
        self.session.exchange.notices().is_some()
    }

    /// The worker drains, and a response without an end of its own should end.
    pub(crate) fn tell_drain(self) {
        self.session.exchange.tell_drain();
    }
}
