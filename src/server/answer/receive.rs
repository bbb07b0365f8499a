//! Request bodies that the application takes as they come.

use std::fmt;
use std::panic::{self, AssertUnwindSafe};

use crate::server::answer::response::{Body, Response};

/// Takes the pieces of a body, `None` at its end; makes the response, at the end or before.
pub(crate) struct Receiver(Box<Take>);

type Take = dyn FnMut(Option<&[u8]>) -> Option<Response> + Send;

/// How a piece was taken.
pub(crate) enum Taken {
    /// The next one is wanted.
    More,
    Answer(Response),
    Panicked(Box<dyn std::any::Any + Send>),
}

impl Receiver {
    pub(crate) fn new(take: impl FnMut(Option<&[u8]>) -> Option<Response> + Send + 'static) -> Receiver {
        Receiver(Box::new(take))
    }

    pub(crate) fn take(&mut self, piece: Option<&[u8]>) -> Taken {
        match panic::catch_unwind(AssertUnwindSafe(|| (self.0)(piece))) {
            Ok(Some(response)) => Taken::Answer(response),
            // At the end there is nothing to wait for.
            Ok(None) if piece.is_none() => Taken::Answer(Response::text("the server failed to answer\n").status(500)),
            Ok(None) => Taken::More,
            Err(panic) => Taken::Panicked(panic),
        }
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}

impl Response {
    /// A response that is made from the request's body while that comes, in pieces as small or large as they are; for
    /// uploads in constant memory. The request has to be one that
    /// [`Worker::stream_bodies`](crate::Worker::stream_bodies) chooses; for others the body is there already, and is
    /// one piece.
    ///
    /// `take` runs in the worker, on its only thread, for each piece and then once with `None`, where it must give the
    /// response. It may give one before: then the rest of the body is not read, and the connection is closed. It is
    /// dropped without a `None` when the client goes before the end. Neither `max-body` nor a limit of its own bounds
    /// the body; count.
    ///
    /// A handler that returns another kind of response for such a request refuses the body: it is not read, and the
    /// connection is closed.
    ///
    /// ```
    /// # use forkpool::Response;
    /// let mut length = 0;
    /// let response = Response::receive(move |piece| match piece {
    ///     Some(piece) => {
    ///         length += piece.len();
    ///         None
    ///     }
    ///     None => Some(Response::text(format!("{length} bytes\n"))),
    /// });
    /// # drop(response);
    /// ```
    pub fn receive(take: impl FnMut(Option<&[u8]>) -> Option<Response> + Send + 'static) -> Response {
        Response { body: Body::Receive(Receiver::new(take)), ..Response::new(200) }
    }
}
