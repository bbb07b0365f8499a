//! Responses that go on after their handler has returned. Other requests show what becomes of them, and what they learn
//! is printed. For tests/waiting/disconnects.rs and tests/waiting/long_responses.rs.

#[macro_use]
mod say;

mod logger;

use std::cell::RefCell;
use std::io::Write;
use std::time::Duration;

use forkpool::{BodyWriter, Pool, Request, Responder, Response};

thread_local! {
    static RESPONDERS: RefCell<Vec<Responder>> = const { RefCell::new(Vec::new()) };
    static WRITERS: RefCell<Vec<BodyWriter>> = const { RefCell::new(Vec::new()) };
}

fn main() -> forkpool::Result<()> {
    logger::init();
    Pool::bind("127.0.0.1:8000").env().run(|worker| {
        worker.stream_bodies(|request| request.path() == "/receive");
        worker.serve(answer)
    })
}

fn answer(request: &Request<'_>) -> Response {
    match request.path() {
        "/deferred" => keep(Response::deferred()),
        "/late" => {
            let millis = request.query().and_then(|query| query.parse().ok()).unwrap_or(1);
            keep(Response::deferred_within(Duration::from_millis(millis), Response::text("later\n").status(202)))
        }
        "/answer" => {
            let are_gone: Vec<bool> = RESPONDERS.take().into_iter().map(|it| respond(it, "answered\n")).collect();
            Response::text(format!("{are_gone:?}\n"))
        }
        "/stream" => {
            let (mut writer, response) = Response::stream("text/plain");
            writer.on_gone(|| eprintln!("told: stream gone"));
            writer.on_drain(|| eprintln!("told: stream drains"));
            writer.write_all(b"begun\n").expect("there is room");
            WRITERS.with_borrow_mut(|writers| writers.push(writer));
            response
        }
        "/write" => {
            let text = request.query().unwrap_or("more").to_owned() + "\n";
            let written = WRITERS.with_borrow_mut(|writers| {
                writers.iter_mut().map(|it| format!("{:?}", it.try_write_all(text.as_bytes()))).collect::<Vec<_>>()
            });
            Response::text(written.join("\n") + "\n")
        }
        "/end" => {
            WRITERS.take();
            Response::text("ended\n")
        }
        // As nobody should: it would wait for itself.
        "/own-thread" => {
            let (mut writer, response) = Response::stream("text/plain");
            let error = writer.write_all(&[b'x'; 100_000]).expect_err("there is no room");
            say!("own thread: {error}");
            response
        }
        // Waits for the body, whose end never comes.
        "/receive" => {
            let dropped = Dropped;
            Response::receive(move |piece| {
                let _kept = &dropped;
                piece.is_none().then(|| Response::text("received\n"))
            })
        }
        _ => Response::text("leaving\n"),
    }
}

fn keep((responder, response): (Responder, Response)) -> Response {
    responder.on_gone(|| eprintln!("told: deferred gone"));
    responder.on_drain(|| eprintln!("told: deferred drains"));
    RESPONDERS.with_borrow_mut(|responders| responders.push(responder));
    response
}

/// Answers, and returns whether nobody waits for it.
fn respond(responder: Responder, text: &'static str) -> bool {
    let is_gone = responder.is_gone();
    responder.respond(Response::text(text));
    is_gone
}

struct Dropped;

impl Drop for Dropped {
    fn drop(&mut self) {
        eprintln!("told: receiver dropped");
    }
}
