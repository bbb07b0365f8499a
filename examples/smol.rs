//! cargo run --example smol: an asynchronous server on smol in each worker.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::{io, process, time::Duration};

use smol::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use smol::net::{TcpListener, TcpStream};
use smol::{channel, future::or, stream::StreamExt, Async, LocalExecutor, Timer};

static IS_DRAINING: AtomicBool = AtomicBool::new(false);

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
    // What waits in the queue comes before the end.
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
    IS_DRAINING.store(true, Relaxed);
    let _ = all_closed.recv().await;
    Ok(())
}

/// Answers GETs until the client or the worker is to finish, or none has come for a while.
async fn answer(mut stream: TcpStream) -> io::Result<()> {
    let mut lines = BufReader::new(stream.clone()).lines();
    loop {
        let head = (&mut lines).take_while(|line| !line.as_ref().is_ok_and(String::is_empty));
        let late = async {
            Timer::after(Duration::from_secs(5)).await;
            Err(io::ErrorKind::TimedOut.into())
        };
        let head: Vec<String> = or(head.try_collect(), late).await?;
        let Some(line) = head.first() else { return Ok(()) };
        if line.starts_with("GET /slow ") {
            Timer::after(Duration::from_millis(300)).await;
        }
        let closes = IS_DRAINING.load(Relaxed) || head.iter().any(|it| it.eq_ignore_ascii_case("connection: close"));
        let (pid, connection) = (process::id(), if closes { "close" } else { "keep-alive" });
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: 12\r\nX-Pid: {pid}\r\nConnection: {connection}\r\n");
        stream.write_all(format!("{head}\r\nhello world\n").as_bytes()).await?;
        if closes {
            return Ok(());
        }
    }
}
