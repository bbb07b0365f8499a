//! What clients get from a pool in normal operation.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use nix::sys::signal::Signal;
use support::{binary, connect_unix, example, fresh_path, testbed, Client, Server};

#[test]
fn the_binary_serves_its_page() {
    let mut server = Server::start(binary());
    let answer = server.get("/");
    assert_eq!((answer.status, answer.text()), (200, "hello world\n"));
    assert_eq!(answer.field("content-type"), Some("text/plain; charset=utf-8"));
    assert!(answer.field("date").is_some_and(|date| date.ends_with(" GMT")), "{answer:?}");
}

#[test]
fn hello_serves() {
    let mut command = example("hello");
    command.env("FORKPOOL_WORKERS", "2");
    let mut server = Server::start_silent(command);
    let answer = server.get("/");
    assert_eq!((answer.status, answer.text()), (200, "hello world\n"));
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn the_testbed_has_its_pages() {
    let mut server = testbed(&[]);
    let mut client = server.connect();
    for (target, status, body) in [
        ("/", 200, "testbed\n"),
        ("/plaintext", 200, "Hello, World!"),
        ("/204", 204, ""),
        ("/304", 304, ""),
        ("/slow?ms=1", 200, "slow\n"),
        ("/burn?ms=1", 200, "burnt\n"),
        ("/leak?kib=1", 200, "leaked 1 KiB\n"),
        ("/nowhere", 404, "no such page\n"),
    ] {
        let answer = client.get(target);
        assert_eq!((answer.status, answer.text()), (status, body), "{target}");
        assert!(server.workers().contains(&answer.worker()), "{target}");
    }
    let pid = client.get("/pid");
    assert_eq!(pid.text(), pid.worker().to_string());
    client.send("PUT / HTTP/1.1\r\nHost: a\r\n\r\n");
    let refused = client.answer();
    assert_eq!((refused.status, refused.field("allow")), (405, Some("GET, HEAD")));
}

#[test]
fn every_worker_serves() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "4")]);
    let mut seen = BTreeSet::new();
    while seen.len() < 4 {
        seen.insert(server.get("/pid").worker());
    }
    assert_eq!(seen, server.workers().into_iter().collect());
}

#[test]
fn a_connection_is_kept_and_requests_may_be_pipelined() {
    let mut server = testbed(&[]);
    let mut client = server.connect();
    for _ in 0..3 {
        assert!(!client.get("/").closes());
    }
    // More than one turn's worth.
    let request = "GET /plaintext HTTP/1.1\r\nHost: a\r\n\r\n";
    client.send(request.repeat(200) + "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n" + "GET /pid HTTP/1.1\r\nHost: a\r\n\r\n");
    for _ in 0..200 {
        assert_eq!(client.answer().text(), "Hello, World!");
    }
    let head = client.answer_to_head();
    assert_eq!((head.status, head.field("content-length")), (200, Some("8")));
    assert_eq!(client.answer().status, 200);
}

#[test]
fn a_half_closed_client_gets_its_answers() {
    let mut server = testbed(&[]);
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(100) + "GET / HT");
    client.stream().shutdown(Shutdown::Write).expect("connected");
    for _ in 0..100 {
        assert_eq!(client.answer().status, 200);
    }
    assert!(client.is_closed());
}

#[test]
fn http_1_0_closes_unless_asked_not_to() {
    let mut server = testbed(&[]);
    let mut client = server.connect();
    client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(client.answer().field("connection"), Some("keep-alive"));
    client.send("GET / HTTP/1.0\r\n\r\n");
    assert!(client.answer().closes());
    assert!(client.is_closed());
}

#[test]
fn bodies_come_by_length_and_chunked() {
    let mut server = testbed(&[]);
    let mut client = server.connect();
    client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Type: x/y\r\nContent-Length: 5\r\n\r\nhel");
    client.send("lo");
    let answer = client.answer();
    assert_eq!((answer.text(), answer.field("content-type")), ("hello", Some("x/y")));
    client.send("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n");
    client.send("0\r\n\r\n");
    assert_eq!(client.answer().text(), "hello");
    let large = "x".repeat(1 << 20);
    client.send(format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{large}", large.len()));
    assert_eq!(client.answer().body.len(), large.len());
}

#[test]
fn a_client_that_expects_100_continue_gets_it() {
    let mut server = testbed(&[]);
    let mut client = server.connect();
    client.send("POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    assert_eq!(client.answer().status, 100);
    client.send("ok");
    assert_eq!(client.answer().text(), "ok");
    client.send("POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9999999\r\n\r\n");
    assert_eq!(client.answer().status, 413);
}

#[test]
fn a_bad_request_is_answered_even_while_its_client_still_sends() {
    let mut server = testbed(&[]);
    let mut client = server.connect();
    client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n");
    // A reset would overtake the answer if the server closed with this unread.
    client.send("x".repeat(100_000));
    let answer = client.answer();
    assert_eq!(answer.status, 400);
    assert!(answer.closes() && answer.field("x-pid").is_some());
    client.stream().shutdown(Shutdown::Write).expect("connected");
    assert!(client.is_closed());
}

#[test]
fn a_thousand_connections_are_served_at_once() {
    let mut server = testbed(&[]);
    let mut clients: Vec<_> = (0..1000).map(|_| server.connect()).collect();
    for _ in 0..2 {
        for client in &mut clients {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        }
        for client in &mut clients {
            assert_eq!(client.answer().status, 200);
        }
    }
}

#[test]
fn a_client_that_does_not_read_does_not_delay_others() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "1"), ("FORKPOOL_MAX_OUTPUT", "64KiB")]);
    let mut greedy = server.connect();
    greedy.stream().set_nonblocking(true).expect("a socket");
    let request = "GET /plaintext HTTP/1.1\r\nHost: a\r\n\r\n".repeat(1000);
    // Until neither side's buffers take more.
    let mut sent = 0;
    while let Ok(count @ 1..) = std::io::Write::write(&mut greedy.stream(), &request.as_bytes()[sent % request.len()..])
    {
        sent += count;
    }
    assert_eq!(server.get("/").status, 200);
    // What it has sent is answered as soon as it reads.
    greedy.stream().set_nonblocking(false).expect("a socket");
    for _ in 0..sent / (request.len() / 1000) {
        assert_eq!(greedy.answer().text(), "Hello, World!");
    }
}

#[test]
fn a_client_that_always_has_more_does_not_starve_the_others() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "1")]);
    let mut flood = server.connect().into_stream();
    let mut sender = flood.try_clone().expect("a socket");
    let request = "GET /plaintext HTTP/1.1\r\nHost: a\r\n\r\n".repeat(500);
    let sending =
        std::thread::spawn(move || while std::io::Write::write_all(&mut sender, request.as_bytes()).is_ok() {});
    // Wait until it flows.
    let mut answers = [0; 100_000];
    std::io::Read::read_exact(&mut flood, &mut answers).expect("answers");
    let reader = flood.try_clone().expect("a socket");
    let reading = std::thread::spawn(move || std::io::copy(&mut &reader, &mut std::io::sink()));
    for _ in 0..100 {
        assert_eq!(server.get("/").status, 200);
    }
    flood.shutdown(Shutdown::Both).expect("connected");
    sending.join().expect("the sender ends");
    drop(reading.join().expect("the reader ends"));
}

#[test]
fn an_endless_body_is_refused_at_the_limit() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "1"), ("FORKPOOL_MAX_BODY", "100KiB")]);
    let mut client = server.connect();
    client.send("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunk = format!("400\r\n{}\r\n", "x".repeat(1024));
    // The hundredth still fits.
    (0..101).for_each(|_| client.send(&chunk));
    let answer = client.answer();
    assert_eq!((answer.status, answer.closes()), (413, true));
}

#[test]
fn an_answer_that_cannot_be_sent_reaches_nobody_else() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "1")]);
    let gate = fresh_path("gone.gate");
    let mut gone = server.connect();
    gone.send(format!("GET /wait?{} HTTP/1.1\r\nHost: a\r\n\r\n", gate.display()));
    server.wait_for("serves /wait");
    reset(gone.into_stream());
    fs::write(&gate, "").expect("a writable directory");
    assert_eq!(server.get("/plaintext").text(), "Hello, World!");
}

#[test]
fn the_end_of_a_connection_is_not_that_of_its_successor() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "1")]);
    let (mut first, mut other) = (server.connect(), server.connect());
    assert_eq!(first.get("/").status, 200);
    assert_eq!(other.get("/").status, 200);
    first.send("GET /late HTTP/1.1\r\nHost: a\r\n\r\n");
    // In one turn the answer for the first cannot be sent, its place is free for what is adopted, and its reset is
    // told.
    other.send("GET /adopt HTTP/1.1\r\nHost: a\r\n\r\n");
    let line = server.wait_for("adopts from port ");
    let port = line.rsplit(' ').next().and_then(|port| port.parse().ok()).expect("a port");
    reset(first.into_stream());
    let adopted = TcpStream::connect::<(_, u16)>(("127.0.0.1", port)).expect("it listens");
    adopted.set_read_timeout(Some(support::DEADLINE)).expect("a socket");
    let mut adopted = Client::new(adopted);
    assert_eq!(other.answer().text(), "adopted\n");
    assert_eq!(adopted.get("/").status, 200);
    adopted.send("GET /late HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(other.get("/now").text(), "now\n");
    assert_eq!(adopted.answer().text(), "late\n");
}

/// Closes with a reset, as a process does that is killed with bytes unread.
fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a socket");
}

#[test]
fn several_addresses_of_all_kinds_are_served() {
    let path = fresh_path("serve.sock");
    let listen = format!("127.0.0.1:0,[::1]:0,unix:{}", path.display());
    let mut server = testbed(&[("FORKPOOL_LISTEN", &listen), ("FORKPOOL_UNIX_MODE", "0600")]);
    server.wait_for("listening on http://[::1]:");
    server.wait_for("listening on unix:");
    assert_eq!(server.get("/").status, 200);
    let v6 = server.log().iter().find_map(|line| line.split("http://[::1]:").nth(1)?.split(' ').next()?.parse().ok());
    let v6 = TcpStream::connect(("::1", v6.expect("announced"))).expect("open");
    assert_eq!(Client::new(v6).get("/").status, 200);
    let mode = fs::metadata(&path).expect("the socket file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    for _ in 0..20 {
        assert_eq!(connect_unix(&path).get("/").status, 200);
    }
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
    assert!(!path.exists(), "the socket file is removed");
}

#[test]
fn every_interface_means_both_families() {
    let mut server = testbed(&[("FORKPOOL_LISTEN", ":0")]);
    let port = server.port();
    for host in ["127.0.0.1", "::1"] {
        let stream = TcpStream::connect((host, port)).expect(host);
        assert_eq!(Client::new(stream).get("/").status, 200, "{host}");
    }
}

#[test]
fn a_stale_socket_file_is_replaced_and_a_live_one_is_not() {
    let path = fresh_path("stale.sock");
    let listen = format!("unix:{}", path.display());
    drop(UnixListener::bind(&path).expect("a socket file"));
    // A program that another test starts has a copy until it is executed.
    support::until("nobody listens on it", || UnixStream::connect(&path).is_err().then_some(()));
    let mut first = testbed(&[("FORKPOOL_LISTEN", &listen)]);
    let mut second = example("testbed");
    second.env("FORKPOOL_LISTEN", &listen);
    let (status, log) = Server::spawn(second).finish();
    assert_eq!(status.code(), Some(1));
    assert!(log.iter().any(|line| line.contains(&listen)), "{log:?}");
    assert_eq!(connect_unix(&path).get("/").status, 200);
    first.signal(Signal::SIGTERM);
    first.wait();
    fs::write(&path, "precious").expect("a file");
    let mut third = example("testbed");
    third.env("FORKPOOL_LISTEN", &listen);
    assert_eq!(Server::spawn(third).wait().code(), Some(1));
    assert_eq!(fs::read_to_string(&path).expect("still there"), "precious");
}

#[test]
fn the_time_limits_hold() {
    let limits =
        [("FORKPOOL_HEAD_TIMEOUT", "200ms"), ("FORKPOOL_BODY_TIMEOUT", "200ms"), ("FORKPOOL_IDLE_TIMEOUT", "200ms")];
    let mut server = testbed(&limits);
    // Nothing was asked, so nothing is answered.
    assert!(server.connect().is_closed());
    for (begin, status) in [
        ("GET / HTTP/1.1\r\nHo", 408),
        ("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel", 408),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 200),
    ] {
        // Once more where this test is late itself: then that is closed as one which has asked for nothing.
        let mut client = support::until("one begins in time", || {
            let mut client = server.connect();
            std::io::Write::write_all(&mut client.stream(), begin.as_bytes()).ok()?;
            let answer = client.try_answer(false).ok()?;
            assert_eq!(answer.status, status, "{begin}");
            Some(client)
        });
        assert!(client.is_closed(), "{begin}");
    }
}
