//! A connection, until its end.

use std::future::{poll_fn, Future};
use std::pin::pin;
use std::sync::Arc;

use http_body::Body;
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::spawn_local;
use tokio::time::sleep;
use tower_service::Service;

use super::service::{Adapted, Client};
use super::state::{draining, State};
use super::{BoxError, Call, GRACE};
use crate::sys::clock;

/// Serves a connection until it ends, or was given to the application.
pub(super) async fn serve<T, S, B>(socket: T, client: Client, service: S, state: Arc<State>)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Call, Response = http::Response<B>, Error: Into<BoxError>, Future: 'static> + Clone + 'static,
    B: Body<Error: Into<BoxError>> + 'static,
{
    let service = Adapted::new(service, client, Arc::clone(&state));
    let protocol = service.protocol();
    let builder = builder(&state);
    let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(socket), service));
    let mut leaving = pin!(async {
        draining().await;
        // GOAWAY says which requests were taken.
        if !protocol.is_http2() {
            sleep(GRACE).await;
        }
    });
    let mut is_told = false;
    // An error is that of a client: it has gone, or was too slow.
    let _ = poll_fn(|cx| {
        state.row().busy(clock::now());
        if !is_told && leaving.as_mut().poll(cx).is_ready() {
            is_told = true;
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(cx)
    })
    .await;
}

fn builder(state: &State) -> auto::Builder<Local> {
    let mut builder = auto::Builder::new(Local);
    let timeout = Some(state.head_timeout).filter(|timeout| !timeout.is_zero());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(timeout)
        // hyper refuses less than 8 KiB.
        .max_buf_size(state.max_head.max(8192))
        .max_headers(state.max_fields);
    builder.http2().timer(TokioTimer::new()).max_header_list_size(u32::try_from(state.max_head).unwrap_or(u32::MAX));
    builder
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
