//! The log names the request in which a worker hangs or dies.

mod support;

use support::testbed;

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
