//! How a server of the application's own tells what it does, so that the kernel can be told whom to choose.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::Arc;

use crate::shared::channel::Waking;
use crate::shared::scoreboard::{OwnRow, RowPage};
use crate::sys::clock;

/// Tells what a worker with a server of its own is doing: [`Worker::meter`](crate::Worker::meter).
///
/// The built-in server tells all this by itself. Without it another server is judged by whether connections wait in its
/// queue. It may be cloned, and used from every thread of the worker.
#[derive(Clone, Debug)]
pub struct Meter {
    page: RowPage,
    waking: Waking,
    /// The rest of the parent in which it was woken, as one more than its number.
    woken: Arc<AtomicU64>,
    /// How many requests are being worked on.
    depth: Arc<AtomicUsize>,
}

impl Meter {
    pub(crate) fn new(page: RowPage, waking: Waking) -> Meter {
        page.row().set_metered();
        Meter { page, waking, woken: Arc::default(), depth: Arc::default() }
    }

    /// Counts a request, and says that the worker is busy until what this returns is dropped. New connections are led
    /// around it when that takes more than a millisecond or two, and the stall time-out counts from here.
    ///
    /// Hold it while a thread computes or blocks, not while it waits in an event loop.
    pub fn busy(&self) -> BusyGuard {
        self.row().add_request();
        self.depth.fetch_add(1, Ordering::Relaxed);
        self.row().busy(clock::now());
        if let Some(rest) = self.page.board().rest() {
            if self.woken.swap(rest + 1, Ordering::Relaxed) != rest + 1 {
                self.waking.awake();
            }
        }
        BusyGuard { meter: self.clone() }
    }

    /// Counts a connection, which is open until what this returns is dropped.
    pub fn connection(&self) -> ConnectionGuard {
        self.row().add_accepted();
        ConnectionGuard { meter: self.clone() }
    }

    fn row(&self) -> OwnRow<'_> {
        self.page.row()
    }
}

/// A request that is being worked on: [`Meter::busy`].
#[derive(Debug)]
#[must_use = "the worker is busy until this is dropped"]
pub struct BusyGuard {
    meter: Meter,
}

impl Drop for BusyGuard {
    fn drop(&mut self) {
        match self.meter.depth.fetch_sub(1, Ordering::Relaxed) {
            1 => self.meter.row().idle(),
            // Another thread is still at work, but something was done.
            _ => self.meter.row().busy(clock::now()),
        }
    }
}

/// A connection that is open: [`Meter::connection`].
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
