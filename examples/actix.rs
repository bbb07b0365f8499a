//! cargo run --example actix: actix-web in each worker, with one thread for its connections.

use std::{io, process, sync::Arc, time::Duration};

use actix_web::rt::{net::UnixStream, spawn, time::sleep, System};
use actix_web::{web, App, HttpRequest, HttpResponse, HttpServer};

fn main() -> forkpool::Result<()> {
    env_logger::init();
    // The runtime and its threads are made in the worker: none survives a fork.
    forkpool::Pool::bind("127.0.0.1:8000").env().run(|worker| System::new().block_on(serve(worker)))
}

async fn serve(worker: &forkpool::Worker) -> io::Result<()> {
    let shutdown = UnixStream::from_std(worker.shutdown_signal()?)?;
    // A copy is in each open connection, and one in the server, which makes them.
    let open = Arc::new(());
    let copy = Arc::clone(&open);
    let server = HttpServer::new(|| App::new().default_service(web::to(answer)));
    let server = server.on_connect(move |_, data| _ = data.insert(Arc::clone(&copy)));
    let server = server.workers(1).disable_signals().listen(worker.take_listener()?)?.run();
    let handle = server.handle();
    worker.ready()?;
    spawn(async move {
        let _ = shutdown.readable().await;
        handle.pause().await;
        // Stopping drops what was accepted and not begun, and before actix-server 2.9.1 at times every connection: so
        // none is left then. Idle ones end after 5 seconds (`keep_alive`).
        sleep(Duration::from_millis(100)).await;
        while Arc::strong_count(&open) > 2 {
            sleep(Duration::from_millis(100)).await;
        }
        handle.stop(true).await;
    });
    server.await
}

async fn answer(request: HttpRequest) -> HttpResponse {
    if request.path() == "/slow" {
        sleep(Duration::from_millis(300)).await;
    }
    let mut response = HttpResponse::Ok();
    if forkpool::is_draining() {
        response.force_close();
    }
    response.insert_header(("x-pid", process::id())).body("hello world\n")
}
