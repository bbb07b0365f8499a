//! PURE. When files that are being changed have come to rest.
#![forbid(unsafe_code)]

use std::time::Duration;

use crate::time::Time;

/// How long nothing must change. By then, an editor or a compiler has written all its files, and the delay is too short
/// to notice.
const QUIET_TIME: Duration = Duration::from_millis(200);

/// The maximum wait. If something changes all the time, there is a restart now and then.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// Changes that have not led to a restart yet.
#[derive(Debug, Default)]
pub(super) struct Debounce {
    /// The times of the first and of the latest change.
    since: Option<(Time, Time)>,
}

impl Debounce {
    /// Something has changed.
    pub(super) fn note(&mut self, now: Time) {
        let (first, _) = self.since.unwrap_or((now, now));
        self.since = Some((first, now));
    }

    /// When to act on it.
    pub(super) fn due(&self) -> Option<Time> {
        self.since.map(|(first, latest)| (latest + QUIET_TIME).min(first + WAIT_MAX))
    }

    /// Whether it is time to act; if so, resets.
    pub(super) fn take(&mut self, now: Time) -> bool {
        let is_due = self.due().is_some_and(|due| due <= now);
        if is_due {
            self.since = None;
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
    fn a_burst_is_one() {
        let mut debounce = Debounce::default();
        assert!(debounce.due().is_none() && !debounce.take(at(0)));
        for millis in [1000, 1100, 1250] {
            debounce.note(at(millis));
            assert!(!debounce.take(at(millis)));
        }
        assert_eq!(debounce.due(), Some(at(1450)));
        assert!(!debounce.take(at(1449)) && debounce.take(at(1450)));
        assert!(debounce.due().is_none() && !debounce.take(at(5000)));
        // The next change counts by itself.
        debounce.note(at(6000));
        assert_eq!(debounce.due(), Some(at(6200)));
    }

    #[test]
    fn what_never_rests_is_not_waited_for() {
        let mut debounce = Debounce::default();
        let mut taken = Vec::new();
        for millis in (0..10_000).step_by(50) {
            debounce.note(at(millis));
            if debounce.take(at(millis)) {
                taken.push(millis);
            }
        }
        assert_eq!(taken.len(), 4, "{taken:?}");
    }
}
