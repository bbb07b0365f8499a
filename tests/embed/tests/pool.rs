//! A whole pool, as the documentation of the crate tests one.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

#[test]
fn it_doubles() {
    let mut program = Command::new(env!("CARGO_BIN_EXE_embed"));
    let program = program.env("FORKPOOL_LISTEN", "127.0.0.1:0").env("FORKPOOL_WORKERS", "2").stdout(Stdio::piped());
    let mut pool = program.spawn().expect("it starts");
    let mut line = String::new();
    BufReader::new(pool.stdout.take().expect("a pipe")).read_line(&mut line).expect("it serves");
    let address = line.trim().trim_start_matches("serving [").trim_end_matches(']');

    let mut client = TcpStream::connect(address).expect("it listens");
    client.write_all(b"GET /double?21 HTTP/1.0\r\n\r\n").expect("sent");
    let mut response = String::new();
    client.read_to_string(&mut response).expect("it closes");
    pool.kill().and_then(|()| pool.wait()).expect("it ends");
    assert!(response.ends_with("42\n"), "{response}");
}
