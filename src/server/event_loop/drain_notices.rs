//! Notices of a drain. Connections that last until the application ends them are notified one after the other, so that
//! their clients do not all reconnect at once.

use std::collections::VecDeque;
use std::sync::Weak;
use std::time::Duration;

use super::table::Table;
use crate::server::answer::notice::Notice;
use crate::server::mailbox::Place;
use crate::time::Time;

/// The interval between notices, and the maximum time for all.
const NOTICE_INTERVAL: Duration = Duration::from_millis(10);
const SPREAD_MAX: Duration = Duration::from_secs(5);

/// The recipients with their times, the next one first.
#[derive(Debug, Default)]
pub(super) struct DrainNotices(VecDeque<(Time, Recipient)>);

/// A connection that lasts until the application ends it.
#[derive(Clone, Debug)]
enum Recipient {
    Answer(Place),
    /// A connection that the application has taken over.
    Upgraded(Weak<Notice>),
}

impl DrainNotices {
    /// The worker drains: assigns a time to all connections that may last, at which the application is notified.
    pub(super) fn begin(&mut self, table: &Table, upgrades: Vec<Weak<Notice>>, drain_timeout: Duration, now: Time) {
        let window = if drain_timeout.is_zero() { SPREAD_MAX } else { SPREAD_MAX.min(drain_timeout / 4) };
        let lasting = table.entries.iter().filter(|(_, entry)| entry.connection.waiting().is_told());
        let lasting = lasting.map(|(index, entry)| Recipient::Answer(Place { index, serial: entry.serial }));
        let upgrades = upgrades.into_iter().filter(|drain| drain.strong_count() > 0);
        self.spread(lasting.chain(upgrades.map(Recipient::Upgraded)).collect(), now, window);
    }

    /// Notifies those whose time has come.
    #[inline]
    pub(super) fn tell(&mut self, table: &mut Table, now: Time) {
        if !self.0.is_empty() {
            self.tell_some(table, now);
        }
    }

    #[inline(never)]
    fn tell_some(&mut self, table: &mut Table, now: Time) {
        while let Some(recipient) = self.pop_due(now) {
            match recipient {
                Recipient::Answer(place) => {
                    if let Some(entry) = table.get_mut(place) {
                        entry.connection.waiting().tell_drain();
                    }
                }
                Recipient::Upgraded(drain) => drain.upgrade().iter().for_each(|drain| drain.tell()),
            }
        }
    }

    /// Assigns each a time from now on, the last of them within `window`.
    fn spread(&mut self, all: Vec<Recipient>, now: Time, window: Duration) {
        let count = u32::try_from(all.len()).unwrap_or(u32::MAX);
        let window = window.min(NOTICE_INTERVAL * count);
        self.0 = (1..).zip(all).map(|(turn, recipient)| (now + window * turn / count, recipient)).collect();
    }

    pub(super) fn next(&self) -> Option<Time> {
        self.0.front().map(|(due, _)| *due)
    }

    fn pop_due(&mut self, now: Time) -> Option<Recipient> {
        if self.next()? > now {
            return None;
        }
        self.0.pop_front().map(|(_, recipient)| recipient)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_are_apart_and_within_the_window() {
        let at = |millis: u64| Time::from_millis(1_000 + millis);
        let place = |index| Recipient::Answer(Place { index, serial: 0 });
        let index = |recipient| match recipient {
            Some(Recipient::Answer(place)) => Some(place.index),
            _ => None,
        };
        let (mut notices, window) = (DrainNotices::default(), Duration::from_secs(5));
        notices.spread(Vec::new(), at(0), window);
        assert_eq!(notices.next(), None);
        notices.spread((0..2).map(place).collect(), at(0), window);
        assert_eq!(notices.next(), Some(at(10)), "few do not wait for long");
        assert_eq!([9, 10, 10, 20].map(|now| index(notices.pop_due(at(now)))), [None, Some(0), None, Some(1)]);
        assert_eq!(notices.next(), None);
        notices.spread((0..10_000).map(place).collect(), at(0), window);
        for second in 1..=5 {
            let told = std::iter::from_fn(|| notices.pop_due(at(second * 1000))).count();
            assert!((1_990..=2_010).contains(&told), "{told}");
        }
        assert_eq!(notices.next(), None);
    }
}
