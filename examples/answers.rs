//! cargo run --example answers: each kind of response in a few lines, on http://127.0.0.1:8000.

use std::io::{Read, Write};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use forkpool::{Pool, Request, Response};

fn main() -> forkpool::Result<()> {
    // Start threads in the worker; here the handler does.
    Pool::bind("127.0.0.1:8000").env().serve(answer)
}

fn answer(request: &Request<'_>) -> Response {
    match request.path() {
        "/text" => Response::text("plain\n"),
        "/json" => Response::json_text(r#"{"kind":"json"}"#),
        "/redirect" => Response::redirect(303, "/text"),
        "/large" => Response::shared("application/octet-stream", Arc::from(vec![b'x'; 8 << 20])),
        // The worker serves other requests while a thread makes the response.
        "/deferred" => {
            let (responder, response) = Response::deferred();
            let millis = request.query().and_then(|query| query.parse().ok()).unwrap_or(100);
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(millis));
                responder.respond(Response::text("made elsewhere\n"));
            });
            response
        }
        "/forgotten" => Response::deferred().1,
        // As large as the query says, in constant memory: writing waits for the client.
        "/stream" => {
            let (mut body, response) = Response::stream("application/octet-stream");
            let mut left = request.query().and_then(|query| query.parse().ok()).unwrap_or(10_usize);
            thread::spawn(move || {
                while left > 0 {
                    let count = left.min(16 * 1024);
                    // The client may have disconnected.
                    if body.write_all(&vec![b's'; count]).is_err() {
                        return;
                    }
                    left -= count;
                }
            });
            response
        }
        // Hints at what the page will need while the page is made.
        "/hints" => {
            let (responder, response) = Response::deferred();
            thread::spawn(move || {
                // Fails only for an invalid field.
                let _ = responder.early_hints(&[("Link", "</style.css>; rel=preload; as=style")]);
                responder.respond(Response::html("<p>hinted\n"));
            });
            response
        }
        // With a field after the body, for clients that accept trailers.
        "/trailers" => {
            let (mut body, response) = Response::stream_with_trailers("text/plain", &["Server-Timing"]);
            thread::spawn(move || {
                if body.write_all(b"timed\n").is_ok() {
                    let _ = body.add_trailer("Server-Timing", "made;dur=1");
                }
            });
            response
        }
        "/broken" => {
            let (mut body, response) = Response::stream("text/plain");
            thread::spawn(move || {
                let _ = body.write_all(b"half");
                body.abort();
            });
            response
        }
        // Supports ranges and conditional requests.
        "/file" => {
            let path = std::env::var("ANSWERS_FILE").unwrap_or_else(|_| "Cargo.toml".to_owned());
            Response::file(request, path).unwrap_or_else(|_| Response::text("no such file\n").status(404))
        }
        "/required" => Response::text("speak another protocol\n").status(426).header("Upgrade", "shout"),
        "/upgrade" => Response::upgrade("shout", |mut stream| {
            thread::spawn(move || {
                let mut bytes = [0; 1024];
                while let Ok(count @ 1..) = stream.read(&mut bytes) {
                    bytes.make_ascii_uppercase();
                    if stream.write_all(&bytes[..count]).is_err() {
                        return;
                    }
                }
            });
        }),
        _ => Response::text("no such page\n").status(404),
    }
}
