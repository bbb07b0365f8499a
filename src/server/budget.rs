//! PURE. The memory that the connections of a worker may hold together, for incomplete heads and bodies and for unread
//! responses.
#![forbid(unsafe_code)]

use std::time::Duration;

use crate::time::Time;

/// How long connections may wait for memory before others must release theirs.
const FULL_MAX: Duration = Duration::from_secs(5);

/// Memory of the allocator is returned to the system if this much was held, and less than a quarter of it still is.
const TRIM_MIN: usize = 4 << 20;

/// The bytes held, and their limit.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: usize,
    held: usize,
    /// Since when there has been no significant space.
    full_since: Option<Time>,
    /// The most that was held since memory was returned.
    peak: usize,
}

impl Budget {
    /// Zero is no limit.
    pub(crate) fn new(limit: usize) -> Budget {
        let limit = if limit == 0 { usize::MAX } else { limit };
        Budget { limit, held: 0, full_since: None, peak: 0 }
    }

    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Whether this many more bytes may be held.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.limit.saturating_sub(self.held) > bytes
    }

    /// Whether this many more bytes may be held for a body that they complete. Others wait for the memory that it will
    /// release, so it may exceed the limit by an eighth.
    pub(crate) fn fits_last(&self, bytes: usize) -> bool {
        let most = self.limit.saturating_add(self.limit / 8);
        self.held.saturating_add(bytes) <= most
    }

    /// Whether the limit is exceeded.
    pub(crate) fn is_over(&self) -> bool {
        self.held > self.limit
    }

    /// A connection holds `after` bytes now, and held `before`.
    pub(crate) fn change(&mut self, before: usize, after: usize, now: Time) {
        self.held = self.held.saturating_sub(before) + after;
        self.peak = self.peak.max(self.held);
        if self.held >= self.limit {
            self.full_since.get_or_insert(now);
        } else if self.surplus() == 0 {
            self.full_since = None;
        }
    }

    /// Whether there is no significant space.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.full_since.is_some()
    }

    /// When some connections must release memory.
    pub(crate) fn due(&self) -> Option<Time> {
        self.full_since.map(|since| since + FULL_MAX)
    }

    /// How much they must release, so that the others can proceed.
    pub(crate) fn surplus(&self) -> usize {
        self.held.saturating_sub(self.limit - self.limit / 8)
    }

    /// They have released what they could.
    pub(crate) fn shed(&mut self, now: Time) {
        self.full_since = (self.surplus() > 0).then_some(now);
    }

    /// How long a connection may make no progress before it must release its memory first.
    pub(crate) fn stall_max(&self) -> Duration {
        FULL_MAX
    }

    /// Whether much was held, and little is now. Reported once.
    pub(crate) fn take_trim(&mut self) -> bool {
        let is_due = self.peak >= TRIM_MIN && self.held < self.peak / 4;
        if is_due {
            self.peak = self.held;
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    #[test]
    fn room_is_what_nobody_holds() {
        let mut budget = Budget::new(1000);
        budget.change(0, 600, at(0));
        assert!(budget.has_room(399) && !budget.has_room(400));
        budget.change(0, 500, at(1));
        assert!(budget.is_over() && !budget.has_room(0));
        budget.change(600, 100, at(2));
        assert_eq!(budget.held, 600);
        assert!(!budget.is_over());
        assert!(budget.fits_last(525) && !budget.fits_last(526));
        let mut unlimited = Budget::new(0);
        assert!(unlimited.fits_last(usize::MAX));
        unlimited.change(0, 1 << 40, at(0));
        assert!(unlimited.has_room(1 << 40) && unlimited.due().is_none());
    }

    #[test]
    fn who_holds_too_much_for_too_long_gives_some_up() {
        let mut budget = Budget::new(1000);
        budget.change(0, 999, at(0));
        assert_eq!(budget.due(), None);
        budget.change(0, 1, at(7));
        assert_eq!(budget.due(), Some(at(5_007)));
        budget.change(1, 0, at(8));
        assert_eq!(budget.due(), Some(at(5_007)), "so little room lets nobody get on");
        budget.change(999, 1200, at(9));
        assert_eq!((budget.due(), budget.surplus()), (Some(at(5_007)), 325));
        budget.shed(at(5_007));
        assert_eq!(budget.due(), Some(at(10_007)), "nobody could");
        budget.change(1200, 875, at(5_008));
        assert_eq!(budget.due(), None);
    }

    #[test]
    fn memory_is_given_back_once_after_much_was_held() {
        let mut budget = Budget::new(0);
        budget.change(0, TRIM_MIN - 1, at(0));
        budget.change(TRIM_MIN - 1, 0, at(0));
        assert!(!budget.take_trim(), "it was not much");
        budget.change(0, 4 * TRIM_MIN, at(0));
        assert!(!budget.take_trim());
        budget.change(4 * TRIM_MIN, TRIM_MIN, at(0));
        assert!(!budget.take_trim(), "it is not little yet");
        budget.change(TRIM_MIN, TRIM_MIN - 1, at(0));
        assert!(budget.take_trim());
        assert!(!budget.take_trim());
    }
}
