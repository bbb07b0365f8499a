//! Sees to it that the kernel gives new connections to the right workers: asks the parent to tell it otherwise, and
//! corrects the count of those that it has given to this one.

use std::time::Duration;

use crate::server::station::Station;
use crate::shared::scoreboard::{OwnRow, Seen, UNSETTLED};
use crate::time::Time;

/// The longest that a worker waits before it asks again, as an exponent of two in milliseconds.
const IN_VAIN_MAX: u32 = 6;

/// What was seen, and said to the parent.
#[derive(Debug)]
pub(super) struct Steering {
    /// When it was last seen whether the kernel chooses well.
    looked: Time,
    /// When the parent may be asked again, and how often it was in vain.
    due: Time,
    in_vain: u32,
    /// Least of the connections that were pending while no queue held any, what was to be seen of the other workers, and
    /// since when.
    pending: i64,
    seen: Vec<Seen>,
    settled: Time,
}

impl Steering {
    pub(super) fn new() -> Steering {
        Steering {
            looked: Time::NEVER,
            due: Time::default(),
            in_vain: 0,
            pending: i64::MAX,
            seen: Vec::new(),
            settled: Time::default(),
        }
    }

    /// Whether it was not looked in this millisecond: so it comes at next to no cost per request.
    #[inline]
    pub(super) fn is_due(&self, now: Time) -> bool {
        now != self.looked
    }

    /// Nobody is given connections by this worker any more.
    pub(super) fn skip(&mut self, now: Time) {
        self.looked = now;
    }

    /// Asks the parent to look if the kernel should be told otherwise whom to give new connections to; each time that it
    /// does nothing about it, it is left alone for twice as long.
    pub(super) fn look(&mut self, station: &Station<'_>, now: Time) {
        self.looked = now;
        if !station.is_steered_wrongly(now) {
            (self.due, self.in_vain) = (now, 0);
        } else if self.due <= now {
            station.lifeline.steer(now);
            self.due = now + Duration::from_millis(1 << self.in_vain.min(IN_VAIN_MAX));
            self.in_vain = self.in_vain.saturating_add(1);
        }
    }

    /// A queue is empty. Pending connections are on their way, or will never come; of those that are always as many, at
    /// every such moment of a second, it does not matter which.
    pub(super) fn settle(&mut self, row: OwnRow<'_>, station: &Station<'_>, now: Time) {
        self.pending = self.pending.min(row.pending());
        if now.since(self.settled) >= UNSETTLED {
            row.settle(std::mem::replace(&mut self.pending, i64::MAX));
            self.seen = station.look_for_pending(&self.seen, now);
            self.settled = now;
        }
    }
}
