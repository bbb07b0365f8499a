//! Responses that are made later, on any thread.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::server::answer::response::Response;
use crate::server::mailbox::Bell;

/// Makes the response that [`Response::deferred`] has promised.
///
/// It can be sent to any thread. Dropped without an answer, by a panic say, it answers 500: no client waits for ever.
#[derive(Debug)]
pub struct Responder {
    shared: Arc<Shared>,
}

impl Responder {
    /// Answers. The worker that holds the connection is woken and sends it; if the client has gone, nothing happens.
    pub fn respond(self, response: Response) {
        self.shared.answer(response);
    }

    /// Whether the client has gone, so that the answer need not be made.
    pub fn is_gone(&self) -> bool {
        matches!(*self.shared.lock(), State::Gone)
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        // Does nothing after an answer.
        self.shared.answer(Response::text("the server failed to answer this request\n").status(500));
    }
}

/// The loop's side.
#[derive(Debug)]
pub(crate) struct Pending {
    shared: Arc<Shared>,
}

impl Pending {
    /// The answer, once there is one; before that, `bell` will be rung for it.
    pub(crate) fn take(&self, bell: impl FnOnce() -> Bell) -> Option<Response> {
        let mut state = self.shared.lock();
        match std::mem::replace(&mut *state, State::Gone) {
            State::Answered(response) => Some(*response),
            State::Open(_) => {
                *state = State::Open(Some(bell()));
                None
            }
            State::Gone => None,
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        *self.shared.lock() = State::Gone;
    }
}

#[derive(Debug)]
struct Shared(Mutex<State>);

#[derive(Debug)]
enum State {
    /// Not answered; the bell is there once the connection waits.
    Open(Option<Bell>),
    Answered(Box<Response>),
    /// The client has gone, or the answer has been taken.
    Gone,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, response: Response) {
        let mut state = self.lock();
        if let State::Open(bell) = &mut *state {
            let bell = bell.take();
            *state = State::Answered(Box::new(response));
            drop(state);
            if let Some(bell) = bell {
                bell.ring();
            }
        }
    }
}

pub(crate) fn pair() -> (Responder, Pending) {
    let shared = Arc::new(Shared(Mutex::new(State::Open(None))));
    (Responder { shared: Arc::clone(&shared) }, Pending { shared })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For a connection that does not wait, nobody is to be woken.
    fn no_bell() -> Bell {
        panic!("the answer is there")
    }

    #[test]
    fn the_responder_learns_that_the_client_has_gone() {
        let (responder, pending) = pair();
        assert!(!responder.is_gone());
        drop(pending);
        assert!(responder.is_gone());
        responder.respond(Response::new(200));
    }

    #[test]
    fn an_answer_is_taken_once_and_dropping_the_responder_is_one() {
        let (responder, pending) = pair();
        responder.respond(Response::new(201));
        assert_eq!(pending.take(no_bell).map(|response| response.head.status), Some(201));
        assert!(pending.take(no_bell).is_none());
        let (responder, pending) = pair();
        drop(responder);
        assert_eq!(pending.take(no_bell).map(|response| response.head.status), Some(500));
    }
}
