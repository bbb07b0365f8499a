//! What a server is given of the process that it serves in: so it needs no worker, and runs in a test as well.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use crate::server::adoption::Adoptions;
use crate::shared::channel::WorkerEnd;
use crate::shared::config::ServerConfig;
use crate::shared::scoreboard::{OwnRow, RowPage, Seen};
use crate::shared::steer;
use crate::time::Time;

/// Where a server stands: how it speaks with the parent, and what it says and knows of the other workers.
#[derive(Debug)]
pub(crate) struct Station<'w> {
    /// The slot.
    pub(crate) id: usize,
    /// How the log names the worker.
    pub(crate) tag: String,
    pub(crate) lifeline: &'w WorkerEnd,
    pub(crate) page: &'w RowPage,
    pub(crate) config: &'w ServerConfig,
    pub(crate) drain_timeout: Duration,
    /// To end at once instead of draining.
    pub(crate) quit: &'w AtomicBool,
    /// Requests that may be served before the parent is told; 0 for any number, and once it was told.
    pub(crate) max_requests: &'w Cell<u64>,
    /// Connections that the server has not accepted itself.
    pub(crate) adoptions: Arc<Adoptions>,
    /// The rest of the parent in which this worker has woken it.
    pub(crate) woken: Cell<Option<u64>>,
}

impl<'w> Station<'w> {
    pub(crate) fn row(&self) -> OwnRow<'w> {
        self.page.row()
    }

    /// Says that this worker has served as many requests as it may, when that is so.
    pub(crate) fn check_requests(&self) {
        let max = self.max_requests.get();
        if max > 0 && self.row().requests() >= max {
            self.max_requests.set(0);
            self.lifeline.due();
        }
    }

    /// Whether a slot has a worker that takes from its queue.
    pub(crate) fn is_served(&self, slot: usize) -> bool {
        self.page.board().row_of(slot).is_some()
    }

    /// Has the parent look when connections that the kernel gave to an idle worker do not come: nothing wakes that, so it
    /// cannot correct the count. `seen` is what this has returned a while ago.
    pub(crate) fn look_for_pending(&self, seen: &[Seen], now: Time) -> Vec<Seen> {
        if seen.iter().any(|then| self.page.board().is_left(then)) {
            self.lifeline.steer(now);
        }
        self.page.board().pending(self.page.index())
    }

    /// Whether nobody but its own worker takes from a slot's queue, as long as there is one.
    pub(crate) fn is_sticky(&self) -> bool {
        steer::is_sticky(self.page.board())
    }

    /// Whether a slot has no worker, or one that is busy with something long.
    pub(crate) fn is_stalled(&self, slot: usize, now: Time) -> bool {
        self.page.board().row_of(slot).is_none_or(|row| steer::is_stalled(self.page.board().row(row), now))
    }

    /// Whether the worker of that slot is idle, and has fewer connections open than this one.
    pub(crate) fn is_idle_with_fewer(&self, slot: usize) -> bool {
        let Some(row) = self.page.board().row_of(slot).map(|row| self.page.board().row(row)) else { return false };
        row.busy_since().is_none() && row.open() < self.row().open()
    }

    /// Whether another worker serves, is not stuck, and has fewer connections than it may have.
    pub(crate) fn others_have_room(&self, now: Time) -> bool {
        let others = self.page.board().seats().filter(|row| *row != 0 && *row != self.page.index());
        let mut others = others.map(|row| self.page.board().row(row));
        others.any(|row| row.is_neighbour() && !row.is_full() && !steer::is_stalled(row, now))
    }

    /// Whether the kernel should be told otherwise whom to give new connections to.
    pub(crate) fn is_steered_wrongly(&self, now: Time) -> bool {
        steer::is_outdated(self.page.board(), now)
    }

    /// Wakes the parent if it does not look for stalls at the moment, once in each rest; to be called when the row says
    /// that the worker is busy.
    ///
    /// The parent stops looking when all are idle, and looks once more after that: so a mark that crosses its last
    /// word is seen.
    #[inline]
    pub(crate) fn wake_watch(&self) {
        if let Some(rest) = self.page.board().rest().filter(|rest| self.woken.get() != Some(*rest)) {
            self.woken.set(Some(rest));
            self.lifeline.awake();
        }
    }

    /// Whether to end at once instead of draining.
    pub(crate) fn quits(&self) -> bool {
        self.quit.load(Ordering::Relaxed)
    }
}
