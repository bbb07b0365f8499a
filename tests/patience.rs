//! Time-outs of connections end those whose clients are slow, and nobody whose request has come in time.

mod support;

use std::net::TcpStream;

use support::{testbed, Client, Server};

/// More than the events of one turn.
const MANY: usize = 600;

/// Blocks the only worker beyond the time-out.
fn block(server: &mut Server) -> Client<TcpStream> {
    let mut client = server.connect();
    // Its first answer says that it has been accepted.
    assert_eq!(client.get("/").status, 200);
    client.send("GET /slow?ms=1500 HTTP/1.1\r\nHost: a\r\n\r\n");
    client
}

#[track_caller]
fn all_are_answered(mut clients: Vec<Client<TcpStream>>) {
    for client in &mut clients {
        assert_eq!(client.answer().status, 200);
    }
}

#[test]
fn a_request_that_came_in_time_is_answered_however_late_it_is_seen() {
    for (timeout, before, begin, end) in [
        ("FORKPOOL_IDLE_TIMEOUT", true, "", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("FORKPOOL_HEAD_TIMEOUT", false, "GET / HTTP/1.1\r\n", "Host: a\r\n\r\n"),
        ("FORKPOOL_BODY_TIMEOUT", false, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nx", "x"),
    ] {
        let mut server = testbed(&[("FORKPOOL_WORKERS", "1"), (timeout, "1s")]);
        let mut clients: Vec<_> = (0..MANY).map(|_| server.connect()).collect();
        for client in &mut clients {
            if before {
                client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            }
            client.send(begin);
        }
        if before {
            clients.iter_mut().for_each(|client| assert_eq!(client.answer().status, 200));
        }
        let mut blocking = block(&mut server);
        clients.iter_mut().for_each(|client| client.send(end));
        assert_eq!(blocking.answer().status, 200, "{timeout}");
        all_are_answered(clients);
    }
}
