//! cargo run --release --example plaintext: what benchmarks ask; the same answer at once, and from another thread.
//! Configured by FORKPOOL_* variables.

use std::cell::OnceCell;
use std::sync::mpsc::{self, Sender};
use std::thread;

use forkpool::{Pool, Responder, Response, Worker};

fn main() -> forkpool::Result<()> {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    Pool::bind("127.0.0.1:8000").env().run(serve)
}

fn serve(worker: &Worker) -> Result<(), Box<dyn std::error::Error>> {
    // Begun when it is needed: calls of the system cost more in a process with threads.
    let thread = OnceCell::new();
    worker.add_header("Server", "forkpool")?;
    Ok(worker.serve(move |request| match request.path() {
        "/plaintext" => hello(),
        "/deferred" => {
            let (responder, response) = Response::deferred();
            // The thread ends after the worker.
            let _ = thread.get_or_init(begin_thread).send(responder);
            response
        }
        _ => Response::text("no such page\n").status(404),
    })?)
}

fn begin_thread() -> Sender<Responder> {
    let (sender, deferred) = mpsc::channel::<Responder>();
    thread::spawn(move || deferred.into_iter().for_each(|responder| responder.respond(hello())));
    sender
}

fn hello() -> Response {
    Response::bytes("text/plain", b"Hello, World!".as_slice())
}
