//! Reads bodies on threads, in each way that a test wants. Prints what reading has returned.

#[macro_use]
mod say;

use std::io::{self, BufRead, Read};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use forkpool::{BodyReader, Pool, Request, Response};

fn main() -> forkpool::Result<()> {
    Pool::bind("127.0.0.1:0").env().run(|worker| {
        worker.stream_bodies(|request| request.method() == "POST");
        let gate = Arc::new((Mutex::new(false), Condvar::new()));
        worker.serve(move |request| answer(request, &gate))
    })
}

type Gate = Arc<(Mutex<bool>, Condvar)>;

fn answer(request: &Request<'_>, gate: &Gate) -> Response {
    let (mut body, responder, response) = Response::read_body();
    let read: fn(BodyReader) -> io::Result<String> = match request.path() {
        "/count" | "/gated" => count,
        "/first" => first_line,
        "/none" => |_| Ok("unread".to_owned()),
        "/here" => {
            return Response::text(body.read(&mut [0]).map_or_else(|error| error.to_string(), |_| "read".into()))
        }
        "/open" => {
            *gate.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
            gate.1.notify_all();
            return Response::text("open\n");
        }
        _ => return Response::new(404),
    };
    let gate = (request.path() == "/gated").then(|| Arc::clone(gate));
    thread::spawn(move || {
        if let Some(gate) = gate {
            let is_open = gate.0.lock().unwrap_or_else(PoisonError::into_inner);
            drop(gate.1.wait_while(is_open, |is_open| !*is_open).unwrap_or_else(PoisonError::into_inner));
        }
        let read = read(body);
        say!("read: {read:?}, {}", if responder.is_gone() { "for nobody" } else { "for a client" });
        responder.respond(match read {
            Ok(text) => Response::text(text),
            Err(error) => Response::text(error.to_string()).status(400),
        });
    });
    response
}

fn count(mut body: BodyReader) -> io::Result<String> {
    io::copy(&mut body, &mut io::sink()).map(|count| format!("{count} bytes"))
}

fn first_line(mut body: BodyReader) -> io::Result<String> {
    let mut line = String::new();
    body.read_line(&mut line).map(|_| line)
}
