//! Keeps the kernel's steering up to date: asks the parent to change it, and corrects the count of connections that the
//! kernel has assigned to this worker.

use std::time::Duration;

use crate::server::station::Station;
use crate::shared::scoreboard::{OwnRow, Pending, UNSETTLED};
use crate::time::Time;

/// The longest wait before asking again, as an exponent of two in milliseconds.
const IN_VAIN_MAX: u32 = 6;

/// What was seen, and asked of the parent.
#[derive(Debug)]
pub(super) struct Steering {
    /// When the steering was last checked.
    looked: Time,
    /// When the parent may be asked again, and how many times that had no effect.
    due: Time,
    in_vain: u32,
    /// When the pending connections were last counted.
    counted: Time,
    /// The smallest number of pending connections while no queue held any, what was seen of the other workers then, and
    /// since when.
    pending: i64,
    seen: Vec<Pending>,
    settled: Time,
}

impl Steering {
    pub(super) fn new() -> Steering {
        Steering {
            looked: Time::NEVER,
            due: Time::default(),
            in_vain: 0,
            counted: Time::NEVER,
            pending: i64::MAX,
            seen: Vec::new(),
            settled: Time::default(),
        }
    }

    /// Whether the last check was not in this millisecond. So checks cost next to nothing per request.
    #[inline]
    pub(super) fn is_due(&self, now: Time) -> bool {
        now != self.looked
    }

    /// This worker no longer affects where connections go.
    pub(super) fn skip(&mut self, now: Time) {
        self.looked = now;
    }

    /// Asks the parent to check the steering if the kernel should choose otherwise. Each time that has no effect, the
    /// worker waits twice as long before it asks again.
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

    /// A queue is empty, so pending connections are on their way or will never arrive. The smallest number seen during
    /// a second is a set of connections that will never arrive. Counted once a millisecond, since the kernel's count is
    /// on a cache line that it writes for each connection.
    pub(super) fn settle(&mut self, row: OwnRow<'_>, station: &Station<'_>, now: Time) {
        if now == self.counted {
            return;
        }
        self.counted = now;
        self.pending = self.pending.min(row.pending());
        if now.since(self.settled) >= UNSETTLED {
            row.settle(std::mem::replace(&mut self.pending, i64::MAX));
            self.seen = station.look_for_pending(&self.seen, now);
            self.settled = now;
        }
    }
}
