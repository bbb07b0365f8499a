//! The log names the request in which a worker hangs or dies.

use crate::support::testbed;
use nix::sys::signal::Signal;

#[test]
fn a_worker_that_dies_in_a_request_names_it() {
    for (request, named) in [
        ("GET /abort?token=secret HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), " in GET /abort, "),
        ("GET http://x/abort?secret HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), " in GET http://x/abort, "),
        // Empty lines are no part of it.
        ("\r\n\r\nGET /abort HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), " in GET /abort, "),
        // Beside others, and with a body that comes later.
        ("GET /pid HTTP/1.1\r\nHost: x\r\n\r\nGET /abort HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), " in GET /abort, "),
        (
            "PUT /exit?code=3 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
            " in PUT /exit, ",
        ),
    ] {
        let mut server = testbed(&[]);
        let mut client = server.connect();
        client.send(request);
        let line = server.wait_for(" requests on ");
        assert!(line.contains(named) && !line.contains("secret"), "{line}");
    }
}

#[test]
fn a_worker_that_hangs_names_its_request_unless_it_is_not_to() {
    for (named, expected) in [("yes", true), ("no", false)] {
        let mut server = testbed(&[("FORKPOOL_STALL_TIMEOUT", "1s"), ("FORKPOOL_NAME_REQUESTS", named)]);
        let mut client = server.connect();
        client.send("GET /wait?/nonexistent/never HTTP/1.1\r\nHost: x\r\n\r\n");
        let line = server.wait_for("killed: busy with one request for 1s");
        assert_eq!(line.ends_with("(stall-timeout) in GET /wait"), expected, "{line}");
        let line = server.wait_for("killed by SIGKILL");
        assert_eq!(line.contains(" in GET /wait, "), expected, "{line}");
    }
}

/// The log's lines about slow requests, after several requests of which two take a while.
fn slow(variables: &[(&str, &str)]) -> Vec<String> {
    let mut server = testbed(&[&[("FORKPOOL_WORKERS", "1")], variables].concat());
    let (mut late, mut client) = (server.connect(), server.connect());
    // It is accepted, and its event is taken before that of the other's first request.
    late.get("/pid");
    late.send("GET /late?secret HTTP/1.1\r\nHost: x\r\n\r\n");
    for target in ["/pid", "/burn?ms=300&secret", "/now"] {
        assert_eq!(client.get(target).status, 200, "{target}");
    }
    assert_eq!(late.answer().status, 200);
    drop((late, client));
    server.signal(Signal::SIGTERM);
    let (status, mut lines) = server.finish();
    assert!(status.success());
    lines.retain(|line| line.contains(" was slow: "));
    lines
}

#[test]
fn a_request_that_takes_long_is_named() {
    let limit = ("FORKPOOL_SLOW_REQUEST", "100ms");
    let lines = slow(&[limit]);
    for path in ["/late", "/burn"] {
        let named = format!(" was slow: GET {path} took ");
        assert_eq!(lines.iter().filter(|line| line.contains(&named)).count(), 1, "{lines:?}");
    }
    assert!(!lines.iter().any(|line| line.contains("secret")), "{lines:?}");
    let lines = slow(&[limit, ("FORKPOOL_NAME_REQUESTS", "no")]);
    assert!(lines.iter().filter(|line| line.contains(" was slow: a request took ")).count() >= 2, "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains("GET")), "{lines:?}");
    assert_eq!(slow(&[]), [""; 0], "it is off unless it is wanted");
    assert_eq!(slow(&[("FORKPOOL_SLOW_REQUEST", "1h")]), [""; 0]);
}
