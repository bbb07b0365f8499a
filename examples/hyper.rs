//! cargo run --example hyper: hyper in each worker, on a tokio runtime of one thread.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::{io, process, time::Duration};

use hyper::{body::Incoming, server::conn::http1, service::service_fn, Request, Response};
use hyper_util::{rt::TokioIo, server::graceful::GracefulShutdown};
use tokio::net::{TcpListener, UnixStream};
use tokio::{runtime::Builder, time::sleep};

static IS_DRAINING: AtomicBool = AtomicBool::new(false);

fn main() -> forkpool::Result<()> {
    env_logger::init();
    // The runtime is made in the worker: none survives a fork.
    let main = |worker: &_| Builder::new_current_thread().enable_all().build()?.block_on(serve(worker));
    forkpool::Pool::bind("127.0.0.1:8000").env().run(main)
}

async fn serve(worker: &forkpool::Worker) -> io::Result<()> {
    let listener = TcpListener::from_std(worker.listener()?)?;
    let shutdown = UnixStream::from_std(worker.shutdown()?)?;
    let (http, connections) = (http1::Builder::new(), GracefulShutdown::new());
    worker.ready()?;
    loop {
        tokio::select! {
            // What waits in the queue comes before the end.
            biased;
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let connection = http.serve_connection(TokioIo::new(stream), service_fn(answer));
                    tokio::spawn(connections.watch(connection));
                }
                // Out of descriptors, perhaps: some connection will end.
                Err(_) => sleep(Duration::from_millis(50)).await,
            },
            _ = shutdown.readable() => break,
        }
    }
    drop(listener);
    IS_DRAINING.store(true, Relaxed);
    // Hyper then closes idle and new connections, also those whose request is on its way. So clients are told to go
    // for a second first.
    sleep(Duration::from_secs(1)).await;
    connections.shutdown().await;
    Ok(())
}

async fn answer(request: Request<Incoming>) -> Result<Response<String>, hyper::http::Error> {
    if request.uri().path() == "/slow" {
        sleep(Duration::from_millis(300)).await;
    }
    let response = Response::builder().header("x-pid", process::id());
    let response = if IS_DRAINING.load(Relaxed) { response.header("connection", "close") } else { response };
    response.body("hello world\n".to_owned())
}
