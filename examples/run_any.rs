//! cargo run --example run_any: a plain `std` accept loop as the worker, one connection after the other.

use std::io::{Read, Write};

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 12\r\nConnection: close\r\n\r\nhello world\n";

fn main() -> forkpool::Result<()> {
    forkpool::Pool::bind("127.0.0.1:8000").env().run(|worker| {
        // Ends when the worker is to finish: the pool stops, or a new worker takes over.
        for stream in worker.incoming() {
            let mut stream = stream?;
            // A client that goes away is no reason to end the worker.
            let _ = stream.read(&mut [0; 4096]).and_then(|_| stream.write_all(ANSWER));
        }
        Ok::<(), std::io::Error>(())
    })
}
