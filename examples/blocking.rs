//! cargo run --example blocking: a plain `std` server in each worker, with a thread for each connection.

use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::{process, thread, time::Duration};

fn main() -> forkpool::Result<()> {
    env_logger::init();
    forkpool::Pool::bind("127.0.0.1:8000").env().run(|worker| {
        // Returns when all connections are closed.
        thread::scope(|scope| {
            // Reports that the worker is ready, and ends when the worker is to finish.
            for stream in worker.incoming() {
                match stream {
                    Ok(stream) => _ = scope.spawn(move || serve(&stream)),
                    // Perhaps no descriptor is free; wait for a connection to end.
                    Err(_) => thread::sleep(Duration::from_millis(50)),
                }
            }
        });
        Ok::<(), io::Error>(())
    })
}

/// Answers GET requests until the client or the worker is to finish, or the client is silent for a while.
fn serve(mut stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut lines = BufReader::new(stream).lines();
    loop {
        let head = lines.by_ref().take_while(|line| !line.as_ref().is_ok_and(String::is_empty));
        let head: Vec<String> = head.collect::<io::Result<_>>()?;
        let Some(line) = head.first() else { return Ok(()) };
        if line.starts_with("GET /slow ") {
            thread::sleep(Duration::from_millis(300));
        }
        let closes = forkpool::is_draining() || head.iter().any(|it| it.eq_ignore_ascii_case("connection: close"));
        let (pid, connection) = (process::id(), if closes { "close" } else { "keep-alive" });
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: 12\r\nX-Pid: {pid}\r\nConnection: {connection}\r\n");
        stream.write_all(format!("{head}\r\nhello world\n").as_bytes())?;
        if closes {
            return Ok(());
        }
    }
}
