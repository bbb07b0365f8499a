//! FORKPOOL_TLS_CERTIFICATE=chain.pem FORKPOOL_TLS_KEY=key.pem cargo run --example https: axum with tokio-rustls, in a
//! server of your own. Clients resume their sessions with any worker: the configuration has the pool's session tickets.
//! With the feature hyper-tls, `serve_tower` does all of this.

use std::{io, process, time::Duration};

use axum::{middleware::map_response, response::Response, routing::get, Router};
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, rt::TokioTimer, server::graceful::GracefulShutdown, service::TowerToHyperService};
use tokio::{net::TcpListener, net::UnixStream, time::sleep, time::timeout};
use tokio_rustls::TlsAcceptor;

/// How long a client may take for its handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

fn main() -> forkpool::Result<()> {
    env_logger::init();
    forkpool::Pool::bind_tls("127.0.0.1:8443").env().run(serve)
}

// Start the runtime in the worker: no thread survives a fork.
#[tokio::main(flavor = "current_thread")]
async fn serve(worker: &forkpool::Worker) -> io::Result<()> {
    let listener = TcpListener::from_std(worker.take_listener()?)?;
    let shutdown = UnixStream::from_std(worker.shutdown_signal()?)?;
    let tls = TlsAcceptor::from(worker.tls_config().ok_or_else(|| io::Error::other("the pool has no certificate"))?);
    let connections = GracefulShutdown::new();
    let slow = || async { sleep(Duration::from_millis(300)).await };
    let app = Router::new().route("/", get("hello world\n")).route("/slow", get(slow)).layer(map_response(mark));
    let service = TowerToHyperService::new(app);
    worker.ready()?;
    loop {
        tokio::select! {
            // Accept the queued connections before stopping.
            biased;
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let (handshake, service, watcher) = (tls.accept(stream), service.clone(), connections.watcher());
                    tokio::spawn(async move {
                        // Who goes, or is too slow, gets no connection.
                        let Ok(Ok(stream)) = timeout(HANDSHAKE_TIMEOUT, handshake).await else { return };
                        let http = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
                        let _ = watcher.watch(http).await;
                    });
                }
                // Perhaps no descriptor is free; wait for a connection to end.
                Err(_) => sleep(Duration::from_millis(50)).await,
            },
            _ = shutdown.readable() => break,
        }
    }
    drop(listener);
    // The shutdown closes idle and new connections, even if a request is on its way. So ask clients to leave for a
    // second first.
    sleep(Duration::from_secs(1)).await;
    connections.shutdown().await;
    Ok(())
}

async fn mark(mut response: Response) -> Response {
    response.headers_mut().insert("x-pid", process::id().into());
    if forkpool::is_draining() {
        response.headers_mut().insert("connection", "close".parse().expect("a value"));
    }
    response
}
