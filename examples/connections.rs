//! cargo run --example connections: each worker has a few database connections, each with a thread that answers later.
//! So a slow query does not delay the worker's other requests.

use std::sync::{mpsc, Arc, Mutex};
use std::thread;

use forkpool::{Pool, Responder, Response};
use rusqlite::Connection;

const CONNECTIONS: usize = 4;

fn main() -> forkpool::Result<()> {
    Pool::bind("127.0.0.1:8000").env().run(|worker| -> Result<(), Box<dyn std::error::Error>> {
        // After the fork: neither threads nor database connections survive one.
        let (queue, waiting) = mpsc::channel::<(u32, Responder)>();
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..CONNECTIONS {
            let (database, waiting) = (Connection::open_in_memory()?, Arc::clone(&waiting));
            thread::spawn(move || loop {
                // The lock is held while waiting for the next query, not while running it.
                let next = waiting.lock().map(|waiting| waiting.recv());
                let Ok(Ok((number, responder))) = next else { return };
                responder.respond(match square(&database, number) {
                    Ok(square) => Response::text(format!("{square}\n")),
                    Err(error) => Response::text(format!("{error}\n")).status(500),
                });
            });
        }
        Ok(worker.serve(move |request| {
            let Some(number) = request.query().and_then(|query| query.parse().ok()) else {
                return Response::text("which number? /?12\n").status(400);
            };
            let (responder, response) = Response::deferred();
            // Without threads nobody answers. The responder sends a 500 when it is dropped.
            let _ = queue.send((number, responder));
            response
        })?)
    })
}

fn square(database: &Connection, number: u32) -> rusqlite::Result<i64> {
    database.query_row("SELECT ?1 * ?1", [number], |row| row.get(0))
}
