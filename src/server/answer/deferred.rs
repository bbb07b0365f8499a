//! Responses that are made later, on any thread, and for which the loop waits.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::server::answer::notice::Notices;
use crate::server::mailbox::ConnectionWaker;

/// The number of bytes that may wait to be sent before a response.
const INTERIM_MAX: usize = 64 * 1024;

/// The side that makes the response.
#[derive(Debug)]
pub(crate) struct Promise<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Promise<T> {
    /// Delivers the response, if none was delivered yet, and wakes the loop. Does nothing if nobody waits any more.
    pub(crate) fn keep(&self, answer: T) {
        let mut state = self.shared.lock();
        if let State::Open { waker, interim } = &mut *state {
            let (waker, interim) = (waker.take(), std::mem::take(interim));
            *state = State::Answered { answer: Box::new(answer), interim };
            drop(state);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// Sends these bytes before the response, unless it was delivered, or too many bytes wait already.
    pub(crate) fn precede(&self, bytes: &[u8]) {
        let mut state = self.shared.lock();
        if let State::Open { waker, interim } = &mut *state {
            if interim.len() + bytes.len() <= INTERIM_MAX {
                interim.extend_from_slice(bytes);
                let waker = waker.take();
                drop(state);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
        }
    }

    /// The notices for the application about the connection.
    pub(crate) fn notices(&self) -> &Notices {
        &self.shared.notices
    }
}

/// The side of the loop.
#[derive(Debug)]
pub(crate) struct Pending<T> {
    shared: Arc<Shared<T>>,
    /// The timeout, and the response in that case.
    late: Option<Box<(Duration, T)>>,
}

impl<T> Pending<T> {
    /// Returns the response, if there is one. Otherwise `waker` will be called for it.
    pub(crate) fn take(&self, waker: impl FnOnce() -> ConnectionWaker) -> Option<T> {
        let mut state = self.shared.lock();
        match std::mem::replace(&mut *state, State::Closed) {
            State::Answered { answer, .. } => Some(*answer),
            State::Open { interim, .. } => {
                let waker = waker();
                // It may have arrived since the last check.
                let is_quiet = interim.is_empty();
                *state = State::Open { waker: is_quiet.then(|| waker.clone()), interim };
                drop(state);
                if !is_quiet {
                    waker.wake();
                }
                None
            }
            State::Closed => None,
        }
    }

    /// The bytes to send before the response, so far.
    pub(crate) fn take_interim(&self) -> Vec<u8> {
        match &mut *self.shared.lock() {
            State::Open { interim, .. } | State::Answered { interim, .. } => std::mem::take(interim),
            State::Closed => Vec::new(),
        }
    }

    /// Memory that is held for the client.
    pub(crate) fn held(&self) -> usize {
        match &*self.shared.lock() {
            State::Open { interim, .. } => interim.capacity(),
            _ => 0,
        }
    }

    pub(crate) fn notices(&self) -> &Notices {
        &self.shared.notices
    }

    /// The timeout that the application has set, if any.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.late.as_ref().map(|late| late.0)
    }

    /// The response after the timeout.
    pub(crate) fn take_late(&mut self) -> Option<T> {
        self.late.take().map(|late| late.1)
    }
}

impl<T> Drop for Pending<T> {
    fn drop(&mut self) {
        let was = std::mem::replace(&mut *self.shared.lock(), State::Closed);
        if matches!(was, State::Open { .. }) {
            self.shared.notices.gone.tell();
        }
    }
}

#[derive(Debug)]
struct Shared<T> {
    state: Mutex<State<T>>,
    notices: Notices,
}

#[derive(Debug)]
enum State<T> {
    /// No response yet. The waker exists once the connection waits.
    Open {
        waker: Option<ConnectionWaker>,
        /// The bytes to send before the response.
        interim: Vec<u8>,
    },
    Answered {
        answer: Box<T>,
        interim: Vec<u8>,
    },
    /// Nobody waits any more, or the response was taken.
    Closed,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn pair<T>(late: Option<(Duration, T)>) -> (Promise<T>, Pending<T>) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State::Open { waker: None, interim: Vec::new() }),
        notices: Notices::default(),
    });
    (Promise { shared: Arc::clone(&shared) }, Pending { shared, late: late.map(Box::new) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_promised_is_taken_once() {
        let (promise, pending) = pair(None);
        promise.keep(1);
        promise.keep(2);
        // If the response exists already, nobody must be woken.
        assert_eq!(pending.take(|| panic!("the answer is there")), Some(1));
        assert_eq!(pending.take(|| panic!("the answer has been taken")), None);
    }

    #[test]
    fn what_precedes_an_answer_is_bounded_and_taken_once() {
        let (promise, pending) = pair(None);
        promise.precede(b"a");
        promise.precede(&[b'x'; INTERIM_MAX]);
        promise.precede(b"b");
        promise.keep(1);
        promise.precede(b"c");
        assert_eq!(pending.take_interim(), b"ab");
        assert_eq!((pending.take_interim(), pending.take(|| panic!("it is there"))), (Vec::new(), Some(1)));
    }

    #[test]
    fn nobody_is_told_after_the_answer() {
        let (promise, pending) = pair(None);
        promise.notices().gone.when(|| panic!("nobody has gone"));
        promise.keep(1);
        drop(pending);
        assert!(!promise.notices().gone.has_come());
    }
}
