//! cargo run --example actix: actix-web in each worker, with one thread for its connections.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::{io, process, time::Duration};

use actix_web::rt::{net::UnixStream, spawn, time::sleep, System};
use actix_web::{body::MessageBody, dev::*, http::header, middleware::*, web, App, Error, HttpServer};

static IS_DRAINING: AtomicBool = AtomicBool::new(false);

fn main() -> forkpool::Result<()> {
    env_logger::init();
    // The runtime and its threads are made in the worker: none survives a fork.
    forkpool::Pool::bind("127.0.0.1:8000").env().run(|worker| System::new().block_on(serve(worker)))
}

async fn serve(worker: &forkpool::Worker) -> io::Result<()> {
    let shutdown = UnixStream::from_std(worker.shutdown()?)?;
    let hello = || web::get().to(|| async { "hello world\n" });
    let app = move || App::new().wrap(from_fn(tell)).route("/", hello()).route("/slow", web::get().to(slow));
    let server = HttpServer::new(app).workers(1).disable_signals().listen(worker.listener()?)?.run();
    let handle = server.handle();
    worker.ready()?;
    spawn(async move {
        let _ = shutdown.readable().await;
        IS_DRAINING.store(true, Relaxed);
        // Stopping drops connections that were accepted and not begun: it comes when there are none any more.
        handle.pause().await;
        sleep(Duration::from_millis(100)).await;
        // Waits for all connections. Clients that have been idle for five seconds (`keep_alive`) have none.
        handle.stop(true).await;
    });
    server.await
}

async fn slow() -> &'static str {
    sleep(Duration::from_millis(300)).await;
    "slow\n"
}

async fn tell(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let mut answer = next.call(request).await?;
    let head = answer.response_mut().head_mut();
    head.headers_mut().insert(header::HeaderName::from_static("x-pid"), process::id().into());
    if IS_DRAINING.load(Relaxed) {
        head.set_connection_type(actix_web::http::ConnectionType::Close);
    }
    Ok(answer)
}
