//! How long a connection may wait, depending on what it waits for.

use std::time::Duration;

use super::{Answered, Connection};
use crate::server::context::Context;
use crate::server::http::Phase;
use crate::server::outgoing::Outgoing;
use crate::shared::config::ServerConfig;
use crate::shared::listener;
use crate::time::Time;

/// Ten years. Deadlines have space for 34 since the machine's start.
pub(super) const UNLIMITED: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// How many times within its timeout to check what a client has read of a response.
const LOOKS: u32 = 4;
const LEAST: Duration = Duration::from_millis(1);

/// How long to wait for a client that still sends, after its latest byte: many send their whole body before they read.
pub(super) const LINGER_PAUSE: Duration = Duration::from_secs(5);

/// The maximum in total while the worker drains.
pub(super) const LINGER_IN_DRAIN: Duration = Duration::from_secs(2);

/// What a connection waits for, which determines its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timing {
    /// The whole head of a request; for a new connection, including its first byte.
    Head,
    /// The next bytes of a body.
    Body,
    /// The next request.
    Idle,
    /// Memory for the next bytes of a body, which the client may have sent.
    Room,
    /// Space in the socket for the next bytes of a response.
    Write,
    /// A response, or its next bytes, from the application.
    Answer,
    /// The same, for a client that seems to have disconnected.
    Leaving,
    /// The client's close of a connection that has ended.
    Linger,
}

impl Timing {
    /// Whether a response is being made or sent.
    #[inline]
    pub(super) fn is_within_answer(self) -> bool {
        matches!(self, Timing::Write | Timing::Answer | Timing::Leaving)
    }
}

/// What a connection waits for, and its deadline.
#[derive(Debug)]
pub(super) struct Timer {
    /// The deadline.
    pub(super) deadline: Time,
    pub(super) timing: Timing,
}

impl Timer {
    /// For a new connection.
    pub(super) fn new(config: &ServerConfig, now: Time) -> Timer {
        let mut timer = Timer { deadline: now, timing: Timing::Head };
        timer.set(Timing::Head, config, now);
        timer
    }

    /// Begins to wait for something, or begins again.
    #[inline]
    pub(super) fn start(&mut self, timing: Timing, cx: &Context<'_>) {
        self.set(timing, cx.config, cx.clock.running);
        if cx.is_draining() {
            self.hurry(cx);
        }
    }

    #[inline]
    fn set(&mut self, timing: Timing, config: &ServerConfig, now: Time) {
        self.timing = timing;
        self.deadline = timeout(timing, config).map_or(Time::NEVER, |timeout| now + timeout);
    }

    /// Extends the deadline of a client that sends a body, or reads a response, by the time that its bytes may take at
    /// the minimum rate. So it may pause for the timeout after a good start, and a byte now and then is not enough.
    pub(super) fn credit(&mut self, bytes: u64, timing: Timing, cx: &Context<'_>) {
        let earned = match cx.config.timeouts.min_rate {
            0 => UNLIMITED,
            rate => Duration::from_millis(bytes.saturating_mul(1000) / rate as u64),
        };
        let earned = self.deadline + earned;
        self.start(timing, cx);
        self.end_by(earned);
    }

    /// Limits the deadline.
    pub(super) fn end_by(&mut self, end: Time) {
        self.deadline = self.deadline.min(end);
    }

    /// Shortens the deadline while the worker drains.
    pub(super) fn hurry(&mut self, cx: &Context<'_>) {
        let Some(patience) = cx.drain else { return };
        // A drain does not wait for a connection without a whole request, or if no request is worth the wait.
        if matches!(self.timing, Timing::Head | Timing::Idle) || cx.config.capacity.evicts_unfinished {
            self.end_by(cx.clock.running + patience.head);
        } else if self.timing == Timing::Body {
            self.end_by(cx.clock.running + patience.body);
        } else if self.timing == Timing::Linger {
            self.end_by(cx.clock.running + LINGER_IN_DRAIN);
        }
    }

    /// Since when it waits, if that has a limit.
    fn begun(&self, config: &ServerConfig) -> Option<Time> {
        Some(self.deadline.before(timeout(self.timing, config)?))
    }

    /// When to look at the connection: at its deadline. If a client reads a response slowly, also several times before,
    /// since no event reports that a little of it was read.
    fn due(&self, cx: &Context<'_>) -> Time {
        match self.timing {
            Timing::Write => {
                // If memory runs out, the server must know which clients do not read.
                let look = (cx.config.timeouts.write / LOOKS).min(cx.memory.budget.patience() / LOOKS);
                self.deadline.min(cx.clock.running + look.max(LEAST))
            }
            _ => self.deadline,
        }
    }
}

impl Connection {
    /// Whether it waits for a request of which nothing has arrived.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.timer.timing, Timing::Idle | Timing::Head)
            && self.codec.phase() == Phase::Idle
            && self.kept.is_none()
    }

    /// Since when it is idle, if it is, and whether it has never had a request. If incomplete requests and unread
    /// responses also make room, a client that keeps the server waiting counts as idle.
    pub(crate) fn idle_since(&self, config: &ServerConfig) -> Option<(bool, Time)> {
        let since = self.timer.begun(config)?;
        let gives_way = config.capacity.evicts_unfinished || self.is_idle() || self.timer.timing == Timing::Linger;
        gives_way.then_some((self.timer.timing == Timing::Head, since))
    }

    /// Prepares to be closed in favour of another.
    pub(crate) fn give_way(&self) {
        if self.timer.timing == Timing::Write {
            // What the kernel holds for it takes memory, too.
            listener::reset_at_close(&self.transport.client);
        }
    }

    /// How long its client has prevented progress; `None` if it does not wait for the client.
    pub(crate) fn stalled_for(&self, config: &ServerConfig, now: Time) -> Option<Duration> {
        let begun = match self.timer.timing {
            Timing::Head | Timing::Body | Timing::Write => self.timer.begun(config)?,
            _ => return None,
        };
        // What its client has sent is read in its turn.
        let has_bytes = self.timer.timing != Timing::Write && self.transport.client.has_bytes();
        (!has_bytes).then(|| now.since(begun))
    }

    /// How much memory to keep for its body, which has its turn, if it makes progress: its client has sent something
    /// within `pause`.
    pub(crate) fn room_for_turn(&self, config: &ServerConfig, now: Time, pause: Duration) -> Option<usize> {
        let needed = self.codec.room_needed();
        if self.timer.timing != Timing::Body || self.codec.phase() != Phase::Body || needed == 0 {
            return None;
        }
        let begun = self.timer.begun(config)?;
        (now.since(begun) < pause || self.transport.client.has_bytes()).then_some(needed)
    }

    /// How much memory the rest of its body needs.
    pub(crate) fn room_needed(&self) -> usize {
        self.codec.room_needed()
    }

    /// Whether its client has not read a response.
    pub(crate) fn is_unsent(&self) -> bool {
        self.timer.timing == Timing::Write
    }

    /// Whether it waits for memory.
    pub(crate) fn waits_for_room(&self) -> bool {
        self.timer.timing == Timing::Room
    }

    /// There is memory again; its client has as much time as at the beginning.
    pub(crate) fn resume(&mut self, cx: &Context<'_>) {
        self.timer.start(Timing::Body, cx);
    }

    /// The worker drains. Returns whether the connection is idle; otherwise an incomplete head has a moment left.
    pub(crate) fn begin_to_drain(&mut self, cx: &Context<'_>) -> bool {
        if self.is_idle() {
            // Also a connection that has sent nothing yet; its head has its own time from its beginning.
            self.timer.timing = Timing::Idle;
            return true;
        }
        self.timer.hurry(cx);
        false
    }

    /// Restarts the clock after progress.
    #[inline]
    pub(super) fn time_after(&mut self, read: &Answered, received: usize, cx: &Context<'_>) {
        let timing = match self.codec.phase() {
            Phase::Head => Timing::Head,
            Phase::Body if self.timer.timing == Timing::Room => return,
            Phase::Body => Timing::Body,
            Phase::Idle if self.timer.timing == Timing::Head && read.requests == 0 => Timing::Head,
            Phase::Idle => Timing::Idle,
        };
        if timing != self.timer.timing || read.requests > 0 {
            self.timer.start(timing, cx);
        } else if timing == Timing::Body && received > 0 {
            self.timer.credit(received as u64, timing, cx);
        }
    }

    /// When to look at it.
    pub(crate) fn due(&self, cx: &Context<'_>) -> Time {
        let due = self.timer.due(cx);
        match self.is_lasting_stream() && !cx.config.timeouts.write.is_zero() {
            true => due.min(cx.clock.running + (cx.config.timeouts.write / LOOKS).max(LEAST)),
            false => due,
        }
    }

    /// Whether it waits for the application without a time limit.
    fn is_lasting_stream(&self) -> bool {
        self.timer.timing == Timing::Answer && matches!(self.outgoing(), Some(Outgoing::Stream { .. }))
    }

    /// Makes the connection end with a reset.
    pub(crate) fn reset(&self) {
        listener::reset_at_close(&self.transport.client);
    }

    /// Whether the client's machine has not acknowledged anything for the write timeout, although something was sent to
    /// it. No event reports this before the kernel gives up, after about a quarter of an hour, and keep-alive sends no
    /// probes while sent bytes are unacknowledged.
    pub(crate) fn is_lost(&self, cx: &mut Context<'_>) -> bool {
        let timeout = cx.config.timeouts.write;
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

    /// It must end by this time.
    pub(crate) fn end_by(&mut self, end: Time) {
        self.timer.end_by(end);
    }

    /// Checks what a client has read of what the kernel holds for it, which counts as progress as well. So much of a
    /// large socket buffer must be free before the next bytes find space that a slow client would reach its deadline.
    pub(crate) fn look_at_queue(&mut self, cx: &mut Context<'_>) {
        if self.timer.timing != Timing::Write {
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

/// How long a connection may wait. Without a limit, the time is long but finite, so that the deadline tells when the
/// wait began.
#[inline]
fn timeout(timing: Timing, config: &ServerConfig) -> Option<Duration> {
    let timeout = match timing {
        Timing::Head => config.timeouts.head,
        Timing::Body => config.timeouts.body,
        Timing::Idle => config.timeouts.idle,
        Timing::Write => config.timeouts.write,
        Timing::Answer | Timing::Leaving | Timing::Room => return None,
        Timing::Linger => LINGER_PAUSE,
    };
    Some(if timeout.is_zero() { UNLIMITED } else { timeout })
}
