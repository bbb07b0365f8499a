//! Responses that are made later, on any thread.

use std::time::Duration;

use crate::server::answer::deferred::{self, Promise};
use crate::server::answer::reader::{self, BodyReader};
use crate::server::answer::receive::Receiver;
use crate::server::answer::response::{Body, Response};
use crate::server::http::{early_hints, InvalidHeader, ResponseHead};

/// Makes the response promised by [`Response::deferred`].
///
/// It can be sent to any thread. If it is dropped without a response, for example in a panic, it responds with 500, so
/// that no client waits for ever.
#[derive(Debug)]
#[must_use = "dropped without a response, it responds with 500"]
pub struct Responder(Promise<Response>);

impl Responder {
    /// Sends the response. Wakes the worker with the connection, which sends it. Does nothing if the client no longer
    /// waits for it.
    pub fn respond(self, response: Response) {
        self.0.keep(response);
    }

    /// Sends hints before the response: status 103 with these fields, usually Link (RFC 8297). A browser can then load
    /// what the page will need while the page is made. May be called repeatedly; up to 64 KiB of hints can wait to be
    /// sent.
    ///
    /// Clients of HTTP/1.0 get none. Old clients of HTTP/1.1 and proxies may take the 103 for the response, so send
    /// hints only to clients that understand them: browsers send `Sec-Fetch-Mode: navigate`.
    ///
    /// ```
    /// # use forkpool::Response;
    /// # fn main() -> Result<(), forkpool::InvalidHeader> {
    /// let (responder, response) = Response::deferred();
    /// responder.early_hints(&[("Link", "</style.css>; rel=preload; as=style")])?;
    /// std::thread::spawn(move || responder.respond(Response::html("<link rel=stylesheet href=style.css>")));
    /// # drop(response);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Response::try_header`]; nothing is sent then.
    pub fn early_hints(&self, fields: &[(&str, &str)]) -> Result<(), InvalidHeader> {
        self.0.precede(&early_hints(fields)?);
        Ok(())
    }

    /// Whether the response is no longer needed, because the client has closed the connection or a timeout has
    /// responded.
    ///
    /// A client that only shuts down its sending side, to mark the end of its requests, looks the same at first. So a
    /// response within five seconds is still sent, and then the connection is closed. If such clients must wait for
    /// longer, see [`half_close`](crate::Builder::half_close).
    pub fn is_gone(&self) -> bool {
        self.0.notices().gone.has_come()
    }

    /// Runs `hook` as soon as [`is_gone`](Responder::is_gone) is true, or at once if it is already. Runs it once at
    /// most, and never after the response. The hook runs on the worker's only thread; send a message from it, or set a
    /// flag.
    ///
    /// ```
    /// # use forkpool::Response;
    /// let (responder, response) = Response::deferred();
    /// let (cancel, cancelled) = std::sync::mpsc::channel();
    /// responder.on_gone(move || _ = cancel.send(()));
    /// std::thread::spawn(move || {
    ///     for _piece_of_work in 0..100 {
    ///         if cancelled.try_recv().is_ok() {
    ///             return;
    ///         }
    ///     }
    ///     responder.respond(Response::text("done\n"));
    /// });
    /// # drop(response);
    /// ```
    pub fn on_gone(&self, hook: impl FnOnce() + Send + 'static) {
        self.0.notices().gone.when(hook);
    }

    /// Whether the worker drains and waits for this response. A response that only waits for an event (long polling)
    /// should be sent now, so that the client asks another worker.
    pub fn is_draining(&self) -> bool {
        self.0.notices().drain.has_come()
    }

    /// Runs `hook` as soon as [`is_draining`](Responder::is_draining) is true, in the same way as
    /// [`on_gone`](Responder::on_gone).
    pub fn on_drain(&self, hook: impl FnOnce() + Send + 'static) {
        self.0.notices().drain.when(hook);
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        // Does nothing after a response.
        self.0.keep(Response::text("the server failed to answer this request\n").status(500));
    }
}

impl Response {
    /// A response that is made later, on any thread. The handler returns it at once, and the worker serves other
    /// connections meanwhile. See [`Responder`].
    ///
    /// Requests that the client has pipelined after this one wait for it. If it takes longer than
    /// [`answer_timeout`](crate::Builder::answer_timeout), the client gets 504.
    ///
    /// ```
    /// # use forkpool::Response;
    /// let (responder, response) = Response::deferred();
    /// std::thread::spawn(move || responder.respond(Response::text("made elsewhere\n")));
    /// # drop(response);
    /// ```
    pub fn deferred() -> (Responder, Response) {
        Response::promised(None)
    }

    /// As [`deferred`](Response::deferred), with its own timeout and the response that the client gets then. Use it if
    /// a timeout is no failure, as in long polling.
    ///
    /// ```
    /// # use forkpool::Response;
    /// # use std::time::Duration;
    /// let (responder, response) = Response::deferred_within(Duration::from_secs(50), Response::new(204));
    /// # drop((responder, response));
    /// ```
    pub fn deferred_within(timeout: Duration, otherwise: Response) -> (Responder, Response) {
        Response::promised(Some((timeout, otherwise)))
    }

    /// Makes a response that is made later, by a thread that reads the request's body as it arrives, for parsers that
    /// take a [`Read`](std::io::Read). The request must be chosen by
    /// [`Worker::stream_bodies`](crate::Worker::stream_bodies); the body of any other request has already arrived.
    ///
    /// If the thread reads slowly, the client must wait. The response is sent at the end of the body, or once the
    /// reader was dropped; the rest of the body is then not read, and the connection is closed. The size of the body is
    /// not limited, not even by `max-body`: limit it by [`take`](std::io::Read::take). If the thread pauses, or takes
    /// for the response after the body, longer than [`answer_timeout`](crate::Builder::answer_timeout), the client gets
    /// 504.
    ///
    /// ```
    /// use std::io::{self, BufRead};
    /// use std::thread;
    ///
    /// use forkpool::{Request, Response};
    ///
    /// fn handle(_request: &Request<'_>) -> Response {
    ///     let (body, responder, response) = Response::read_body();
    ///     thread::spawn(move || responder.respond(count(body).unwrap_or_else(|_| Response::new(400))));
    ///     response
    /// }
    ///
    /// fn count(body: impl BufRead) -> io::Result<Response> {
    ///     let lines = body.lines().collect::<io::Result<Vec<_>>>()?.len();
    ///     Ok(Response::text(format!("{lines} lines\n")))
    /// }
    ///
    /// // A unit test calls the function that reads. Only a server gives a BodyReader its bytes: without one, reading
    /// // waits until the response is dropped, and then fails as if the client had gone.
    /// assert_eq!(count(&b"one\ntwo\n"[..])?.body_bytes(), Some(&b"2 lines\n"[..]));
    /// # drop(handle(&Request::builder("POST", "/").build()));
    /// # Ok::<(), io::Error>(())
    /// ```
    pub fn read_body() -> (BodyReader, Responder, Response) {
        let (responder, answer) = Response::deferred();
        let (reader, intake) = reader::pair();
        let receiver = Receiver::thread(intake, answer);
        (reader, responder, Response { body: Body::Receive(receiver), ..Response::new(200) })
    }

    fn promised(late: Option<(Duration, Response)>) -> (Responder, Response) {
        let (promise, pending) = deferred::pair(late);
        (Responder(promise), Response { head: ResponseHead::new(200, None), body: Body::Deferred(pending) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::answer::deferred::Pending;
    use crate::server::mailbox::ConnectionWaker;

    /// A connection that does not wait needs no wake-up.
    fn no_waker() -> ConnectionWaker {
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
        assert_eq!(pending.take(no_waker).map(|response| response.head.status), Some(201));
        assert!(pending.take(no_waker).is_none());
        let (responder, pending) = pair();
        drop(responder);
        assert_eq!(pending.take(no_waker).map(|response| response.head.status), Some(500));
    }
}
