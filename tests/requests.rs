//! The stored requests, over a socket: what the codec's own tests see of them is what a client sees.

mod support;

use std::fs;
use std::net::Shutdown;
use std::path::{Path, PathBuf};

use support::testbed;

/// The requests of one kind, with what is expected of them.
fn stored(kind: &str) -> Vec<(PathBuf, Vec<u8>, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/requests").join(kind);
    let files = fs::read_dir(directory).expect("stored requests").map(|file| file.expect("a file").path());
    let requests = files.filter(|path| path.extension().is_some_and(|extension| extension == "http"));
    let read = |path: PathBuf| {
        let expected = fs::read_to_string(path.with_extension("expect")).expect("what is expected");
        (path.clone(), fs::read(path).expect("a request"), expected)
    };
    requests.map(read).collect()
}

#[test]
fn valid_requests_are_answered_and_the_next_one_too() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "1")]);
    for (path, bytes, expected) in stored("valid") {
        let mut client = server.connect();
        client.send(&bytes);
        let is_head = expected.starts_with("line: HEAD ");
        let mut answer = client.try_answer(is_head).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        if answer.status == 100 {
            answer = client.try_answer(is_head).expect("a final answer");
        }
        assert!([200, 404, 405].contains(&answer.status), "{}: {answer:?}", path.display());
        let keeps_alive = expected.ends_with("connection: keep-alive\n");
        assert_eq!(answer.closes(), !keeps_alive, "{}", path.display());
        if keeps_alive {
            assert_eq!(client.get("/plaintext").text(), "Hello, World!", "{}", path.display());
        } else {
            assert!(client.is_closed(), "{}", path.display());
        }
    }
}

#[test]
fn invalid_requests_are_refused_and_what_follows_is_not_read() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "1")]);
    let worker = server.workers();
    for (path, bytes, expected) in stored("invalid") {
        let mut client = server.connect();
        client.send([bytes.as_slice(), b"\r\n\r\nGET /exit?code=1 HTTP/1.1\r\nHost: a\r\n\r\n"].concat());
        let answer = client.answer();
        assert_eq!(format!("{}\n", answer.status), expected, "{}", path.display());
        assert!(answer.closes(), "{}", path.display());
        client.stream().shutdown(Shutdown::Write).expect("connected");
        assert!(client.is_closed(), "{}", path.display());
    }
    assert_eq!(server.workers(), worker);
}

/// Refusals come by another way than answers do, and for each rule by its own.
#[test]
fn a_refusal_of_head_has_no_content() {
    let mut server =
        testbed(&[("FORKPOOL_WORKERS", "1"), ("FORKPOOL_MAX_TARGET", "1000"), ("FORKPOOL_HEAD_TIMEOUT", "1s")]);
    let long = "x".repeat(1001);
    let many = "x".repeat(20_000);
    for (request, status) in [
        ("HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n".to_owned(), 400),
        ("HEAD / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("\r\nHEAD / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n".to_owned(), 400),
        ("HEAD / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n".to_owned(), 400),
        ("HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n".to_owned(), 413),
        (format!("HEAD /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 414),
        ("HEAD / HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n".to_owned(), 417),
        (format!("HEAD / HTTP/1.1\r\nHost: a\r\nX: {many}"), 431),
        ("HEAD / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n".to_owned(), 501),
        ("HEAD / HTTP/2.0\r\nHost: a\r\n\r\n".to_owned(), 505),
        // Its time is over.
        ("HEAD / HTTP/1.1\r\nHost: a\r\n".to_owned(), 408),
    ] {
        let mut client = server.connect();
        client.send(&request);
        let answer = client.answer_to_head();
        assert_eq!(answer.status, status, "{request:.60?}");
        client.stream().shutdown(Shutdown::Write).expect("connected");
        assert!(client.is_closed(), "{request:.60?}");
    }
    // And the next one has some again.
    let mut client = server.connect();
    client.send("HEAD /plaintext HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n\r\n");
    assert_eq!(client.answer_to_head().status, 200);
    assert!(!client.answer().body.is_empty());
}

#[test]
fn a_method_longer_than_any_is_not_implemented() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "1")]);
    for (method, status) in
        [("A".repeat(32), 404), ("A".repeat(33), 501), ("A".repeat(5000), 501), ("A(".repeat(20), 400)]
    {
        let mut client = server.connect();
        client.send(format!("{method} /none HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert!([status, 405].contains(&client.answer().status), "{method:.40}");
    }
}

/// Without the setting, what is not ASCII is refused in a query, too.
#[test]
fn a_query_is_as_it_was_typed() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "1")]);
    assert_eq!(server.get("/plaintext?q=\u{e9}").status, 200);
    drop(server);
    let mut server = testbed(&[("FORKPOOL_WORKERS", "1"), ("FORKPOOL_UTF8_QUERY", "no")]);
    assert_eq!(server.get("/plaintext?q=\u{e9}").status, 400);
    assert_eq!(server.get("/plaintext?q=%C3%A9").status, 200);
}

/// The binary has no use for bodies: it does not ask for one that waits to be asked for.
#[test]
fn no_100_continue_for_a_body_that_is_not_read() {
    let mut command = support::binary();
    command.args(["--workers", "1", "--root", env!("CARGO_MANIFEST_DIR")]);
    let mut server = support::Server::start(command);
    for (method, status) in [("PUT", 405), ("POST", 405), ("GET", 200)] {
        let mut client = server.connect();
        client.send(format!(
            "{method} /Cargo.toml HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
        ));
        let answer = client.answer();
        assert_eq!((answer.status, answer.closes()), (status, true), "{method}");
    }
}

/// The length would be that of what GET is answered with, and a handler need not make that for HEAD.
#[test]
fn an_unknown_length_is_left_out_of_the_answer_to_head() {
    let mut command = support::example("websocket");
    command.env("FORKPOOL_WORKERS", "1");
    let mut server = support::Server::start_silent(command);
    let mut client = server.connect();
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\nPOST / HTTP/1.1\r\nHost: a\r\n\r\n");
    let [head, post] = [client.answer_to_head(), client.answer()];
    assert_eq!((head.status, head.field("content-length"), head.closes()), (405, None, false));
    assert_eq!((post.status, post.field("content-length")), (405, Some("0")));
}

#[test]
fn a_protocol_is_changed_to_one_that_was_offered() {
    let mut command = support::example("answers");
    command.env("FORKPOOL_WORKERS", "1");
    let mut server = support::Server::start_silent(command);
    for (method, offered, status) in [
        ("GET", "shout", 101),
        ("GET", "h2c, SHOUT", 101),
        ("GET", "h2c", 426),
        ("GET", "shout/2", 426),
        ("GET", "", 426),
        ("HEAD", "shout", 426),
    ] {
        let mut client = server.connect();
        client.send(format!(
            "{method} /upgrade HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: {offered}\r\n\r\n"
        ));
        let answer = client.try_answer(status == 101).expect("an answer");
        assert_eq!((answer.status, answer.field("upgrade")), (status, Some("shout")), "{method} {offered}");
    }
}

#[test]
fn the_example_of_websockets_checks_the_handshake() {
    let mut command = support::example("websocket");
    command.env("FORKPOOL_WORKERS", "1");
    let mut server = support::Server::start_silent(command);
    let (right, version) = ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "Sec-WebSocket-Version: 13\r\n");
    for (method, protocol, fields, status) in [
        ("GET", "websocket", [right, version], 101),
        ("POST", "websocket", [right, version], 405),
        ("GET", "websocket", [right, "Sec-WebSocket-Version: 99\r\n"], 426),
        ("GET", "websocket", [right, ""], 426),
        ("GET", "websocket", ["Sec-WebSocket-Key: x\r\n", version], 400),
        ("GET", "websocket", ["", version], 400),
        ("GET", "made-up", [right, version], 426),
    ] {
        let mut client = server.connect();
        let fields = fields.concat();
        client.send(format!(
            "{method} / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n{fields}\r\n"
        ));
        let answer = client.try_answer(status == 101).expect("an answer");
        assert_eq!(answer.status, status, "{method} {protocol} {fields}");
        let speaks = (method == "GET" && !fields.contains(version)).then_some("13");
        assert_eq!(answer.field("sec-websocket-version"), speaks, "{method} {protocol} {fields}");
    }
}
