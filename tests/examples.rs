//! The examples with a database or a logger do what they say, with every worker. Those of other servers are in
//! `servers.rs`, those of messages in `messages.rs` and `cluster.rs`, those of answers in `answers.rs`.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

use nix::sys::signal::Signal;
use support::{example, fresh_path, Server};

#[test]
fn notes_are_kept_in_one_database_for_all_workers() {
    let directory = fresh_path("notes");
    fs::create_dir_all(&directory).expect("a writable directory");
    let mut command = example("notes");
    command.env("FORKPOOL_WORKERS", "2").env("NOTES", directory.join("notes.db"));
    let mut server = Server::start_silent(command);
    let post = |server: &mut Server, body: &str| {
        let mut client = server.connect();
        client.send(format!("POST /notes HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        client.answer()
    };
    // On a connection each, so that either worker may write.
    for id in 1..=8 {
        let answer = post(&mut server, r#"{"text":"buy milk"}"#);
        assert_eq!((answer.status, answer.text()), (201, format!("{{\"id\":{id}}}").as_str()));
    }
    assert_eq!(server.get("/notes/8").text(), r#"{"id":8,"text":"buy milk"}"#);
    assert_eq!(server.get("/notes").text(), r#"{"count":8}"#);
    assert_eq!(server.get("/notes/9").status, 404);
    assert_eq!(server.get("/other").status, 404);
    for wrong in ["{}", "text", ""] {
        assert_eq!(post(&mut server, wrong).status, 400, "{wrong}");
    }
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
    fs::remove_dir_all(directory).expect("ours");
}

#[test]
fn tracing_has_the_lines_of_the_pool_and_of_requests() {
    let mut command = example("tracing");
    command.env("FORKPOOL_WORKERS", "1");
    let mut server = Server::start(command);
    assert_eq!(server.get("/some/path").text(), "hello world\n");
    let line = server.wait_for("answering");
    assert!(line.contains("INFO") && line.contains("request{worker=0 path=\"/some/path\"}"), "{line}");
}

#[test]
fn connections_answer_side_by_side() {
    let mut command = example("connections");
    command.env("FORKPOOL_WORKERS", "1");
    let mut server = Server::start_silent(command);
    let mut clients: Vec<_> = (0..16).map(|_| server.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(format!("GET /?{number} HTTP/1.1\r\nHost: a\r\n\r\n"));
    }
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.answer().text(), format!("{}\n", number * number));
    }
    assert_eq!(server.get("/").status, 400);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
}

/// Its unit tests run here. As a test target of its own, `cargo test` would not build the program.
#[path = "../examples/tested.rs"]
#[allow(dead_code)]
mod tested;

/// As the documentation of the crate tells how to test a whole pool.
#[test]
fn a_whole_pool_runs_in_a_test() {
    let mut program = example("tested");
    let program = program.env("FORKPOOL_LISTEN", "127.0.0.1:0").env("FORKPOOL_WORKERS", "2").stdout(Stdio::piped());
    let mut pool = program.spawn().expect("it starts");
    let mut line = String::new();
    BufReader::new(pool.stdout.take().expect("a pipe")).read_line(&mut line).expect("it serves");
    let address = line.trim().trim_start_matches("serving [").trim_end_matches(']');
    let get = |target: &str| {
        let mut client = TcpStream::connect(address).expect("it listens");
        client.write_all(format!("GET {target} HTTP/1.0\r\n\r\n").as_bytes()).expect("sent");
        let mut response = String::new();
        client.read_to_string(&mut response).expect("it closes");
        response
    };
    let (good, bad) = (get("/add?3&4"), get("/add?three"));
    pool.kill().and_then(|()| pool.wait()).expect("it ends");
    assert!(good.starts_with("HTTP/1.1 200 ") && good.ends_with("\r\n\r\n7\n"), "{good}");
    assert!(bad.starts_with("HTTP/1.1 400 "), "{bad}");
}

#[test]
fn the_first_warning_is_told_though_there_is_no_logger() {
    let mut command = example("hello");
    command.env("FORKPOOL_WORKERS", "1");
    let mut server = Server::start_silent(command);
    // A pool whose only worker dies before it is ready ends.
    assert_eq!(server.get("/").status, 200);
    let worker = server.workers()[0];
    nix::sys::signal::kill(worker, Signal::SIGKILL).expect("it runs");
    assert!(server.wait_for("forkpool: ").contains("killed by SIGKILL"));
    server.wait_for("no logger is set");
    server.signal(Signal::SIGTERM);
    let (status, log) = server.finish();
    assert_eq!((status.code(), log.len()), (Some(0), 2), "{log:?}");
}
