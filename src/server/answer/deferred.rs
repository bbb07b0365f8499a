//! What is made later, on any thread, and waited for in the loop.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::server::answer::notice::Notices;
use crate::server::mailbox::Bell;

/// Bytes that may wait to be sent before an answer.
const INTERIM_MAX: usize = 64 * 1024;

/// The side that makes it.
#[derive(Debug)]
pub(crate) struct Promise<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Promise<T> {
    /// Gives it, if it has not been given. The loop is woken; if nobody waits any more, nothing happens.
    pub(crate) fn keep(&self, answer: T) {
        let mut state = self.shared.lock();
        if let State::Open { bell, interim } = &mut *state {
            let (bell, interim) = (bell.take(), std::mem::take(interim));
            *state = State::Answered { answer: Box::new(answer), interim };
            drop(state);
            if let Some(bell) = bell {
                bell.ring();
            }
        }
    }

    /// Has these bytes sent before it, if it has not been given, unless too many wait already.
    pub(crate) fn precede(&self, bytes: &[u8]) {
        let mut state = self.shared.lock();
        if let State::Open { bell, interim } = &mut *state {
            if interim.len() + bytes.len() <= INTERIM_MAX {
                interim.extend_from_slice(bytes);
                let bell = bell.take();
                drop(state);
                if let Some(bell) = bell {
                    bell.ring();
                }
            }
        }
    }

    /// What is told of who waits for it.
    pub(crate) fn notices(&self) -> &Notices {
        &self.shared.notices
    }
}

/// The loop's side.
#[derive(Debug)]
pub(crate) struct Pending<T> {
    shared: Arc<Shared<T>>,
    /// How long it may take, and what stands in for it then.
    late: Option<Box<(Duration, T)>>,
}

impl<T> Pending<T> {
    /// The answer, once there is one; before that, `bell` will be rung for it.
    pub(crate) fn take(&self, bell: impl FnOnce() -> Bell) -> Option<T> {
        let mut state = self.shared.lock();
        match std::mem::replace(&mut *state, State::Closed) {
            State::Answered { answer, .. } => Some(*answer),
            State::Open { interim, .. } => {
                let bell = bell();
                // It may have come since that was looked for.
                let is_quiet = interim.is_empty();
                *state = State::Open { bell: is_quiet.then(|| bell.clone()), interim };
                drop(state);
                if !is_quiet {
                    bell.ring();
                }
                None
            }
            State::Closed => None,
        }
    }

    /// What is to be sent before it, as far as that is known.
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

    /// How long the application lets it take, if it has said so.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.late.as_ref().map(|late| late.0)
    }

    /// What stands in for it after that.
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
    /// Not answered; the bell is there once the connection waits.
    Open {
        bell: Option<Bell>,
        /// What is to be sent before it.
        interim: Vec<u8>,
    },
    Answered {
        answer: Box<T>,
        interim: Vec<u8>,
    },
    /// Nobody waits any more, or the answer has been taken.
    Closed,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn pair<T>(late: Option<(Duration, T)>) -> (Promise<T>, Pending<T>) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State::Open { bell: None, interim: Vec::new() }),
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
        // Where it is there already, nobody is to be woken.
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
