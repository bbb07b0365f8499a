//! PURE. Rate limits with bursts (the generic cell rate algorithm).
#![forbid(unsafe_code)]

use std::time::Duration;

use crate::time::Time;

/// A limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    each: Duration,
    at_once: usize,
}

impl Rate {
    /// Once per `each` in the long run, and up to `at_once` times in a burst.
    pub(crate) const fn new(each: Duration, at_once: usize) -> Rate {
        Rate { each, at_once }
    }
}

/// The recent use of a [`Rate`]. The default is no use.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    /// When a full burst is possible again.
    recovered: Time,
}

impl Pace {
    /// When the next use is allowed.
    pub(crate) fn next(self, rate: Rate) -> Time {
        let more = u32::try_from(rate.at_once.saturating_sub(1)).unwrap_or(u32::MAX);
        self.recovered.before(rate.each.saturating_mul(more))
    }

    /// Counts a use now, allowed or not.
    pub(crate) fn count(&mut self, rate: Rate, now: Time) {
        self.recovered = self.recovered.max(now) + rate.each;
    }

    /// Uses the rate now, if that is allowed.
    ///
    /// # Errors
    ///
    /// When the next use is allowed.
    pub(crate) fn take(&mut self, rate: Rate, now: Time) -> Result<(), Time> {
        let next = self.next(rate);
        if next > now {
            return Err(next);
        }
        self.count(rate, now);
        Ok(())
    }

    /// Called after a freeze, in which nothing could be used.
    pub(crate) fn frozen(&mut self, span: Duration) {
        self.recovered = self.recovered + span;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_free_and_the_rest_has_its_pace() {
        let (mut pace, rate) = (Pace::default(), Rate::new(Duration::from_millis(2), 3));
        let at = |millis: u64| Time::from_millis(1_000 + millis);
        assert!((0..3).all(|_| pace.take(rate, at(0)).is_ok()));
        assert_eq!(pace.take(rate, at(0)), Err(at(2)));
        assert_eq!(pace.take(rate, at(1)), Err(at(2)));
        let taken = (2..1_000).filter(|millis| pace.take(rate, at(*millis)).is_ok()).count();
        assert_eq!(taken, 499);
        // After a pause, a burst is possible again.
        assert_eq!((0..9).filter(|_| pace.take(rate, at(5_000)).is_ok()).count(), 3);
    }
}
