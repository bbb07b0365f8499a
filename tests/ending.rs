//! Connections that last come to their end politely when the worker drains.

mod support;

use std::net::TcpStream;

use nix::sys::signal::Signal;
use support::{example, Client, Server};

/// With a drain time-out that is longer than anything here may take: what ends, ends because it was told to.
fn start(name: &str) -> Server {
    let mut command = example(name);
    command.envs([("FORKPOOL_WORKERS", "1"), ("FORKPOOL_DRAIN_TIMEOUT", "1h")]);
    match name {
        "leaving" => Server::start(command),
        _ => Server::start_silent(command),
    }
}

/// A client that has the head of its answer.
fn reading(server: &mut Server, target: &str) -> Client<TcpStream> {
    let mut client = server.connect();
    client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read(&mut byte);
        head.push(byte[0]);
    }
    client
}

#[test]
fn events_end_when_the_worker_leaves() {
    let mut server = start("events");
    let mut clients = [(); 3].map(|()| reading(&mut server, "/"));
    server.signal(Signal::SIGTERM);
    for client in &mut clients {
        // The last chunk: it is whole, and the client comes back by itself.
        assert!(client.rest().ends_with(b"\r\n0\r\n\r\n"));
    }
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn each_answer_that_lasts_is_told_of_the_drain() {
    let mut server = start("leaving");
    let streams = [(); 2].map(|()| reading(&mut server, "/stream"));
    let mut deferred = server.connect();
    deferred.send("GET /deferred HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut last = server.connect();
    last.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n");
    assert_eq!(last.answer().status, 100);
    server.signal(Signal::SIGTERM);
    let mut told = [(); 3].map(|()| server.wait_for("told: "));
    told.sort();
    assert_eq!(told, ["told: deferred drains", "told: stream drains", "told: stream drains"]);
    // What begins later is told at once.
    last.send("x");
    assert_eq!(last.answer().status, 200);
    drop(last);
    drop(streams);
    drop(deferred);
    assert_eq!(server.wait().code(), Some(0));
}
