//! A connection, until its end.

use std::future::{poll_fn, Future};
use std::pin::{pin, Pin};
use std::sync::Arc;
use std::task::Poll;

use http_body::Body;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::spawn_local;
use tokio::time::sleep;
use tower_service::Service;

use super::exchange::Exchange;
use super::service::{Adapted, Client};
use super::socket::{Socket, Version};
use super::state::{draining, grace_over, unless, State};
use super::{BoxError, Call, GRACE};

/// A connection that is between two requests, and that another process can take over.
#[derive(Debug)]
pub(super) struct Leaver {
    pub(super) socket: Socket,
    pub(super) client: Client,
    pub(super) is_new: bool,
}

/// Serves a connection until it ends or the application takes it over. Returns it if it is to be passed on, which it
/// never is if it `stays`.
pub(super) async fn serve<S, B>(
    mut socket: Socket,
    client: Client,
    service: S,
    state: Arc<State>,
    stays: bool,
) -> Option<Leaver>
where
    S: Service<Call, Response = http::Response<B>, Error: Into<BoxError>, Future: 'static> + Clone + 'static,
    B: Body<Error: Into<BoxError>> + 'static,
{
    let passes_on = || state.passes_on() && !stays;
    let leaving = async {
        draining().await;
        if !passes_on() {
            sleep(GRACE).await;
        }
    };
    let version = async { state.within_head_timeout(socket.version()).await.unwrap_or(Ok(None)) };
    // An error is that of a client: it has gone, or was too slow.
    match unless(version, leaving).await {
        Some(Ok(Some(Version::Http1))) => serve_http1(socket, client, service, state, stays).await,
        Some(Ok(Some(Version::Http2))) => {
            serve_http2(socket, client, service, state).await;
            None
        }
        Some(Ok(None) | Err(_)) => None,
        None => passes_on().then_some(Leaver { socket, client, is_new: true }),
    }
}

async fn serve_http1<S, B>(
    mut socket: Socket,
    client: Client,
    service: S,
    state: Arc<State>,
    stays: bool,
) -> Option<Leaver>
where
    S: Service<Call, Response = http::Response<B>, Error: Into<BoxError>, Future: 'static> + Clone + 'static,
    B: Body<Error: Into<BoxError>> + 'static,
{
    let exchange = Arc::new(Exchange::new(stays));
    socket.set_exchange(&exchange);
    let service = Adapted::new(service, client.clone(), Arc::clone(&exchange), Arc::clone(&state));
    let mut connection = http1(&state).serve_connection(TokioIo::new(socket), service).with_upgrades();
    let mut leaving = pin!(draining());
    let mut grace_over = pin!(grace_over());
    let (mut is_leaving, mut is_shutting_down) = (false, false);
    let is_passed_on = poll_fn(|cx| {
        state.works();
        is_leaving |= !is_leaving && leaving.as_mut().poll(cx).is_ready();
        let passes_on = is_leaving && state.passes_on();
        if !is_shutting_down && grace_over.as_mut().poll(cx).is_ready() {
            is_shutting_down = true;
            // Others are passed on once they are answered.
            if !passes_on || exchange.stays() {
                Pin::new(&mut connection).graceful_shutdown();
            }
        }
        if Pin::new(&mut connection).poll(cx).is_ready() {
            return Poll::Ready(false);
        }
        if !passes_on || !exchange.can_leave() {
            return Poll::Pending;
        }
        if exchange.is_new() {
            return Poll::Ready(true);
        }
        // hyper lets go of an idle connection at once, and of no other.
        exchange.set_leaving(true);
        Pin::new(&mut connection).graceful_shutdown();
        match Pin::new(&mut connection).poll(cx) {
            Poll::Ready(result) => Poll::Ready(result.is_ok()),
            Poll::Pending => {
                exchange.set_leaving(false);
                exchange.fix();
                Poll::Pending
            }
        }
    })
    .await;
    let parts = connection.into_parts().filter(|_| is_passed_on)?;
    let mut socket = parts.io.into_inner();
    socket.put_back(&parts.read_buf);
    Some(Leaver { socket, client, is_new: exchange.is_new() })
}

fn http1(state: &State) -> http1::Builder {
    let mut builder = http1::Builder::new();
    let timeout = Some(state.head.timeout).filter(|timeout| !timeout.is_zero());
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(timeout)
        // hyper refuses less than 8 KiB.
        .max_buf_size(state.head.bytes.max(8192))
        .max_headers(state.head.fields);
    builder
}

/// Serves a connection with TLS until it ends or the application takes it over. Only this process has its keys, so it
/// is not passed on.
#[cfg(feature = "hyper-tls")]
pub(super) async fn serve_secured<T, S, B>(socket: T, client: Client, service: S, state: Arc<State>)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Call, Response = http::Response<B>, Error: Into<BoxError>, Future: 'static> + Clone + 'static,
    B: Body<Error: Into<BoxError>> + 'static,
{
    if client.tls.as_ref().is_some_and(|tls| tls.alpn() == Some(b"h2")) {
        return serve_http2(socket, client, service, state).await;
    }
    let service = Adapted::new(service, client, Arc::new(Exchange::new(true)), Arc::clone(&state));
    let connection = http1(&state).serve_connection(TokioIo::new(socket), service).with_upgrades();
    until_end(connection, grace_over(), |connection| connection.graceful_shutdown(), &state).await;
}

/// Until its end. GOAWAY says which requests were taken, so no connection is passed on, nor does it have to wait.
async fn serve_http2<T, S, B>(socket: T, client: Client, service: S, state: Arc<State>)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Call, Response = http::Response<B>, Error: Into<BoxError>, Future: 'static> + Clone + 'static,
    B: Body<Error: Into<BoxError>> + 'static,
{
    let service = Adapted::new(service, client, Arc::default(), Arc::clone(&state));
    let mut builder = http2::Builder::new(Local);
    builder.timer(TokioTimer::new()).max_header_list_size(u32::try_from(state.head.bytes).unwrap_or(u32::MAX));
    let connection = builder.serve_connection(TokioIo::new(socket), service);
    until_end(connection, draining(), |connection| connection.graceful_shutdown(), &state).await;
}

/// Serves a connection until its end. Once `leaving` is over, `shut_down` asks it to end.
async fn until_end<C: Future>(
    connection: C,
    leaving: impl Future<Output = ()>,
    shut_down: impl Fn(Pin<&mut C>),
    state: &State,
) {
    let (mut connection, mut leaving) = (pin!(connection), pin!(leaving));
    let mut is_shutting_down = false;
    poll_fn(|cx| {
        state.works();
        if !is_shutting_down && leaving.as_mut().poll(cx).is_ready() {
            is_shutting_down = true;
            shut_down(connection.as_mut());
        }
        connection.as_mut().poll(cx).map(drop)
    })
    .await;
}

/// Runs the streams of HTTP/2 on the worker's only thread.
#[derive(Clone, Copy, Debug)]
struct Local;

impl<F> Executor<F> for Local
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, future: F) {
        spawn_local(future);
    }
}
