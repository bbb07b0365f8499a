//! cargo run --example smol: hyper on smol in each worker, with one thread for its connections.

use std::{io, process, time::Duration};

use hyper::{body::Incoming, server::conn::http1, service::service_fn, Request, Response};
use hyper_util::server::graceful::GracefulShutdown;
use smol::{future::or, net::TcpListener, Async, LocalExecutor, Timer};
use smol_hyper::rt::FuturesIo;

fn main() -> forkpool::Result<()> {
    env_logger::init();
    forkpool::Pool::bind("127.0.0.1:8000").env().run(|worker| {
        // In the worker, like the thread that smol starts: no thread survives a fork.
        let executor = LocalExecutor::new();
        smol::block_on(executor.run(serve(worker, &executor)))
    })
}

async fn serve(worker: &forkpool::Worker, executor: &LocalExecutor<'_>) -> io::Result<()> {
    let (listener, shutdown) =
        (TcpListener::try_from(worker.take_listener()?)?, Async::new(worker.shutdown_signal()?)?);
    let connections = GracefulShutdown::new();
    let http = |stream| http1::Builder::new().serve_connection(FuturesIo::new(stream), service_fn(answer));
    worker.ready()?;
    // Accept the queued connections before stopping.
    let is_over = || async { shutdown.readable().await.map_or(None, |()| None) };
    while let Some(accepted) = or(async { Some(listener.accept().await) }, is_over()).await {
        match accepted {
            Ok((stream, _)) => executor.spawn(connections.watch(http(stream))).detach(),
            // Perhaps no descriptor is free; wait for a connection to end.
            Err(_) => _ = Timer::after(Duration::from_millis(50)).await,
        }
    }
    drop(listener);
    // The shutdown closes idle and new connections, even if a request is on its way. So ask clients to leave for a
    // second first.
    Timer::after(Duration::from_secs(1)).await;
    connections.shutdown().await;
    Ok(())
}

async fn answer(request: Request<Incoming>) -> Result<Response<String>, hyper::http::Error> {
    if request.uri().path() == "/slow" {
        Timer::after(Duration::from_millis(300)).await;
    }
    let response = Response::builder().header("x-pid", process::id());
    let response = if forkpool::is_draining() { response.header("connection", "close") } else { response };
    response.body("hello world\n".to_owned())
}
