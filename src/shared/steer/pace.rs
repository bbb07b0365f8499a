//! PURE. How often the parent does something because workers ask for it: as often as they ask in a busy moment, and not
//! more often than so many times a second in the long run.
#![forbid(unsafe_code)]

use std::time::Duration;

use crate::time::Time;

/// A bucket that leaks: each time fills it by `each`, and time empties it.
#[derive(Debug)]
pub(crate) struct Pace {
    each: Duration,
    room: Duration,
    /// When it will be empty.
    empty: Time,
}

impl Pace {
    /// Once per `each` in the long run, and up to `burst` times at once.
    pub(crate) fn new(each: Duration, burst: u32) -> Pace {
        Pace { each, room: each.saturating_mul(burst), empty: Time::default() }
    }

    /// Whether it may be done now, which then counts.
    ///
    /// # Errors
    ///
    /// When it may be done next.
    pub(crate) fn take(&mut self, now: Time) -> Result<(), Time> {
        let empty = self.empty.max(now) + self.each;
        let over = empty.since(now + self.room);
        if over.is_zero() {
            self.empty = empty;
            return Ok(());
        }
        Err(now + over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_free_and_the_rest_has_its_pace() {
        let mut pace = Pace::new(Duration::from_millis(2), 3);
        let at = |millis: u64| Time::from_millis(1_000 + millis);
        assert!((0..3).all(|_| pace.take(at(0)).is_ok()));
        assert_eq!(pace.take(at(0)), Err(at(2)));
        assert_eq!(pace.take(at(1)), Err(at(2)));
        let taken = (2..1_000).filter(|millis| pace.take(at(*millis)).is_ok()).count();
        assert_eq!(taken, 499);
        // Who was quiet has a burst again.
        assert_eq!((0..9).filter(|_| pace.take(at(5_000)).is_ok()).count(), 3);
    }
}
