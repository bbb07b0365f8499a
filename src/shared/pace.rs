//! PURE. How often something may happen: some times at once, and not more often than so many times a second in the long run
//! (the generic cell rate algorithm).
#![forbid(unsafe_code)]

use std::time::Duration;

use crate::time::Time;

/// How often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    each: Duration,
    at_once: usize,
}

impl Rate {
    /// Once per `each` in the long run, and `at_once` times at once.
    pub(crate) const fn new(each: Duration, at_once: usize) -> Rate {
        Rate { each, at_once }
    }
}

/// What has happened of late, of what has a [`Rate`]. The default is that nothing has.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    /// When as many as at first may happen at once again.
    recovered: Time,
}

impl Pace {
    /// When it may happen next.
    pub(crate) fn next(self, rate: Rate) -> Time {
        let more = u32::try_from(rate.at_once.saturating_sub(1)).unwrap_or(u32::MAX);
        self.recovered.before(rate.each.saturating_mul(more))
    }

    /// It happens now, whether it may or not.
    pub(crate) fn count(&mut self, rate: Rate, now: Time) {
        self.recovered = self.recovered.max(now) + rate.each;
    }

    /// Whether it may happen now, which then counts.
    ///
    /// # Errors
    ///
    /// When it may happen next.
    pub(crate) fn take(&mut self, rate: Rate, now: Time) -> Result<(), Time> {
        let next = self.next(rate);
        if next > now {
            return Err(next);
        }
        self.count(rate, now);
        Ok(())
    }

    /// Nothing could happen for so long.
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
        // Who was quiet has a burst again.
        assert_eq!((0..9).filter(|_| pace.take(rate, at(5_000)).is_ok()).count(), 3);
    }
}
