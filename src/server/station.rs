//! What a server gets from its process. So it needs no worker, and also runs in a test.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use crate::server::adoption::Adoptions;
use crate::shared::channel::WorkerEnd;
use crate::shared::config::ServerConfig;
use crate::shared::scoreboard::{OwnRow, Pending, RowPage};
use crate::shared::steer;
use crate::time::Time;

/// A worker that has been busy for this long may not come soon for a connection that waits. Closing an idle connection
/// to make room for that one is worse than a short wait.
const BUSY_MAX: Duration = Duration::from_millis(100);

/// A server's connection to its surroundings: its channels to the parent, its own reports, and those of the other
/// workers.
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
    /// Whether to end at once instead of draining.
    pub(crate) quit: &'w AtomicBool,
    /// The number of requests to serve before reporting to the parent; 0 for no limit, and after the report.
    pub(crate) max_requests: &'w Cell<u64>,
    /// Connections that the server did not accept itself.
    pub(crate) adoptions: Arc<Adoptions>,
    /// The pause of the parent in which this worker has woken it.
    pub(crate) woken: Cell<Option<u64>>,
}

impl<'w> Station<'w> {
    pub(crate) fn row(&self) -> OwnRow<'w> {
        self.page.row()
    }

    /// Reports that this worker has served as many requests as it may, if so.
    #[inline]
    pub(crate) fn check_requests(&self) {
        let max = self.max_requests.get();
        if max > 0 && self.row().requests() >= max {
            self.report_requests();
        }
    }

    #[cold]
    fn report_requests(&self) {
        self.max_requests.set(0);
        self.lifeline.due();
    }

    /// Whether a slot has a worker that accepts from its queue.
    pub(crate) fn is_served(&self, slot: usize) -> bool {
        self.page.board().row_of(slot).is_some()
    }

    /// Asks the parent to check if connections that the kernel assigned to an idle worker do not arrive. Nothing wakes
    /// that worker, so it cannot correct the count. `seen` is the result of an earlier call.
    pub(crate) fn look_for_pending(&self, seen: &[Pending], now: Time) -> Vec<Pending> {
        if seen.iter().any(|then| self.page.board().is_left(then)) {
            self.lifeline.steer(now);
        }
        self.page.board().pending(self.page.index())
    }

    /// Whether only a slot's own worker accepts from its queue, as long as there is one.
    pub(crate) fn is_sticky(&self) -> bool {
        steer::is_sticky(self.page.board())
    }

    /// Whether a slot has no worker, or one that is busy with something long.
    pub(crate) fn is_stalled(&self, slot: usize, now: Time) -> bool {
        self.page.board().row_of(slot).is_none_or(|row| steer::is_stalled(self.page.board().row(row), now))
    }

    /// Whether another worker in this slot reports that it has no room for connections.
    pub(crate) fn is_full(&self, slot: usize) -> bool {
        let row = self.page.board().row_of(slot).filter(|row| *row != self.page.index());
        row.is_some_and(|row| self.page.board().row(row).is_full())
    }

    /// Whether the worker of this slot is idle, and has fewer open connections than this one.
    pub(crate) fn is_idle_with_fewer(&self, slot: usize) -> bool {
        let Some(row) = self.page.board().row_of(slot).map(|row| self.page.board().row(row)) else { return false };
        row.busy_since().is_none() && row.open() < self.row().open()
    }

    /// Whether another worker serves, has not been busy for long, and is below its limit of connections.
    pub(crate) fn others_have_room(&self, now: Time) -> bool {
        let others = self.page.board().seats().filter(|row| *row != 0 && *row != self.page.index());
        let mut others = others.map(|row| self.page.board().row(row));
        others.any(|row| row.is_neighbour() && !row.is_full() && !steer::is_busy_for(row, BUSY_MAX, now))
    }

    /// Whether the kernel should choose otherwise for new connections.
    pub(crate) fn is_steered_wrongly(&self, now: Time) -> bool {
        steer::is_outdated(self.page.board(), now)
    }

    /// Wakes the parent if it is not checking for stalls, once in each pause. Call this when the row says that the
    /// worker is busy.
    ///
    /// The parent stops checking when all workers are idle, and checks once more after that, so it sees a worker that
    /// becomes busy at that moment.
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
