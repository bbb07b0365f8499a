//! Request bodies that the application takes as they come.

use std::fmt;
use std::panic::{self, AssertUnwindSafe};

/// Takes the pieces of a body, `None` at its end; makes the answer, at the end or before.
pub(crate) struct Receiver<T>(Box<Take<T>>);

type Take<T> = dyn FnMut(Option<&[u8]>) -> Option<T> + Send;

/// How a piece was taken.
pub(crate) enum Taken<T> {
    /// The next one is wanted.
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
