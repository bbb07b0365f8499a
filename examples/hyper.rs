//! cargo run --example hyper: hyper in each worker, on a tokio runtime of one thread.

use std::{io, process, time::Duration};

use hyper::{body::Incoming, server::conn::http1, service::service_fn, Request, Response};
use hyper_util::{rt::TokioIo, server::graceful::GracefulShutdown};
use tokio::{net::TcpListener, net::UnixStream, time::sleep};

fn main() -> forkpool::Result<()> {
    env_logger::init();
    forkpool::Pool::bind("127.0.0.1:8000").env().run(serve)
}

// Start the runtime in the worker: no thread survives a fork.
#[tokio::main(flavor = "current_thread")]
async fn serve(worker: &forkpool::Worker) -> io::Result<()> {
    let listener = TcpListener::from_std(worker.take_listener()?)?;
    let shutdown = UnixStream::from_std(worker.shutdown_signal()?)?;
    let connections = GracefulShutdown::new();
    let http = |stream| http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer));
    worker.ready()?;
    loop {
        tokio::select! {
            // Accept the queued connections before stopping.
            biased;
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => _ = tokio::spawn(connections.watch(http(stream))),
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

async fn answer(request: Request<Incoming>) -> Result<Response<String>, hyper::http::Error> {
    if request.uri().path() == "/slow" {
        sleep(Duration::from_millis(300)).await;
    }
    let response = Response::builder().header("x-pid", process::id());
    let response = if forkpool::is_draining() { response.header("connection", "close") } else { response };
    response.body("hello world\n".to_owned())
}
