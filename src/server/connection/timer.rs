//! How long a connection may wait, depending on what it waits for.

use std::time::Duration;

use crate::server::context::Context;
use crate::server::http::Phase;
use crate::server::timing::{timeout, Timing, UNLIMITED};
use crate::shared::config::Timeouts;
use crate::time::Time;

/// How many times within its timeout to check what a client has read of a response.
pub(super) const CHECKS: u32 = 4;
pub(super) const LEAST: Duration = Duration::from_millis(1);

/// How long to wait for a client that still sends while the worker drains.
pub(super) const LINGER_IN_DRAIN: Duration = Duration::from_secs(2);

/// What a connection waits for, and its deadline.
#[derive(Debug)]
pub(crate) struct Timer {
    /// The deadline.
    pub(crate) deadline: Time,
    pub(super) timing: Timing,
}

impl Timer {
    /// For a new connection.
    pub(super) fn new(timeouts: &Timeouts, now: Time) -> Timer {
        let mut timer = Timer { deadline: now, timing: Timing::Head };
        timer.set(Timing::Head, timeouts, now);
        timer
    }

    /// For a connection that has waited for so long in another process; for a head, or for a request.
    pub(super) fn resumed(is_head: bool, waited: Duration, timeouts: &Timeouts, now: Time) -> Timer {
        let mut timer = Timer { deadline: now, timing: if is_head { Timing::Head } else { Timing::Idle } };
        timer.set(timer.timing, timeouts, now.before(waited));
        timer
    }

    /// Begins again to wait for the same, though the worker drains.
    pub(crate) fn restart(&mut self, timeouts: &Timeouts, now: Time) {
        self.set(self.timing, timeouts, now);
    }

    /// Begins to wait for something, or begins again.
    #[inline]
    pub(super) fn start(&mut self, timing: Timing, cx: &Context<'_>) {
        self.timing = timing;
        self.deadline = cx.clock.running + cx.waits.of(timing);
        if cx.is_draining() {
            self.hurry(cx);
        }
    }

    /// Begins to wait for the application, without a limit unless there is a timeout.
    pub(super) fn start_within(&mut self, timeout: Option<Duration>, timing: Timing, cx: &Context<'_>) {
        self.timing = timing;
        self.deadline = timeout.map_or(Time::NEVER, |timeout| cx.clock.running + timeout.min(UNLIMITED));
        if cx.is_draining() {
            self.hurry(cx);
        }
    }

    /// Begins to wait for the thread that reads a body, unless it waits for it already.
    pub(super) fn wait_for_reader(&mut self, cx: &Context<'_>) {
        if self.timing != Timing::Reader {
            let timeout = cx.station.config.timeouts.answer;
            self.start_within((!timeout.is_zero()).then_some(timeout), Timing::Reader, cx);
        }
    }

    /// Begins again after progress: if `requests` were answered, or if `received` bytes were some. `phase` is what the
    /// codec waits for now.
    #[inline]
    pub(super) fn after_reading(&mut self, phase: Phase, requests: usize, received: usize, cx: &Context<'_>) {
        if requests > 0 && phase == Phase::Idle {
            // What nearly all steps end with.
            return self.start(Timing::Idle, cx);
        }
        let timing = match phase {
            Phase::Head => Timing::Head,
            Phase::Body if self.timing == Timing::Memory => return,
            Phase::Body => Timing::Body,
            Phase::Idle if self.timing == Timing::Head && requests == 0 => Timing::Head,
            Phase::Idle => Timing::Idle,
        };
        if timing != self.timing || requests > 0 {
            self.start(timing, cx);
        } else if timing == Timing::Body && received > 0 {
            self.credit(received as u64, timing, cx);
        }
    }

    /// There is memory again for a body; its client has as much time as at the beginning.
    pub(crate) fn resume(&mut self, cx: &Context<'_>) {
        self.start(Timing::Body, cx);
    }

    /// Whether its client has not read a response.
    pub(crate) fn is_unsent(&self) -> bool {
        self.timing == Timing::Write
    }

    /// Leaves what the client has sent in the kernel until there is memory for it.
    #[cold]
    pub(super) fn wait_for_room(&mut self, cx: &mut Context<'_>) {
        if self.timing != Timing::Memory {
            self.start(Timing::Memory, cx);
            cx.memory.wait(cx.waker.place);
        }
    }

    /// Whether it waits for memory.
    pub(crate) fn waits_for_room(&self) -> bool {
        self.timing == Timing::Memory
    }

    #[inline]
    fn set(&mut self, timing: Timing, timeouts: &Timeouts, now: Time) {
        self.timing = timing;
        self.deadline = timeout(timing, timeouts).map_or(Time::NEVER, |timeout| now + timeout);
    }

    /// Extends the deadline of a client that sends a body, or reads a response, by the time that its bytes may take at
    /// the minimum rate. So it may pause for the timeout after a good start, and a byte now and then is not enough.
    pub(super) fn credit(&mut self, bytes: u64, timing: Timing, cx: &Context<'_>) {
        let earned = match cx.station.config.timeouts.min_rate {
            0 => UNLIMITED,
            rate => Duration::from_millis(bytes.saturating_mul(1000) / rate as u64),
        };
        let earned = self.deadline + earned;
        self.start(timing, cx);
        self.end_by(earned);
    }

    /// Limits the deadline.
    pub(crate) fn end_by(&mut self, end: Time) {
        self.deadline = self.deadline.min(end);
    }

    /// Shortens the deadline while the worker drains.
    pub(super) fn hurry(&mut self, cx: &Context<'_>) {
        let Some(limits) = cx.drain else { return };
        // A drain does not wait for a connection without a whole request, or if no request is worth the wait.
        if matches!(self.timing, Timing::Head | Timing::Idle) || cx.station.config.capacity.evicts_unfinished {
            // One that waits for a request is passed on at once.
            let pause = if limits.passes_on { Duration::ZERO } else { limits.head };
            self.end_by(cx.clock.running + pause);
        } else if self.timing == Timing::Body {
            self.end_by(cx.clock.running + limits.body);
        } else if self.timing == Timing::Linger {
            self.end_by(cx.clock.running + LINGER_IN_DRAIN);
        }
    }

    /// Since when it waits, if that has a limit.
    pub(super) fn begun(&self, timeouts: &Timeouts) -> Option<Time> {
        Some(self.deadline.before(timeout(self.timing, timeouts)?))
    }

    /// When to look at the connection: at its deadline. If a client reads a response slowly, also several times before,
    /// since no event reports that a little of it was read.
    pub(super) fn due(&self, cx: &Context<'_>) -> Time {
        match self.timing {
            Timing::Write => {
                // If memory runs out, the server must know which clients do not read.
                let look = (cx.station.config.timeouts.write / CHECKS).min(cx.memory.budget.stall_max() / CHECKS);
                self.deadline.min(cx.clock.running + look.max(LEAST))
            }
            _ => self.deadline,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::config::Config;

    #[test]
    fn a_deadline_tells_since_when_a_connection_waits() {
        let timeouts = Timeouts { idle: Duration::ZERO, ..Config::default().server.timeouts };
        let now = Time::from_millis(5_000);
        let mut timer = Timer::new(&timeouts, now);
        for timing in [Timing::Head, Timing::Body, Timing::Idle, Timing::Write, Timing::Linger] {
            timer.set(timing, &timeouts, now);
            assert_eq!(timer.begun(&timeouts), Some(now), "{timing:?}");
        }
        timer.end_by(now);
        assert_eq!(timer.deadline, now);
        timer.set(Timing::Answer, &timeouts, now);
        assert_eq!((timer.begun(&timeouts), timer.deadline), (None, Time::NEVER));
    }
}
