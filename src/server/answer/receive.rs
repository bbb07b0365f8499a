//! Request bodies that the application receives as they arrive.

use std::fmt;
use std::panic::{self, AssertUnwindSafe};

use crate::sys::local::Local;

/// Receives the pieces of a body, then `None` at its end. Returns the response, at the end or earlier.
///
/// It stays on the thread that has made it, the worker's, since what it owns may be bound to a thread.
pub(crate) struct Receiver<T>(Local<Box<Take<T>>>);

type Take<T> = dyn FnMut(Option<&[u8]>) -> Option<T>;

/// The result of a piece.
pub(crate) enum Taken<T> {
    /// The next piece is wanted.
    More,
    Answer(T),
    Panicked(Box<dyn std::any::Any + Send>),
}

impl<T> Receiver<T> {
    pub(crate) fn new(take: impl FnMut(Option<&[u8]>) -> Option<T> + 'static) -> Receiver<T> {
        Receiver(Local::new(Box::new(take)))
    }

    pub(crate) fn take(&mut self, piece: Option<&[u8]>) -> Taken<T> {
        // It panics if the response was made on another thread.
        match panic::catch_unwind(AssertUnwindSafe(|| (self.0.get_mut())(piece))) {
            Ok(Some(answer)) => Taken::Answer(answer),
            Ok(None) => Taken::More,
            Err(panic) => Taken::Panicked(panic),
        }
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}
