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
