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

impl Connection {
    /// Whether it waits for a request of which nothing has come.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.timing, Timing::Idle | Timing::Head) && self.codec.phase() == Phase::Idle && self.kept.is_none()
    }

    /// Since when it is idle, if it is, and whether it has never had a request. Where unfinished requests and answers make
    /// room too, a client that keeps the server waiting counts as idle.
    pub(crate) fn idle_since(&self, config: &ServerConfig) -> Option<(bool, Time)> {
        let since = self.deadline.before(timeout(self.timing, config)?);
        let gives_way = config.evicts_unfinished || self.is_idle() || self.timing == Timing::Linger;
        gives_way.then_some((self.timing == Timing::Head, since))
    }

    /// Prepares for being closed in favour of another.
    pub(crate) fn give_way(&self) {
        if self.timing == Timing::Write {
            // What the kernel holds for it takes memory too.
            listener::reset_at_close(&self.client);
        }
    }

    /// How long the client has kept it from getting on; `None` when that is not what it waits for.
    pub(crate) fn stalled_for(&self, config: &ServerConfig, now: Time) -> Option<Duration> {
        let begun = match self.timing {
            Timing::Head | Timing::Body | Timing::Write => self.deadline.before(timeout(self.timing, config)?),
            _ => return None,
        };
        // What its client has sent is read when it has its turn.
        let has_bytes = self.timing != Timing::Write && self.client.has_bytes();
        (!has_bytes).then(|| now.since(begun))
    }

    /// How much room to keep for its body, which has its turn, if it gets on: its client has sent something within
    /// `pause`.
    pub(crate) fn room_for_turn(&self, config: &ServerConfig, now: Time, pause: Duration) -> Option<usize> {
        let needed = self.codec.room_needed();
        if self.timing != Timing::Body || self.codec.phase() != Phase::Body || needed == 0 {
            return None;
        }
        let begun = self.deadline.before(timeout(self.timing, config)?);
        (now.since(begun) < pause || self.client.has_bytes()).then_some(needed)
    }

    /// How much memory the rest of its body needs.
    pub(crate) fn room_needed(&self) -> usize {
        self.codec.room_needed()
    }

    /// Whether its client has not taken an answer.
    pub(crate) fn is_unsent(&self) -> bool {
        self.timing == Timing::Write
    }

    /// Whether it waits for memory.
    pub(crate) fn waits_for_room(&self) -> bool {
        self.timing == Timing::Room
    }

    /// There is memory again: its client has as much time as from the start.
    pub(crate) fn resume(&mut self, cx: &Context<'_>) {
        self.time(Timing::Body, cx);
    }

    /// The worker drains. Returns whether the connection is idle; of others an unfinished head has a moment left.
    pub(crate) fn begin_to_drain(&mut self, cx: &Context<'_>) -> bool {
        if self.is_idle() {
            // Also one that has sent nothing yet: its head has its own time from where it begins.
            self.timing = Timing::Idle;
            return true;
        }
        self.hurry(cx);
        false
    }

    /// Shortens its time while the worker drains.
    pub(super) fn hurry(&mut self, cx: &Context<'_>) {
        let Some(patience) = cx.drain else { return };
        if self.is_hurried(cx.config) {
            self.deadline = self.deadline.min(cx.clock.running + patience.head);
        } else if self.timing == Timing::Body {
            self.deadline = self.deadline.min(cx.clock.running + patience.body);
        } else if self.timing == Timing::Linger {
            self.deadline = self.deadline.min(cx.clock.running + LINGER_IN_DRAIN);
        }
    }

    /// Whether a drain does not wait for it: there is no whole request, or nobody's request is worth the wait.
    fn is_hurried(&self, config: &ServerConfig) -> bool {
        matches!(self.timing, Timing::Head | Timing::Idle) || config.evicts_unfinished
    }

    /// Starts the clock again where there was progress.
    #[inline]
    pub(super) fn time_after(&mut self, read: &Answered, received: usize, cx: &Context<'_>) {
        let timing = match self.codec.phase() {
            Phase::Head => Timing::Head,
            Phase::Body if self.timing == Timing::Room => return,
            Phase::Body => Timing::Body,
            Phase::Idle if self.timing == Timing::Head && read.requests == 0 => Timing::Head,
            Phase::Idle => Timing::Idle,
        };
        if timing != self.timing || read.requests > 0 {
            self.time(timing, cx);
        } else if timing == Timing::Body && received > 0 {
            self.credit(received as u64, timing, cx);
        }
    }

    /// When to look at it: at its deadline. What waits in the kernel for a slow client is looked at some times before, as
    /// no event tells that a little of it was taken.
    pub(crate) fn due(&self, cx: &Context<'_>) -> Time {
        match self.timing {
            Timing::Write => {
                // Where memory runs out it has to be known who takes nothing.
                let look = (cx.config.write_timeout / LOOKS).min(cx.memory.budget.patience() / LOOKS);
                self.deadline.min(cx.clock.running + look.max(LEAST))
            }
            _ => self.deadline,
        }
    }

    /// Looks what a client that is to take an answer has taken of what the kernel holds for it. That is progress as well:
    /// of a socket's large buffer so much has to be free before the next bytes find room that a slow client would be out
    /// of time.
    pub(crate) fn look_at_queue(&mut self, cx: &mut Context<'_>) {
        if self.timing != Timing::Write {
            return;
        }
        let Ok(unsent) = self.client.unsent() else { return };
        let taken = cx.memory.taken_since_last_look(cx.waker.place, self.deadline, unsent);
        if taken > 0 {
            self.credit(taken as u64, Timing::Write, cx);
            cx.memory.move_unsent(cx.waker.place, self.deadline, unsent);
        }
    }

    /// Gives a client that sends a body, or takes an answer, the time back that its bytes may take at the minimum rate: so
    /// it may pause for the time-out after a good start, and a byte now and then does not hold its place.
    pub(super) fn credit(&mut self, bytes: u64, timing: Timing, cx: &Context<'_>) {
        let earned = match cx.config.min_rate {
            0 => UNLIMITED,
            rate => Duration::from_millis(bytes.saturating_mul(1000) / rate as u64),
        };
        let earned = self.deadline + earned;
        self.time(timing, cx);
        self.deadline = self.deadline.min(earned);
    }

    #[inline]
    pub(super) fn time(&mut self, timing: Timing, cx: &Context<'_>) {
        self.set_time(timing, cx.config, cx.clock.running);
        if cx.is_draining() {
            self.hurry(cx);
        }
    }

    #[inline]
    pub(super) fn set_time(&mut self, timing: Timing, config: &ServerConfig, now: Time) {
        self.timing = timing;
        self.deadline = timeout(timing, config).map_or(Time::NEVER, |timeout| now + timeout);
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
