//! Request bodies that the application receives as they arrive.

use std::fmt;
use std::panic::{self, AssertUnwindSafe};

use crate::server::answer::reader::Intake;
use crate::server::mailbox::ConnectionWaker;
use crate::sys::local::Local;

/// Receives the pieces of a body.
pub(crate) enum Receiver<T> {
    /// By a closure, which gets `None` at the end of the body, and returns the response then or earlier.
    ///
    /// It stays on the thread that has made it, the worker's, since what it owns may be bound to a thread.
    Closure(Local<Box<Take<T>>>),
    /// By a thread that reads them. The response is returned at the end of the body, or when the thread reads no more.
    Thread(Box<ByThread<T>>),
}

pub(crate) struct ByThread<T> {
    /// Dropped first: a thread that learns of the early end of the body must find that nobody waits for its response.
    answer: Option<T>,
    intake: Intake,
}

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
        Receiver::Closure(Local::new(Box::new(take)))
    }

    pub(crate) fn thread(intake: Intake, answer: T) -> Receiver<T> {
        Receiver::Thread(Box::new(ByThread { intake, answer: Some(answer) }))
    }

    pub(crate) fn take(&mut self, piece: Option<&[u8]>) -> Taken<T> {
        match (self, piece) {
            // It panics if the response was made on another thread.
            (Receiver::Closure(take), piece) => {
                match panic::catch_unwind(AssertUnwindSafe(|| (take.get_mut())(piece))) {
                    Ok(Some(answer)) => Taken::Answer(answer),
                    Ok(None) => Taken::More,
                    Err(panic) => Taken::Panicked(panic),
                }
            }
            (Receiver::Thread(by), Some(piece)) => {
                by.intake.push(piece);
                Taken::More
            }
            (Receiver::Thread(by), None) => {
                by.intake.end();
                by.answer()
            }
        }
    }

    /// Nothing more of the body has arrived. Returns the response if nobody wants the rest.
    pub(crate) fn give_up(&mut self) -> Taken<T> {
        match self {
            Receiver::Thread(by) if by.intake.is_abandoned() => by.answer(),
            _ => Taken::More,
        }
    }

    /// Checks whether the next piece may come. If not, `waker` will be called.
    pub(crate) fn check_room(&mut self, waker: &ConnectionWaker) -> bool {
        match self {
            Receiver::Closure(_) => true,
            Receiver::Thread(by) => by.intake.check_room(waker),
        }
    }

    /// Whether the next piece had to wait at the last check.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, Receiver::Thread(by) if by.intake.is_full())
    }

    /// Memory that is held for the client.
    pub(crate) fn held(&self) -> usize {
        match self {
            Receiver::Closure(_) => 0,
            Receiver::Thread(by) => by.intake.held(),
        }
    }
}

impl<T> ByThread<T> {
    fn answer(&mut self) -> Taken<T> {
        self.answer.take().map_or(Taken::More, Taken::Answer)
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}
