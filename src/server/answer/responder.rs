//! Responses that are made later, on any thread.

use crate::server::answer::deferred::{self, Promise};
use crate::server::answer::response::{Body, Response};
use crate::server::http::ResponseHead;

/// Makes the response that [`Response::deferred`] has promised.
///
/// It can be sent to any thread. Dropped without an answer, by a panic say, it answers 500: no client waits for ever.
#[derive(Debug)]
pub struct Responder(Promise<Response>);

impl Responder {
    /// Answers. The worker that holds the connection is woken and sends it; if the client has gone, nothing happens.
    pub fn respond(self, response: Response) {
        self.0.keep(response);
    }

    /// Whether the client has gone, so that the answer need not be made.
    pub fn is_gone(&self) -> bool {
        self.0.is_gone()
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        // Does nothing after an answer.
        self.0.keep(Response::text("the server failed to answer this request\n").status(500));
    }
}

impl Response {
    /// A response that is made later, on any thread: the handler returns this one at once, and the worker goes on with
    /// other connections. See [`Responder`].
    ///
    /// Requests that the client has pipelined behind it wait for it. It has no time-out of its own.
    ///
    /// ```
    /// # use forkpool::Response;
    /// let (responder, response) = Response::deferred();
    /// std::thread::spawn(move || responder.respond(Response::text("made elsewhere\n")));
    /// # drop(response);
    /// ```
    pub fn deferred() -> (Responder, Response) {
        let (promise, pending) = deferred::pair();
        (Responder(promise), Response { head: ResponseHead::new(200, None), body: Body::Deferred(pending) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::answer::deferred::Pending;
    use crate::server::mailbox::Bell;

    /// For a connection that does not wait, nobody is to be woken.
    fn no_bell() -> Bell {
        panic!("the answer is there")
    }

    fn pair() -> (Responder, Pending<Response>) {
        match Response::deferred() {
            (responder, Response { body: Body::Deferred(pending), .. }) => (responder, pending),
            (_, response) => panic!("{response:?} is there already"),
        }
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
