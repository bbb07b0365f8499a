//! Whether a connection of HTTP/1 is between two requests, so that another process can take it over. hyper does not
//! tell, so this observes what it does: it gives a request to the service, drops the body of the response once it is
//! all encoded, and flushes the socket once that is all written.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::Arc;
use std::task::{Context, Poll};

use http_body::{Body, Frame, SizeHint};

/// No request has come yet, and nothing was written.
const NEW: u8 = 0;
/// A request is being answered.
const BUSY: u8 = 1;
/// The response is encoded.
const ENCODED: u8 = 2;
/// The response is written.
const WRITTEN: u8 = 3;

/// What the service, the socket and the bodies of a connection share.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    stage: AtomicU8,
    /// Whether the connection stays with this worker for now.
    stays: AtomicBool,
    /// Whether it stays for good.
    is_fixed: AtomicBool,
    /// Whether hyper is to let go of the socket without shutting it down.
    is_leaving: AtomicBool,
}

impl Exchange {
    /// Of a connection that nobody else takes over, if `is_fixed`.
    pub(super) fn new(is_fixed: bool) -> Exchange {
        Exchange { is_fixed: is_fixed.into(), ..Exchange::default() }
    }

    /// A request begins. If it has a body, the application may read that after its response, and nobody can tell from
    /// outside where the next request begins. So the connection stays until the next request without one.
    pub(super) fn begins(&self, has_body: bool) {
        self.stays.store(has_body, Ordering::Relaxed);
        self.stage.store(BUSY, Ordering::Relaxed);
    }

    /// The connection changes its protocol, or may do so.
    pub(super) fn fix(&self) {
        self.is_fixed.store(true, Ordering::Relaxed);
    }

    /// Whether no other process can take it over after this request.
    pub(super) fn stays(&self) -> bool {
        self.is_fixed.load(Ordering::Relaxed) || self.stays.load(Ordering::Relaxed)
    }

    /// Whether its first request has not come yet.
    pub(super) fn is_new(&self) -> bool {
        self.stage.load(Ordering::Relaxed) == NEW
    }

    /// Something was written: an error perhaps, which is no response of the service.
    pub(super) fn sent(&self) {
        let _ = self.stage.compare_exchange(NEW, BUSY, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The socket was flushed.
    pub(super) fn flushed(&self) {
        // Only the body of the response, which is on its own thread perhaps, changes this meanwhile: to `ENCODED`.
        let _ = self.stage.compare_exchange(ENCODED, WRITTEN, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Whether it is between two requests or before the first, and another process can take it over.
    pub(super) fn can_leave(&self) -> bool {
        matches!(self.stage.load(Ordering::Relaxed), NEW | WRITTEN) && !self.stays()
    }

    pub(super) fn set_leaving(&self, is_leaving: bool) {
        self.is_leaving.store(is_leaving, Ordering::Relaxed);
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.is_leaving.load(Ordering::Relaxed)
    }
}

/// The body of a response.
#[derive(Debug)]
pub(super) struct Watched<B> {
    body: Pin<Box<B>>,
    exchange: Arc<Exchange>,
}

impl<B> Watched<B> {
    pub(super) fn new(body: B, exchange: Arc<Exchange>) -> Watched<B> {
        Watched { body: Box::pin(body), exchange }
    }
}

impl<B> Drop for Watched<B> {
    fn drop(&mut self) {
        self.exchange.stage.store(ENCODED, Ordering::Relaxed);
    }
}

impl<B: Body> Body for Watched<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.body.as_mut().poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
