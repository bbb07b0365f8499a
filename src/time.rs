//! PURE. The one time type: milliseconds of `CLOCK_MONOTONIC`.
//!
//! It is a plain number so that it fits in the scoreboard's shared words, and so that the pure parts can be tested with
//! invented times. `clock.rs` reads it from the system.

use std::ops::Add;
use std::time::Duration;

/// How long a process may sleep in which something counts time: what is frozen for less than this may go unnoticed.
pub(crate) const BEAT: Duration = Duration::from_millis(250);

/// How late a process may look at the clock for no other reason than that it shares its processor.
const LATENESS: Duration = Duration::from_millis(100);

/// How long a process was frozen (SIGSTOP, the cgroup freezer, a paused virtual machine) that meant to look at the clock
/// at `expected`, and could do so only now. Zero if it is not late. `CLOCK_MONOTONIC` goes on in all three cases, so
/// being late is all there is to see; a process that meant to sleep for ever (`Time::NEVER`) is never late.
#[inline]
pub(crate) fn frozen(expected: Time, now: Time) -> Duration {
    if now < expected + LATENESS {
        Duration::ZERO
    } else {
        now.since(expected)
    }
}

/// A moment, in milliseconds of `CLOCK_MONOTONIC`: comparable between the processes of one machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Time(u64);

impl Time {
    /// A moment that does not come.
    pub(crate) const NEVER: Time = Time(u64::MAX);

    pub(crate) const fn from_millis(millis: u64) -> Time {
        Time(millis)
    }

    pub(crate) const fn as_millis(self) -> u64 {
        self.0
    }

    /// When somebody who waits for `due` from now on looks at the clock next: a freeze is seen when that is too late, so it
    /// is well before, and of what is left no freeze takes more than half.
    #[inline]
    pub(crate) fn towards(self, due: Time) -> Time {
        const LEAST: u64 = BEAT.as_millis() as u64;
        let left = due.0.saturating_sub(self.0);
        Time(self.0 + left.min(LEAST.max(left / 2)))
    }

    /// Time passed since `earlier`; zero if `earlier` is later.
    pub(crate) fn since(self, earlier: Time) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The moment that is this span earlier.
    #[inline]
    pub(crate) fn before(self, span: Duration) -> Time {
        Time(self.0.saturating_sub(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl Add<Duration> for Time {
    type Output = Time;

    /// Saturates, so that "never" can be written as a huge duration.
    #[inline]
    fn add(self, span: Duration) -> Time {
        let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Time(self.0.saturating_add(millis))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_was_frozen_if_it_looks_at_the_clock_much_later_than_it_meant_to() {
        let at = Time::from_millis;
        for (expected, now, millis) in [
            (at(1_000), at(900), 0),
            (at(1_000), at(1_099), 0),
            (at(1_000), at(7_000), 6_000),
            (Time::NEVER, at(7_000), 0),
        ] {
            assert_eq!(frozen(expected, now), Duration::from_millis(millis), "{expected:?} {now:?}");
        }
    }

    #[test]
    fn a_long_wait_has_looks_at_the_clock_in_between() {
        let at = Time::from_millis;
        for (due, look) in [(900, 1_000), (1_000, 1_000), (1_200, 1_200), (1_400, 1_250), (61_000, 31_000)] {
            assert_eq!(at(1_000).towards(at(due)), at(look), "{due}");
        }
        let looks = std::iter::successors(Some(at(0)), |now| Some(now.towards(at(60_000))));
        assert_eq!(looks.take_while(|now| *now < at(60_000)).count(), 9);
    }
}
