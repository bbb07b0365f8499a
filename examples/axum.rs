//! cargo run --example axum: axum in each worker, on a tokio runtime of one thread.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::{future, io, process, time::Duration};

use axum::response::{IntoResponse, Response};
use axum::{middleware::map_response, routing::get, serve::Listener, Router};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::{runtime::Builder, time::sleep};

static IS_DRAINING: AtomicBool = AtomicBool::new(false);

fn main() -> forkpool::Result<()> {
    env_logger::init();
    // The runtime is made in the worker: none survives a fork.
    let main = |worker: &_| Builder::new_current_thread().enable_all().build()?.block_on(serve(worker));
    forkpool::Pool::bind("127.0.0.1:8000").env().run(main)
}

async fn serve(worker: &forkpool::Worker) -> io::Result<()> {
    let listener = Until(UnixStream::from_std(worker.shutdown()?)?, Some(TcpListener::from_std(worker.listener()?)?));
    let app = Router::new().route("/", get("hello world\n")).route("/slow", get(|| sleep(Duration::from_millis(300))));
    let shutdown = UnixStream::from_std(worker.shutdown()?)?;
    worker.ready()?;
    // Axum closes idle and new connections at this signal, also those whose request is on its way. So clients are told
    // to go for a second first.
    let told = async move {
        let _ = shutdown.readable().await;
        IS_DRAINING.store(true, Relaxed);
        sleep(Duration::from_secs(1)).await;
    };
    axum::serve(listener, app.layer(map_response(tell))).with_graceful_shutdown(told).await
}

async fn tell(response: Response) -> impl IntoResponse {
    let close = IS_DRAINING.load(Relaxed).then_some([("connection", "close")]);
    ([("x-pid", process::id().to_string())], close, response)
}

/// Takes what waits in the queue, and is closed, when the worker is to finish.
struct Until(UnixStream, Option<TcpListener>);

impl Listener for Until {
    type Io = TcpStream;
    type Addr = ();

    async fn accept(&mut self) -> (TcpStream, ()) {
        if let Some(listener) = &mut self.1 {
            tokio::select! {
                biased;
                (stream, _) = Listener::accept(listener) => return (stream, ()),
                _ = self.0.readable() => self.1 = None,
            }
        }
        future::pending().await
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}
