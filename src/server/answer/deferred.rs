//! What is made later, on any thread, and waited for in the loop.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::server::answer::notice::Notices;
use crate::server::mailbox::Bell;

/// The side that makes it.
#[derive(Debug)]
pub(crate) struct Promise<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Promise<T> {
    /// Gives it, if it has not been given. The loop is woken; if nobody waits any more, nothing happens.
    pub(crate) fn keep(&self, answer: T) {
        let mut state = self.shared.lock();
        if let State::Open(bell) = &mut *state {
            let bell = bell.take();
            *state = State::Answered(Box::new(answer));
            drop(state);
            if let Some(bell) = bell {
                bell.ring();
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
            State::Answered(answer) => Some(*answer),
            State::Open(_) => {
                *state = State::Open(Some(bell()));
                None
            }
            State::Closed => None,
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
        if matches!(was, State::Open(_)) {
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
    Open(Option<Bell>),
    Answered(Box<T>),
    /// Nobody waits any more, or the answer has been taken.
    Closed,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn pair<T>(late: Option<(Duration, T)>) -> (Promise<T>, Pending<T>) {
    let shared = Arc::new(Shared { state: Mutex::new(State::Open(None)), notices: Notices::default() });
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
    fn nobody_is_told_after_the_answer() {
        let (promise, pending) = pair(None);
        promise.notices().gone.when(|| panic!("nobody has gone"));
        promise.keep(1);
        drop(pending);
        assert!(!promise.notices().gone.has_come());
    }
}
