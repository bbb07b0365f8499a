//! The service as hyper calls it.

use std::future::{poll_fn, Future};
use std::net::SocketAddr;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use http::header::{HeaderValue, CONNECTION};
use http::{Method, Request, Response, Version};
use hyper::body::{Body, Incoming};
use log::error;
use tower_service::Service;

use super::exchange::{Exchange, Watched};
use super::state::State;
use super::BoxError;
use crate::server::http::TlsInfo;
use crate::shared::log_text::panic_message;
use crate::sys::clock;

/// Counts requests, tells clients to leave while the worker drains, and catches panics.
#[derive(Clone, Debug)]
pub(super) struct Adapted<S> {
    service: S,
    client: Client,
    exchange: Arc<Exchange>,
    state: Arc<State>,
}

/// What each request of a connection says about its client, as extensions.
#[derive(Clone, Debug, Default)]
pub(super) struct Client {
    pub(super) peer: Option<SocketAddr>,
    pub(super) tls: Option<TlsInfo>,
}

// It is never pinned.
impl<S> Unpin for Adapted<S> {}

impl<S> Adapted<S> {
    pub(super) fn new(service: S, client: Client, exchange: Arc<Exchange>, state: Arc<State>) -> Adapted<S> {
        Adapted { service, client, exchange, state }
    }
}

impl<S, B> hyper::service::Service<Request<Incoming>> for Adapted<S>
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + 'static,
    S::Error: Into<BoxError>,
    S::Future: 'static,
    B: 'static,
{
    type Response = Response<Watched<B>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>>>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let (state, began) = (Arc::clone(&self.state), clock::now_micros());
        state.row().count_request();
        let version = request.version();
        let exchange = Arc::clone(&self.exchange);
        exchange.begins(!request.body().is_end_stream());
        if request.method() == Method::CONNECT {
            exchange.fix();
        }
        if let Some(peer) = self.client.peer {
            request.extensions_mut().insert(peer);
        }
        if let Some(tls) = &self.client.tls {
            request.extensions_mut().insert(tls.clone());
        }
        let name = format!("{} {}", request.method(), request.uri().path());
        let mut service = self.service.clone();
        let mut answering = Box::pin(async move {
            poll_fn(|cx| service.poll_ready(cx)).await?;
            service.call(request).await
        });
        Box::pin(async move {
            let answered = poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| answering.as_mut().poll(cx))) {
                Ok(polled) => polled.map(|result| result.map_err(Into::into)),
                Err(panic) => {
                    error!("{} panicked in {name}: {}", state.tag, panic_message(&*panic));
                    state.panicked();
                    Poll::Ready(Err("the handler has panicked".into()))
                }
            });
            let mut response = answered.await?;
            state.row().count_response(response.status().as_u16());
            state.count_latency(clock::now_micros().saturating_sub(began));
            if response.status().is_informational() {
                exchange.fix();
            } else if state.is_draining() && version < Version::HTTP_2 && (exchange.stays() || !state.passes_on()) {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response.map(|body| Watched::new(body, exchange)))
        })
    }
}
