//! Long responses and upgraded connections end in order when the worker drains.

use std::net::TcpStream;

use crate::support::{self, example, until, Client, Server};
use nix::sys::signal::Signal;

/// With a drain timeout that is longer than anything here may take: what ends, ends because it was told to.
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
    client.answer_to_head();
    client
}

#[test]
fn event_streams_end_in_a_drain() {
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
fn long_responses_learn_of_the_drain() {
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

const HANDSHAKE: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A client that speaks WebSocket, and has been answered once.
fn websocket(server: &mut Server) -> Client<TcpStream> {
    let mut client = server.connect();
    client.send(HANDSHAKE);
    let answer = client.answer_to_head();
    assert_eq!((answer.status, answer.field("sec-websocket-accept")), (101, Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")));
    echoed(&mut client);
    client
}

/// A frame of a client, under a mask of zeroes.
fn frame(opcode: u8, data: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode, 0x80 | data.len() as u8, 0, 0, 0, 0];
    frame.extend(data);
    frame
}

#[track_caller]
fn echoed(client: &mut Client<TcpStream>) {
    client.send(frame(1, b"hello"));
    let mut echo = [0; 7];
    client.read(&mut echo);
    assert_eq!(&echo, b"\x81\x05hello");
}

/// Reads the server's Close; `None` if it is a message.
#[track_caller]
fn closed(client: &mut Client<TcpStream>) -> Option<u16> {
    let mut head = [0; 2];
    client.read(&mut head);
    let mut data = vec![0; usize::from(head[1])];
    client.read(&mut data);
    match head[0] {
        0x88 => Some(u16::from_be_bytes([data[0], data[1]])),
        0x81 => None,
        other => panic!("{other:x}"),
    }
}

#[test]
fn websockets_are_closed_between_messages() {
    let mut server = start("websocket");
    let mut clients: Vec<_> = (0..5).map(|_| websocket(&mut server)).collect();
    let mut dead = websocket(&mut server);
    server.signal(Signal::SIGTERM);
    for client in &mut clients {
        // It may go on until its Close has come, and what it sends until then is echoed.
        until("it is closed", || {
            let _ = std::io::Write::write_all(&mut client.stream(), &frame(1, b"hello"));
            closed(client)
        });
        client.send(frame(8, &1000_u16.to_be_bytes()));
        // Nothing comes behind it.
        assert!(client.is_closed());
    }
    // One that does not answer is waited for, and not for ever: the drain timeout is an hour.
    assert_eq!(closed(&mut dead), Some(1012));
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn an_upgraded_connection_holds_a_drain_for_as_long_as_it_is_there() {
    let mut command = example("answers");
    command.envs([("FORKPOOL_WORKERS", "1"), ("FORKPOOL_DRAIN_TIMEOUT", "1h")]);
    let mut server = Server::start_silent(command);
    let mut client = server.connect();
    client.send("GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: shout\r\n\r\n");
    assert_eq!(client.answer_to_head().status, 101);
    server.signal(Signal::SIGTERM);
    support::until_closed(server.port());
    // It knows of no drain, and goes on.
    let mut echo = [0; 3];
    for _ in 0..3 {
        client.send("abc");
        client.read(&mut echo);
        assert_eq!(&echo, b"ABC");
    }
    assert!(server.try_wait().is_none());
    drop(client);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn an_invalid_handshake_is_refused() {
    let mut server = start("websocket");
    for (wrong, right, status) in [
        ("GET / HTTP", "POST / HTTP", 405),
        ("Version: 13", "Version: 99", 426),
        ("dGhlIHNhbXBsZSBub25jZQ==", "x", 400),
        ("Upgrade: websocket\r\n", "", 426),
    ] {
        let mut client = server.connect();
        client.send(HANDSHAKE.replace(wrong, right));
        assert_eq!(client.answer().status, status, "{right}");
    }
}
