//! Lets the application's own server report what it is doing, so that steering can take it into account.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::Arc;

use crate::shared::channel::ParentWaker;
use crate::shared::scoreboard::{OwnRow, RowPage};
use crate::sys::clock;

/// Reports what a server of your own is doing; see [`Worker::meter`](crate::Worker::meter).
///
/// The built-in server reports all this by itself. For a server without a meter, the pool checks whether connections
/// wait in its queue. Clones can be used on any thread of the worker.
#[derive(Clone, Debug)]
pub struct Meter {
    page: RowPage,
    waking: ParentWaker,
    /// The pause of the parent in which it was woken, as one more than its number.
    woken: Arc<AtomicU64>,
    /// The number of requests in progress.
    depth: Arc<AtomicUsize>,
}

impl Meter {
    pub(crate) fn new(page: RowPage, waking: ParentWaker) -> Meter {
        page.row().set_metered();
        Meter { page, waking, woken: Arc::default(), depth: Arc::default() }
    }

    /// Counts a request, and marks the worker busy until the guard is dropped. After a millisecond or two, new
    /// connections avoid a busy worker. The stall timeout starts here.
    ///
    /// Hold the guard while a thread computes or blocks, not while it waits in an event loop.
    pub fn busy(&self) -> BusyGuard {
        self.row().add_request();
        self.depth.fetch_add(1, Ordering::Relaxed);
        self.leaves_wait();
        BusyGuard { meter: self.clone() }
    }

    /// Marks the worker busy.
    pub(crate) fn leaves_wait(&self) {
        self.row().busy(clock::now());
        if let Some(rest) = self.page.board().rest() {
            if self.woken.swap(rest + 1, Ordering::Relaxed) != rest + 1 {
                self.waking.awake();
            }
        }
    }

    /// Marks the worker idle.
    #[cfg(feature = "hyper")]
    pub(crate) fn waits(&self) {
        self.row().idle();
    }

    /// Counts a connection, which is open until the guard is dropped.
    pub fn connection(&self) -> ConnectionGuard {
        self.row().add_accepted();
        ConnectionGuard { meter: self.clone() }
    }

    fn row(&self) -> OwnRow<'_> {
        self.page.row()
    }
}

/// A request in progress; see [`Meter::busy`].
#[derive(Debug)]
#[must_use = "the worker is busy until this is dropped"]
pub struct BusyGuard {
    meter: Meter,
}

impl Drop for BusyGuard {
    fn drop(&mut self) {
        match self.meter.depth.fetch_sub(1, Ordering::Relaxed) {
            1 => self.meter.row().idle(),
            // Another thread still works on a request, but there was progress.
            _ => self.meter.row().busy(clock::now()),
        }
    }
}

/// An open connection; see [`Meter::connection`].
#[derive(Debug)]
#[must_use = "the connection is open until this is dropped"]
pub struct ConnectionGuard {
    meter: Meter,
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.meter.row().add_closed();
    }
}
