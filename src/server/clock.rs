//! PURE. The time of a turn, and the time for deadlines: a clock that stops while the loop does not look at its
//! connections.
#![forbid(unsafe_code)]

use std::time::Duration;

use crate::time::{lost, Span, Time};

/// Longer than the loop ever needs to wait, and short enough for epoll_wait(2).
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// What a span in which the loop was frozen counts for all the same, so that what comes after it is later than what
/// came before: of two connections the one that was served before it has been idle for longer.
const STEP: Duration = Duration::from_millis(1);

/// The time between two waits in a busy loop. Times are truncated to milliseconds, so this means less than two.
const CLOSE: Duration = Duration::from_millis(1);

/// The clocks of a loop.
#[derive(Debug)]
pub(crate) struct Clock {
    /// When the turn began.
    pub(crate) now: Time,
    /// The same in microseconds, or when a connection was accepted later in this turn: requests have waited since then.
    pub(crate) micros: u64,
    /// The same, without the time in which the loop did not look at its connections. Deadlines use this clock.
    pub(crate) running: Time,
    /// That time: the loop was frozen, or busy with one connection for long.
    lost: Span,
    /// When the loop meant to continue.
    expected: Time,
    /// The last wait, since most turns follow each other within a millisecond.
    last: Wait,
}

/// How long to wait from `now` for what is due at `next`, and when that ends.
#[derive(Clone, Copy, Debug)]
struct Wait {
    next: Time,
    now: Time,
    end: Time,
    span: Option<Duration>,
}

impl Wait {
    fn new(next: Time, now: Time) -> Wait {
        let is_due = next != Time::NEVER;
        let end = if is_due { next.max(now).min(now + LONGEST_WAIT) } else { next };
        Wait { next, now, end, span: is_due.then(|| end.since(now)) }
    }
}

impl Clock {
    pub(crate) fn new() -> Clock {
        let (never, last) = (Time::NEVER, Wait::new(Time::NEVER, Time::default()));
        Clock { now: never, micros: 0, running: never, lost: Span::default(), expected: never, last }
    }

    /// A turn begins at this time in microseconds.
    #[inline]
    pub(crate) fn begin_turn(&mut self, micros: u64) {
        self.micros = micros;
        self.now = Time::from_millis(micros / 1000);
        self.skip_frozen(self.expected, self.now);
        self.running = self.now.before(self.lost);
    }

    /// The turn goes on, and it is this time in microseconds.
    pub(crate) fn go_on(&mut self, micros: u64) {
        self.continue_at_once();
        self.begin_turn(micros);
    }

    /// The turn ends, and the next one follows without a wait.
    pub(crate) fn continue_at_once(&mut self) {
        self.expected = self.now;
    }

    /// The turn ends at `now` by a clock that may be behind; returns the time. It may be long after the turn began.
    #[inline]
    pub(crate) fn end_turn(&mut self, now: Time) -> Time {
        let now = now.max(self.now);
        self.skip_frozen(self.now, now);
        now
    }

    /// How long the loop should wait from `now` for what is due at `next`.
    #[inline]
    pub(crate) fn wait_for(&mut self, next: Time, now: Time) -> Option<Duration> {
        if next != self.last.next || now != self.last.now {
            self.last = Wait::new(next, now);
        }
        self.expected = self.last.end;
        self.last.span
    }

    /// Whether the turn that ends at `now` follows closely on the one before, as in a worker with much to do.
    pub(crate) fn turns_are_close(&self, now: Time) -> bool {
        now.since(self.last.now) <= CLOSE
    }

    /// The real time at which the clock for deadlines shows `running`.
    #[inline]
    pub(crate) fn real(&self, running: Time) -> Time {
        running + self.lost
    }

    /// If the time from `expected` to `now` is so long that the loop was frozen, it does not count for deadlines, or as
    /// good as not.
    #[inline]
    fn skip_frozen(&mut self, expected: Time, now: Time) {
        let span = lost(expected, now);
        if !span.is_zero() {
            self.lost = self.lost.and(span.less(STEP));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    fn begun_at(clock: &mut Clock, millis: u64) -> Time {
        clock.begin_turn(millis * 1000 + 999);
        assert_eq!(clock.now, at(millis));
        clock.running
    }

    #[test]
    fn deadlines_do_not_come_nearer_while_the_loop_does_not_run() {
        let mut clock = Clock::new();
        assert_eq!(begun_at(&mut clock, 1_000), at(1_000));
        clock.end_turn(at(1_010));
        assert_eq!(clock.wait_for(at(1_250), at(1_010)), Some(Duration::from_millis(240)));
        assert_eq!(begun_at(&mut clock, 1_251), at(1_251), "it woke in time");
        clock.end_turn(at(1_252));
        clock.wait_for(at(1_500), at(1_252));
        assert_eq!(begun_at(&mut clock, 9_500), at(1_501), "it was frozen");
        assert_eq!(clock.real(at(1_601)), at(9_600));
        clock.continue_at_once();
        assert_eq!(begun_at(&mut clock, 9_901), at(1_502), "the turn took long");
    }

    #[test]
    fn turns_that_take_long_are_told_apart() {
        let mut clock = Clock::new();
        let mut before = begun_at(&mut clock, 1_000);
        for turn in 1..=3 {
            // Nothing is due, and the next event is there.
            clock.end_turn(at(1_000 + turn * 150));
            clock.wait_for(Time::NEVER, at(1_000 + turn * 150));
            let next = begun_at(&mut clock, 1_000 + turn * 150);
            assert!(next > before);
            before = next;
        }
    }

    #[test]
    fn turns_are_close_if_less_than_two_milliseconds_lie_between_their_ends() {
        let mut clock = Clock::new();
        for (end, is_close) in [(1_001, false), (1_001, true), (1_002, true), (1_004, false), (1_004, true)] {
            begun_at(&mut clock, end);
            let now = clock.end_turn(at(end));
            assert_eq!(clock.turns_are_close(now), is_close, "{end}");
            clock.wait_for(Time::NEVER, now);
        }
    }

    #[test]
    fn who_waits_for_nothing_is_never_late() {
        let mut clock = Clock::new();
        begun_at(&mut clock, 1_000);
        clock.end_turn(at(1_000));
        assert_eq!(clock.wait_for(Time::NEVER, at(1_000)), None);
        assert_eq!(begun_at(&mut clock, 99_000), at(99_000));
        assert_eq!(clock.end_turn(at(98_996)), at(99_000), "time does not go back");
        assert_eq!(clock.wait_for(at(u64::MAX - 1), at(99_000)), Some(LONGEST_WAIT));
        assert_eq!(clock.wait_for(at(98_000), at(99_000)), Some(Duration::ZERO), "what is overdue is due now");
    }
}
