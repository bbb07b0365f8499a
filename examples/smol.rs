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
    let is_over = || async { shutdown.readable().await.map_or(None, |()| None) };
    while let Some(accepted) = or(async { Some(listener.accept().await) }, is_over()).await {
        let open = open.clone();
        match accepted {
            Ok((stream, _)) => executor.spawn(async move { (answer(stream).await, drop(open)) }).detach(),
            // Out of descriptors, perhaps: some connection will end.
            Err(_) => _ = Timer::after(Duration::from_millis(50)).await,
        }
    }
    IS_DRAINING.store(true, Relaxed);
    drop((listener, open));
    let _ = all_closed.recv().await;
    Ok(())
}

/// Answers GETs until the client or the worker is to finish, or nothing has come for a while.
async fn answer(mut stream: TcpStream) -> io::Result<()> {
    let mut lines = BufReader::new(stream.clone()).lines();
    let too_late = || async {
        Timer::after(Duration::from_secs(5)).await;
        None
    };
    while let Some(line) = or(lines.next(), too_late()).await.transpose()? {
        if line.starts_with("GET /slow ") {
            Timer::after(Duration::from_millis(300)).await;
        }
        let fields: Vec<_> = (&mut lines).map_while(Result::ok).take_while(|it| !it.is_empty()).collect().await;
        let closes = IS_DRAINING.load(Relaxed) || fields.iter().any(|it| it.eq_ignore_ascii_case("connection: close"));
        let (pid, connection) = (process::id(), if closes { "close" } else { "keep-alive" });
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: 12\r\nX-Pid: {pid}\r\nConnection: {connection}\r\n");
        stream.write_all(format!("{head}\r\nhello world\n").as_bytes()).await?;
        if closes {
            break;
        }
    }
    Ok(())
}
