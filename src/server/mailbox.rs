//! How other threads wake a worker's loop: by naming a connection that has something to do.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use mio::Waker;

thread_local! {
    /// Whether this thread runs a loop.
    static IN_LOOP: Cell<bool> = const { Cell::new(false) };
}

/// Whether this is the thread of a worker's loop, which must not wait for what the loop does.
pub(crate) fn is_in_loop() -> bool {
    IN_LOOP.get()
}

/// Sets whether this thread runs a loop.
pub(crate) fn set_in_loop(is_in_loop: bool) {
    IN_LOOP.set(is_in_loop);
}

/// The connections that were named since the loop last checked.
#[derive(Debug)]
pub(crate) struct Mailbox {
    waker: Waker,
    places: Mutex<Vec<Place>>,
    /// The number of connections that the application has dropped, and the loop has not handled yet.
    given_back: AtomicUsize,
}

/// A connection: its place, and a number that distinguishes successive connections there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) index: usize,
    pub(crate) serial: u32,
}

impl Mailbox {
    pub(crate) fn new(waker: Waker) -> Mailbox {
        Mailbox { waker, places: Mutex::default(), given_back: AtomicUsize::new(0) }
    }

    /// Wakes the loop. Fails only if the loop has ended.
    pub(crate) fn wake(&self) {
        let _ = self.waker.wake();
    }

    /// The application has dropped a connection.
    pub(crate) fn give_back(&self) {
        self.given_back.fetch_add(1, Ordering::Relaxed);
        self.wake();
    }

    /// The number of dropped connections since the last call. Runs in the loop.
    pub(crate) fn take_given_back(&self) -> usize {
        self.given_back.swap(0, Ordering::Relaxed)
    }

    /// Runs in the loop.
    pub(crate) fn take(&self) -> Vec<Place> {
        std::mem::take(&mut *self.places.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Wakes the loop for one connection. Any thread may call it.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionWaker {
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) place: Place,
}

impl ConnectionWaker {
    pub(crate) fn wake(&self) {
        self.mailbox.places.lock().unwrap_or_else(PoisonError::into_inner).push(self.place);
        self.mailbox.wake();
    }
}
