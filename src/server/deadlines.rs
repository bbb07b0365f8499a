//! PURE. When to look at which connection, lazily: if the deadline of a connection moves later, its alarm stays, and is
//! set again when it goes off. So a request costs nothing here, and a connection has one alarm, rarely two. The
//! connection of an alarm may have ended, and its place may belong to another one.
#![forbid(unsafe_code)]

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::time::Time;

/// Look at the connection at `index`, which is below [`INDEX_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Alarm {
    pub(crate) due: Time,
    pub(crate) index: usize,
}

/// The maximum number of connections of a worker. The place and the time, milliseconds of 34 years, share one word, so
/// that an idle connection costs little.
pub(crate) const INDEX_MAX: usize = 1 << INDEX_BITS;
const INDEX_BITS: u32 = 24;

impl Alarm {
    fn packed(self) -> u64 {
        debug_assert!(self.index < INDEX_MAX);
        self.due.as_millis() << INDEX_BITS | self.index as u64
    }

    fn unpacked(packed: u64) -> Alarm {
        Alarm { due: Time::from_millis(packed >> INDEX_BITS), index: packed as usize & (INDEX_MAX - 1) }
    }
}

/// The alarms, earliest first.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    alarms: BinaryHeap<Reverse<u64>>,
}

impl Deadlines {
    pub(crate) fn push(&mut self, alarm: Alarm) {
        self.alarms.push(Reverse(alarm.packed()));
    }

    /// When the next alarm goes off.
    pub(crate) fn next(&self) -> Option<Time> {
        self.alarms.peek().map(|Reverse(alarm)| Alarm::unpacked(*alarm).due)
    }

    /// Takes the next alarm that goes off at `now` or before.
    pub(crate) fn pop_due(&mut self, now: Time) -> Option<Alarm> {
        if self.next()? > now {
            return None;
        }
        self.alarms.pop().map(|Reverse(alarm)| Alarm::unpacked(alarm))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_ring_in_order_and_not_early() {
        let mut deadlines = Deadlines::default();
        for (due, index) in [(30, 1), (10, INDEX_MAX - 1), (20, 3)] {
            deadlines.push(Alarm { due: Time::from_millis(due), index });
        }
        assert_eq!(deadlines.next(), Some(Time::from_millis(10)));
        assert_eq!(deadlines.pop_due(Time::from_millis(9)), None);
        let due: Vec<usize> =
            std::iter::from_fn(|| deadlines.pop_due(Time::from_millis(25))).map(|alarm| alarm.index).collect();
        assert_eq!(due, [INDEX_MAX - 1, 3]);
        assert_eq!(deadlines.next(), Some(Time::from_millis(30)));
    }
}
