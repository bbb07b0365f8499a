//! cargo run --example smol: an asynchronous server on smol in each worker.

use std::{io, process, time::Duration};

use smol::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use smol::net::{TcpListener, TcpStream};
use smol::{channel, future::or, stream::StreamExt, Async, LocalExecutor, Timer};

fn main() -> forkpool::Result<()> {
    env_logger::init();
    forkpool::Pool::bind("127.0.0.1:8000").env().run(|worker| {
        // In the worker, as is the thread that smol starts: none survives a fork.
        let executor = LocalExecutor::new();
        smol::block_on(executor.run(serve(worker, &executor)))
    })
}

async fn serve(worker: &forkpool::Worker, executor: &LocalExecutor<'_>) -> io::Result<()> {
    let (listener, shutdown) = (TcpListener::try_from(worker.listener()?)?, Async::new(worker.shutdown()?)?);
    let (open, all_closed) = channel::bounded::<()>(1);
    worker.ready()?;
    let is_over = || async { shutdown.readable().await.map_or(None, |()| None) };
    while let Some(accepted) = or(async { Some(listener.accept().await) }, is_over()).await {
        let open = open.clone();
        match accepted {
            Ok((stream, _)) => executor.spawn(async move { (answer(stream).await, drop(open)) }).detach(),
            // Out of descriptors, perhaps: some connection will end.
            Err(_) => _ = Timer::after(Duration::from_millis(50)).await,
        }
    }
    drop((listener, open));
    let _ = all_closed.recv().await;
    Ok(())
}

/// Answers one GET, if it comes in time.
async fn answer(mut stream: TcpStream) -> io::Result<()> {
    let in_time = async { Err(Timer::after(Duration::from_secs(5)).await).map_err(|_| io::ErrorKind::TimedOut.into()) };
    let lines = BufReader::new(stream.clone()).lines();
    let head: Vec<String> =
        or(lines.take_while(|line| line.as_ref().is_ok_and(|it| !it.is_empty())).try_collect(), in_time).await?;
    if head.first().is_some_and(|line| line.starts_with("GET /slow ")) {
        Timer::after(Duration::from_millis(300)).await;
    }
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: 12\r\nX-Pid: {}\r\nConnection: close\r\n", process::id());
    stream.write_all(format!("{head}\r\nhello world\n").as_bytes()).await
}
