//! cargo run --example actix: actix-web in each worker, with one thread for its connections.

use std::{io, process, sync::Arc, time::Duration};

use actix_web::rt::{net::UnixStream, spawn, time::sleep, System};
use actix_web::{web, App, HttpRequest, HttpResponse, HttpServer};

fn main() -> forkpool::Result<()> {
    env_logger::init();
    // Start the runtime and its threads in the worker: no thread survives a fork.
    forkpool::Pool::bind("127.0.0.1:8000").env().run(|worker| System::new().block_on(serve(worker)))
}

async fn serve(worker: &forkpool::Worker) -> io::Result<()> {
    let shutdown = UnixStream::from_std(worker.shutdown_signal()?)?;
    // Each open connection holds a copy, and so does the server, which makes them.
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
        // Stopping drops connections that were accepted and not started; before actix-server 2.9.1, sometimes all of
        // them. So wait until none is left, and none has been for half a second: nobody counts those that are on their
        // way to the server's thread. Idle connections are closed after 5 seconds (`keep_alive`).
        let mut quiet = 0;
        while quiet < 5 {
            sleep(Duration::from_millis(100)).await;
            quiet = if Arc::strong_count(&open) > 2 { 0 } else { quiet + 1 };
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
