//! PURE. The one type for time: milliseconds of `CLOCK_MONOTONIC`.
//!
//! It is a plain number, so it fits in the words of the scoreboard, and tests of the pure parts can invent times.
//! `clock.rs` reads the system's clock.

use std::ops::Add;
use std::time::Duration;

/// The longest sleep of a process that measures time. A freeze shorter than this may go unnoticed.
pub(crate) const TICK: Duration = Duration::from_millis(250);

/// How late a process may look at the clock merely because it shares its processor.
const LATENESS: Duration = Duration::from_millis(100);

/// How long this process was frozen (SIGSTOP, the cgroup freezer, a paused virtual machine), if it meant to look at the
/// clock at `expected` and could only do so now. Zero if it is not late. `CLOCK_MONOTONIC` goes on in all three cases,
/// so lateness is the only evidence. A process that meant to sleep for ever (`Time::NEVER`) is never late.
pub(crate) fn frozen(expected: Time, now: Time) -> Duration {
    Duration::from_millis(lost(expected, now).0)
}

/// [`frozen`] as a span, for a loop that asks at every turn.
#[inline]
pub(crate) fn lost(expected: Time, now: Time) -> Span {
    match now < expected + LATENESS {
        true => Span::default(),
        false => Span(now.0.saturating_sub(expected.0)),
    }
}

/// A span in the unit of [`Time`]. To compute with a [`Duration`] takes a multiplication and a division each time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span(u64);

impl Span {
    /// After it comes [`Time::NEVER`].
    pub(crate) const FOREVER: Span = Span(u64::MAX);

    pub(crate) fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// This and another one.
    pub(crate) fn and(self, other: Span) -> Span {
        Span(self.0.saturating_add(other.0))
    }

    /// This without another one.
    pub(crate) fn less(self, other: impl Into<Span>) -> Span {
        Span(self.0.saturating_sub(other.into().0))
    }
}

impl From<Duration> for Span {
    #[inline]
    fn from(span: Duration) -> Span {
        Span(millis(span))
    }
}

/// A point in time, in milliseconds of `CLOCK_MONOTONIC`, comparable between the processes of one machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Time(u64);

impl Time {
    /// A point in time that never comes.
    pub(crate) const NEVER: Time = Time(u64::MAX);

    pub(crate) const fn from_millis(millis: u64) -> Time {
        Time(millis)
    }

    pub(crate) const fn as_millis(self) -> u64 {
        self.0
    }

    /// When a process that waits for `due` from now on should next look at the clock. A freeze is detected when the
    /// process looks too late, so this is well before `due`, and a freeze that goes unnoticed takes at most half of the
    /// time left.
    #[inline]
    pub(crate) fn towards(self, due: Time) -> Time {
        const LEAST: u64 = TICK.as_millis() as u64;
        let left = due.0.saturating_sub(self.0);
        Time(self.0 + left.min(LEAST.max(left / 2)))
    }

    /// Returns the time since `earlier`; zero if `earlier` is later.
    pub(crate) fn since(self, earlier: Time) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The point in time that is earlier by this span.
    #[inline]
    pub(crate) fn before(self, span: impl Into<Span>) -> Time {
        Time(self.0.saturating_sub(span.into().0))
    }
}

/// Whole milliseconds. Without the 128 bits of [`Duration::as_millis`], since every request costs one.
#[inline]
fn millis(span: Duration) -> u64 {
    span.as_secs().saturating_mul(1000).saturating_add(u64::from(span.subsec_millis()))
}

impl<S: Into<Span>> Add<S> for Time {
    type Output = Time;

    /// Saturates, so that a huge span can mean "never".
    #[inline]
    fn add(self, span: S) -> Time {
        Time(self.0.saturating_add(span.into().0))
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
