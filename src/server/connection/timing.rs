//! How long a connection may wait for what it waits for.

use std::time::Duration;

use super::{Answered, Connection};
use crate::server::context::Context;
use crate::server::http::Phase;
use crate::shared::config::ServerConfig;
use crate::shared::listener;
use crate::time::Time;

/// Ten years. Deadlines have room for 34 since the machine's start.
pub(super) const UNLIMITED: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// How often the queue of a client that is to take an answer is looked at within its time-out.
const LOOKS: u32 = 4;
const LEAST: Duration = Duration::from_millis(1);

/// How long after its latest byte a client is waited for that still sends: many send their whole body before they read.
pub(super) const LINGER_PAUSE: Duration = Duration::from_secs(5);

/// How long in all while the worker drains.
pub(super) const LINGER_IN_DRAIN: Duration = Duration::from_secs(2);

/// What a connection waits for, which decides how long it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timing {
    /// The whole head of a request; from the start of the connection also its first byte.
    Head,
    /// The next bytes of a body.
    Body,
    /// The next request.
    Idle,
    /// Memory for the next bytes of a body, which the client may have sent.
    Room,
    /// Room for the next bytes of an answer.
    Write,
    /// An answer, or the next bytes of one, that the application makes.
    Answer,
    /// The same, for a client that seems to have gone.
    Leaving,
    /// The client's end of a connection that is over.
    Linger,
}

impl Timing {
    /// Whether an answer has begun to be made or sent, and is not over.
    #[inline]
    pub(super) fn is_within_answer(self) -> bool {
        matches!(self, Timing::Write | Timing::Answer | Timing::Leaving)
    }
}

/// What a connection waits for, and until when.
#[derive(Debug)]
pub(super) struct Timer {
    /// When it is out of time.
    pub(super) deadline: Time,
    pub(super) timing: Timing,
}

impl Timer {
    /// Of a new connection.
    pub(super) fn new(config: &ServerConfig, now: Time) -> Timer {
        let mut timer = Timer { deadline: now, timing: Timing::Head };
        timer.set(Timing::Head, config, now);
        timer
    }

    /// Begins to wait for something, or begins anew.
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

    /// Gives a client that sends a body, or takes an answer, the time back that its bytes may take at the minimum rate: so
    /// it may pause for the time-out after a good start, and a byte now and then does not hold its place.
    pub(super) fn credit(&mut self, bytes: u64, timing: Timing, cx: &Context<'_>) {
        let earned = match cx.config.min_rate {
            0 => UNLIMITED,
            rate => Duration::from_millis(bytes.saturating_mul(1000) / rate as u64),
        };
        let earned = self.deadline + earned;
        self.start(timing, cx);
        self.end_by(earned);
    }

    /// Waits until then at most.
    pub(super) fn end_by(&mut self, end: Time) {
        self.deadline = self.deadline.min(end);
    }

    /// Shortens the wait while the worker drains.
    pub(super) fn hurry(&mut self, cx: &Context<'_>) {
        let Some(patience) = cx.drain else { return };
        // A drain does not wait where there is no whole request, or nobody's request is worth the wait.
        if matches!(self.timing, Timing::Head | Timing::Idle) || cx.config.evicts_unfinished {
            self.end_by(cx.clock.running + patience.head);
        } else if self.timing == Timing::Body {
            self.end_by(cx.clock.running + patience.body);
        } else if self.timing == Timing::Linger {
            self.end_by(cx.clock.running + LINGER_IN_DRAIN);
        }
    }

    /// Since when it waits, unless that is for as long as it takes.
    fn begun(&self, config: &ServerConfig) -> Option<Time> {
        Some(self.deadline.before(timeout(self.timing, config)?))
    }

    /// When to look at the connection: at its deadline. What waits in the kernel for a slow client is looked at some times
    /// before, as no event tells that a little of it was taken.
    fn due(&self, cx: &Context<'_>) -> Time {
        match self.timing {
            Timing::Write => {
                // Where memory runs out it has to be known who takes nothing.
                let look = (cx.config.write_timeout / LOOKS).min(cx.memory.budget.patience() / LOOKS);
                self.deadline.min(cx.clock.running + look.max(LEAST))
            }
            _ => self.deadline,
        }
    }
}

impl Connection {
    /// Whether it waits for a request of which nothing has come.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.timer.timing, Timing::Idle | Timing::Head)
            && self.codec.phase() == Phase::Idle
            && self.kept.is_none()
    }

    /// Since when it is idle, if it is, and whether it has never had a request. Where unfinished requests and answers make
    /// room too, a client that keeps the server waiting counts as idle.
    pub(crate) fn idle_since(&self, config: &ServerConfig) -> Option<(bool, Time)> {
        let since = self.timer.begun(config)?;
        let gives_way = config.evicts_unfinished || self.is_idle() || self.timer.timing == Timing::Linger;
        gives_way.then_some((self.timer.timing == Timing::Head, since))
    }

    /// Prepares for being closed in favour of another.
    pub(crate) fn give_way(&self) {
        if self.timer.timing == Timing::Write {
            // What the kernel holds for it takes memory too.
            listener::reset_at_close(&self.transport.client);
        }
    }

    /// How long the client has kept it from getting on; `None` when that is not what it waits for.
    pub(crate) fn stalled_for(&self, config: &ServerConfig, now: Time) -> Option<Duration> {
        let begun = match self.timer.timing {
            Timing::Head | Timing::Body | Timing::Write => self.timer.begun(config)?,
            _ => return None,
        };
        // What its client has sent is read when it has its turn.
        let has_bytes = self.timer.timing != Timing::Write && self.transport.client.has_bytes();
        (!has_bytes).then(|| now.since(begun))
    }

    /// How much room to keep for its body, which has its turn, if it gets on: its client has sent something within
    /// `pause`.
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

    /// Whether its client has not taken an answer.
    pub(crate) fn is_unsent(&self) -> bool {
        self.timer.timing == Timing::Write
    }

    /// Whether it waits for memory.
    pub(crate) fn waits_for_room(&self) -> bool {
        self.timer.timing == Timing::Room
    }

    /// There is memory again: its client has as much time as from the start.
    pub(crate) fn resume(&mut self, cx: &Context<'_>) {
        self.timer.start(Timing::Body, cx);
    }

    /// The worker drains. Returns whether the connection is idle; of others an unfinished head has a moment left.
    pub(crate) fn begin_to_drain(&mut self, cx: &Context<'_>) -> bool {
        if self.is_idle() {
            // Also one that has sent nothing yet: its head has its own time from where it begins.
            self.timer.timing = Timing::Idle;
            return true;
        }
        self.timer.hurry(cx);
        false
    }

    /// Starts the clock again where there was progress.
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
        self.timer.due(cx)
    }

    /// It is to end by then.
    pub(crate) fn end_by(&mut self, end: Time) {
        self.timer.end_by(end);
    }

    /// Looks what a client that is to take an answer has taken of what the kernel holds for it. That is progress as well:
    /// of a socket's large buffer so much has to be free before the next bytes find room that a slow client would be out
    /// of time.
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

/// How long a connection may wait. Without a limit it is long and not for ever, so that its end tells when it began.
#[inline]
fn timeout(timing: Timing, config: &ServerConfig) -> Option<Duration> {
    let timeout = match timing {
        Timing::Head => config.head_timeout,
        Timing::Body => config.body_timeout,
        Timing::Idle => config.idle_timeout,
        Timing::Write => config.write_timeout,
        Timing::Answer | Timing::Leaving | Timing::Room => return None,
        Timing::Linger => LINGER_PAUSE,
    };
    Some(if timeout.is_zero() { UNLIMITED } else { timeout })
}
