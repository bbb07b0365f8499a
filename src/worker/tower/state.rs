//! What the connections of a worker share.

use std::future::{poll_fn, Future};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::OnceLock;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{watch, Notify};
use tokio::time::sleep;

use super::GRACE;
use crate::shared::config::ServerConfig;
use crate::shared::scoreboard::{OwnRow, RowPage};
use crate::sys::clock;

/// Whether this process is to finish. A process is one worker at most.
static DRAINING: OnceLock<watch::Sender<bool>> = OnceLock::new();

fn is_over() -> &'static watch::Sender<bool> {
    DRAINING.get_or_init(|| watch::Sender::new(false))
}

/// Waits until this worker is to finish. For ever outside of [`Worker::serve_tower`](crate::Worker::serve_tower).
/// Feature `hyper`.
///
/// A task that has taken over a connection, such as a WebSocket, or that sends an endless body, should then end, since
/// the drain waits for its connection. [`is_draining`](crate::is_draining) tells the same without waiting.
///
/// ```
/// # async fn next_message() {}
/// # async fn close() {}
/// async fn talk() {
///     let mut draining = std::pin::pin!(forkpool::draining());
///     loop {
///         tokio::select! {
///             () = &mut draining => return close().await,
///             () = next_message() => {}
///         }
///     }
/// }
/// # drop(talk);
/// ```
pub async fn draining() {
    // The sender is never dropped.
    let _ = is_over().subscribe().wait_for(|is_over| *is_over).await;
}

/// Waits until clients that have not left by themselves are to be asked to.
pub(super) async fn grace_over() {
    draining().await;
    sleep(GRACE).await;
}

/// How long and how large the head of a request may be.
#[derive(Debug)]
pub(super) struct HeadLimits {
    pub(super) timeout: Duration,
    pub(super) bytes: usize,
    pub(super) fields: usize,
}

/// What the connections of a worker share.
#[derive(Debug)]
pub(super) struct State {
    page: RowPage,
    pub(super) tag: String,
    pub(super) max_connections: usize,
    pub(super) head: HeadLimits,
    exits_on_panic: bool,
    is_draining: AtomicBool,
    /// Whether handshakes wait for the next turn.
    defers: AtomicBool,
    /// Whether other processes take over the connections of a worker that is to finish.
    passes_on: AtomicBool,
    open: AtomicUsize,
    /// Notified when a connection has closed.
    closed: Notify,
    failed: Notify,
}

impl State {
    pub(super) fn new(page: RowPage, tag: String, config: &ServerConfig) -> State {
        State {
            page,
            tag,
            max_connections: config.capacity.max_connections,
            head: HeadLimits { timeout: config.timeouts.head, bytes: config.limits.head, fields: config.limits.fields },
            exits_on_panic: config.exits_on_panic(),
            is_draining: AtomicBool::new(false),
            defers: AtomicBool::new(false),
            passes_on: AtomicBool::new(false),
            open: AtomicUsize::new(0),
            closed: Notify::new(),
            failed: Notify::new(),
        }
    }

    pub(super) fn row(&self) -> OwnRow<'_> {
        self.page.row()
    }

    /// A connection has its turn. It restarts the time after which the worker hangs; but while handshakes wait for a
    /// turn, the worker stays busy since when it was, so that new connections avoid it.
    pub(super) fn works(&self) {
        match self.defers.load(Ordering::Relaxed) {
            true => self.row().goes_on(),
            false => self.row().busy(clock::now()),
        }
    }

    /// Tells whether handshakes wait for the next turn.
    #[cfg(feature = "hyper-tls")]
    pub(super) fn set_defers(&self, defers: bool) {
        self.defers.store(defers, Ordering::Relaxed);
    }

    /// Counts responses that took this number of microseconds, if an admin process wants to know.
    pub(super) fn count_latency(&self, micros: u64) {
        if let Some(latency) = self.page.latency() {
            latency.count(1, micros);
        }
    }

    /// From now on, connections are passed on, or their clients are asked to leave.
    pub(super) fn drain(&self, passes_on: bool) {
        self.passes_on.store(passes_on, Ordering::Relaxed);
        self.is_draining.store(true, Ordering::Relaxed);
        is_over().send_replace(true);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    pub(super) fn passes_on(&self) -> bool {
        self.passes_on.load(Ordering::Relaxed)
    }

    pub(super) fn opened(&self) {
        self.row().add_accepted();
        let open = 1 + self.open.fetch_add(1, Ordering::Relaxed);
        if open == self.max_connections {
            self.row().set_full(true);
        }
    }

    /// Runs on any thread, since the application may have taken over the connection.
    pub(super) fn closed(&self) {
        self.row().add_closed();
        let was_open = self.open.fetch_sub(1, Ordering::Relaxed);
        if was_open == self.max_connections {
            self.row().set_full(false);
        }
        // Accepting tasks and the drain may wait at the same time; one that comes late finds the number.
        self.closed.notify_waiters();
    }

    /// Waits until there is room for another connection.
    pub(super) async fn room(&self) {
        self.until(|open| self.max_connections == 0 || open < self.max_connections).await;
    }

    /// Waits until no connection is open.
    pub(super) async fn all_closed(&self) {
        self.until(|open| open == 0).await;
    }

    async fn until(&self, holds: impl Fn(usize) -> bool) {
        loop {
            let mut closed = pin!(self.closed.notified());
            // Registers before the number is read.
            closed.as_mut().enable();
            if holds(self.open.load(Ordering::Relaxed)) {
                return;
            }
            closed.await;
        }
    }

    /// The result of a future, or `None` if it takes longer than a client may take to send a request head.
    pub(super) async fn within_head_timeout<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        match self.head.timeout.is_zero() {
            true => Some(future.await),
            false => tokio::time::timeout(self.head.timeout, future).await.ok(),
        }
    }

    /// A handler has panicked.
    pub(super) fn panicked(&self) {
        self.row().count_panic();
        if self.exits_on_panic {
            self.failed.notify_one();
        }
    }

    /// The result of a future, or `None` if a panic ends the worker before.
    pub(super) async fn unless_failed<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        unless(future, self.failed.notified()).await
    }
}

/// The result of a future, or `None` if the other one ends before.
pub(super) async fn unless<T>(future: impl Future<Output = T>, end: impl Future<Output = ()>) -> Option<T> {
    let (mut future, mut end) = (pin!(future), pin!(end));
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(result) => Poll::Ready(Some(result)),
        Poll::Pending => end.as_mut().poll(cx).map(|()| None),
    })
    .await
}
