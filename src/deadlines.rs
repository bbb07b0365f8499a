//! PURE. When to look at which connection, lazily: a connection whose deadline moves later keeps its alarm, and is
//! looked at and armed again when that rings. So a request costs nothing here, and a connection has one alarm, seldom
//! two.
#![forbid(unsafe_code)]

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::time::Time;

/// Look at the connection at `index`, if it is still the one with this `serial`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Alarm {
    pub(crate) due: Time,
    pub(crate) index: usize,
    pub(crate) serial: u32,
}

/// The alarms, earliest first.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    alarms: BinaryHeap<Reverse<Alarm>>,
}

impl Deadlines {
    pub(crate) fn push(&mut self, alarm: Alarm) {
        self.alarms.push(Reverse(alarm));
    }

    /// When the next alarm rings.
    pub(crate) fn next(&self) -> Option<Time> {
        self.alarms.peek().map(|Reverse(alarm)| alarm.due)
    }

    /// Takes the next alarm that rings at `now` or before.
    pub(crate) fn pop_due(&mut self, now: Time) -> Option<Alarm> {
        if self.next()? > now {
            return None;
        }
        self.alarms.pop().map(|Reverse(alarm)| alarm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_ring_in_order_and_not_early() {
        let mut deadlines = Deadlines::default();
        for (due, index) in [(30, 1), (10, 2), (20, 3)] {
            deadlines.push(Alarm { due: Time::from_millis(due), index, serial: 0 });
        }
        assert_eq!(deadlines.next(), Some(Time::from_millis(10)));
        assert_eq!(deadlines.pop_due(Time::from_millis(9)), None);
        let due: Vec<usize> =
            std::iter::from_fn(|| deadlines.pop_due(Time::from_millis(25))).map(|alarm| alarm.index).collect();
        assert_eq!(due, [2, 3]);
        assert_eq!(deadlines.next(), Some(Time::from_millis(30)));
    }
}
