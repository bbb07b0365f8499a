//! What is made later, on any thread, and waited for in the loop.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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

    /// Whether nobody waits for it.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(*self.shared.lock(), State::Gone)
    }
}

/// The loop's side.
#[derive(Debug)]
pub(crate) struct Pending<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Pending<T> {
    /// The answer, once there is one; before that, `bell` will be rung for it.
    pub(crate) fn take(&self, bell: impl FnOnce() -> Bell) -> Option<T> {
        let mut state = self.shared.lock();
        match std::mem::replace(&mut *state, State::Gone) {
            State::Answered(answer) => Some(*answer),
            State::Open(_) => {
                *state = State::Open(Some(bell()));
                None
            }
            State::Gone => None,
        }
    }
}

impl<T> Drop for Pending<T> {
    fn drop(&mut self) {
        *self.shared.lock() = State::Gone;
    }
}

#[derive(Debug)]
struct Shared<T>(Mutex<State<T>>);

#[derive(Debug)]
enum State<T> {
    /// Not answered; the bell is there once the connection waits.
    Open(Option<Bell>),
    Answered(Box<T>),
    /// The client has gone, or the answer has been taken.
    Gone,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn pair<T>() -> (Promise<T>, Pending<T>) {
    let shared = Arc::new(Shared(Mutex::new(State::Open(None))));
    (Promise { shared: Arc::clone(&shared) }, Pending { shared })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_promised_is_taken_once() {
        let (promise, pending) = pair();
        promise.keep(1);
        promise.keep(2);
        // Where it is there already, nobody is to be woken.
        assert_eq!(pending.take(|| panic!("the answer is there")), Some(1));
        assert_eq!(pending.take(|| panic!("the answer has been taken")), None);
    }
}
