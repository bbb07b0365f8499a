//! cargo run --example axum: axum in each worker, on a tokio runtime of one thread.

use std::{io, process, time::Duration};

use axum::response::{IntoResponse, Response};
use axum::{middleware::map_response, routing::get, serve::Listener, Router};
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, server::graceful::GracefulShutdown, service::TowerToHyperService};
use tokio::{net::TcpListener, net::UnixStream, time::sleep};

fn main() -> forkpool::Result<()> {
    env_logger::init();
    forkpool::Pool::bind("127.0.0.1:8000").env().run(serve)
}

// Start the runtime in the worker: no thread survives a fork.
#[tokio::main(flavor = "current_thread")]
async fn serve(worker: &forkpool::Worker) -> io::Result<()> {
    let app = Router::new().route("/", get("hello world\n")).route("/slow", get(|| sleep(Duration::from_millis(300))));
    let app = TowerToHyperService::new(app.layer(map_response(tell)));
    let mut listener = TcpListener::from_std(worker.take_listener()?)?;
    let shutdown = UnixStream::from_std(worker.shutdown_signal()?)?;
    let connections = GracefulShutdown::new();
    let http = |stream| http1::Builder::new().serve_connection(TokioIo::new(stream), app.clone());
    worker.ready()?;
    loop {
        tokio::select! {
            // Accept the queued connections before stopping.
            biased;
            (stream, _) = Listener::accept(&mut listener) => {
                tokio::spawn(connections.watch(http(stream)));
            }
            _ = shutdown.readable() => break,
        }
    }
    drop(listener);
    // The shutdown closes idle and new connections, even if a request is on its way. So ask clients to leave for a
    // second first, which `axum::serve` would not do.
    sleep(Duration::from_secs(1)).await;
    connections.shutdown().await;
    Ok(())
}

async fn tell(response: Response) -> impl IntoResponse {
    let close = forkpool::is_draining().then_some([("connection", "close")]);
    ([("x-pid", process::id().to_string())], close, response)
}
