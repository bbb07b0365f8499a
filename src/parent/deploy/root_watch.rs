//! PURE. Whether a path leads to another directory than before.
#![forbid(unsafe_code)]

use std::time::Duration;

use crate::shared::pace::{Pace, Rate};
use crate::time::Time;

/// The interval between checks. A deployment is noticed within two seconds, whatever else the parent does.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The rate of restarts because of it: a small burst, for deployments that come twice, and no more.
const RESTARTS: Rate = Rate::new(Duration::from_secs(10), 4);

/// Identifies a directory: device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity(pub(super) u64, pub(super) u64);

/// What is known about the directory.
#[derive(Debug, Default)]
pub(super) struct RootWatch {
    /// The directory that workers were given; `None` before it was seen.
    given: Option<Identity>,
    is_missing: bool,
    /// When to check again; `None` if there is nothing to check.
    next: Option<Time>,
    restarts: Pace,
}

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RootChange {
    Nothing,
    /// There is another directory.
    Another,
    /// It is gone, and was not at the previous check.
    Missing,
    /// It is there again.
    Back,
}

impl RootWatch {
    pub(super) fn deadline(&self) -> Option<Time> {
        self.next
    }

    pub(super) fn is_due(&self, now: Time) -> bool {
        self.next.is_some_and(|next| next <= now)
    }

    /// Workers that start from now on get this directory; `None` if none is served.
    pub(super) fn give(&mut self, directory: Option<Identity>, is_watched: bool, now: Time) {
        self.given = directory.or(self.given);
        self.next = is_watched.then_some(now + CHECK_INTERVAL);
    }

    /// Checks to which directory the path leads now.
    pub(super) fn check(&mut self, directory: Option<Identity>, now: Time) -> RootChange {
        self.next = Some(now + CHECK_INTERVAL);
        let was_missing = std::mem::replace(&mut self.is_missing, directory.is_none());
        match directory {
            None if was_missing => RootChange::Nothing,
            None => RootChange::Missing,
            Some(_) if directory == self.given && was_missing => RootChange::Back,
            Some(_) if directory == self.given => RootChange::Nothing,
            Some(_) if self.restarts.take(RESTARTS, now).is_err() => RootChange::Nothing,
            Some(_) => {
                self.given = directory;
                RootChange::Another
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::from_millis(seconds * 1000)
    }

    fn given(inode: u64) -> RootWatch {
        let mut root_watch = RootWatch::default();
        root_watch.give(Some(Identity(1, inode)), true, at(0));
        root_watch
    }

    #[test]
    fn each_look_is_a_second_after_the_one_before() {
        let mut root_watch = given(1);
        assert_eq!(
            (root_watch.deadline(), root_watch.is_due(at(0)), root_watch.is_due(at(1))),
            (Some(at(1)), false, true)
        );
        root_watch.check(Some(Identity(1, 1)), at(5));
        assert_eq!(root_watch.deadline(), Some(at(6)));
        root_watch.give(None, false, at(6));
        assert_eq!(root_watch.deadline(), None);
    }

    #[test]
    fn what_is_there_is_told_once() {
        use RootChange::{Another, Back, Missing, Nothing};
        let mut root_watch = given(1);
        for (second, directory, found) in [
            (1, Some(Identity(1, 1)), Nothing),
            (2, Some(Identity(1, 2)), Another),
            (3, Some(Identity(1, 2)), Nothing),
            // The same inode on another device, such as a mount.
            (4, Some(Identity(2, 2)), Another),
            (5, None, Missing),
            (6, None, Nothing),
            (7, Some(Identity(2, 2)), Back),
            (8, None, Missing),
            (9, Some(Identity(2, 3)), Another),
            (10, Some(Identity(2, 3)), Nothing),
        ] {
            assert_eq!(root_watch.check(directory, at(second)), found, "{second}");
        }
    }

    #[test]
    fn what_a_restart_has_given_is_no_news() {
        let mut root_watch = given(1);
        root_watch.give(Some(Identity(1, 2)), true, at(1));
        assert_eq!(root_watch.check(Some(Identity(1, 2)), at(2)), RootChange::Nothing);
        // It was missing just then: the one that comes is another.
        root_watch.give(None, true, at(3));
        assert_eq!(root_watch.check(Some(Identity(1, 3)), at(4)), RootChange::Another);
    }

    #[test]
    fn one_that_changes_all_the_time_is_followed_now_and_then_and_in_the_end() {
        let mut root_watch = given(0);
        let found = (1..=100).map(|second| root_watch.check(Some(Identity(1, second)), at(second)));
        let restarts = found.filter(|found| *found == RootChange::Another).count();
        assert!((10..=14).contains(&restarts), "{restarts}");
        let last =
            (101..=111).filter(|second| root_watch.check(Some(Identity(1, 100)), at(*second)) == RootChange::Another);
        assert!(last.count() <= 1);
        assert_eq!(root_watch.given, Some(Identity(1, 100)));
    }
}
