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
    let (listener, shutdown) = (worker.listener()?, worker.shutdown()?);
    let (listener, shutdown) = (TcpListener::from_std(listener)?, UnixStream::from_std(shutdown)?);
    let connections = GracefulShutdown::new();
    worker.ready()?;
    loop {
        tokio::select! {
            biased;
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer));
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
    // This closes what is idle, a request on its way or not: before that, clients are told for a second.
    sleep(Duration::from_secs(1)).await;
    connections.shutdown().await;
    Ok(())
}

async fn answer(request: Request<Incoming>) -> Result<Response<String>, hyper::http::Error> {
    if request.uri().path() == "/slow" {
        sleep(Duration::from_millis(300)).await;
    }
    let response = Response::builder().header("x-pid", process::id());
    let is_draining = IS_DRAINING.load(Relaxed);
    let response = if is_draining { response.header("connection", "close") } else { response };
    response.body("hello world\n".to_owned())
}
