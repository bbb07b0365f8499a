//! Request bodies that the application receives as they arrive.

use std::fmt;
use std::panic::{self, AssertUnwindSafe};

/// Receives the pieces of a body, then `None` at its end. Returns the response, at the end or earlier.
pub(crate) struct Receiver<T>(Box<Take<T>>);

type Take<T> = dyn FnMut(Option<&[u8]>) -> Option<T> + Send;

/// The result of a piece.
pub(crate) enum Taken<T> {
    /// The next piece is wanted.
    More,
    Answer(T),
    Panicked(Box<dyn std::any::Any + Send>),
}

impl<T> Receiver<T> {
    pub(crate) fn new(take: impl FnMut(Option<&[u8]>) -> Option<T> + Send + 'static) -> Receiver<T> {
        Receiver(Box::new(take))
    }

    pub(crate) fn take(&mut self, piece: Option<&[u8]>) -> Taken<T> {
        match panic::catch_unwind(AssertUnwindSafe(|| (self.0)(piece))) {
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
