//! PURE. The one time type: milliseconds of `CLOCK_MONOTONIC`.
//!
//! It is a plain number so that it fits in the scoreboard's shared words, and so that the pure parts can be tested with
//! invented times. `clock.rs` reads it from the system.

use std::ops::Add;
use std::time::Duration;

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

    /// Time passed since `earlier`; zero if `earlier` is later.
    pub(crate) fn since(self, earlier: Time) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Time;

    /// Saturates, so that "never" can be written as a huge duration.
    fn add(self, span: Duration) -> Time {
        let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Time(self.0.saturating_add(millis))
    }
}
