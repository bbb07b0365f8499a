//! What a worker can do in its sandbox, and without it.

mod support;

use std::fs;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use support::{binary, children, example, fresh_path, testbed, until, Server};

/// Whether this kernel has all of it: then a worker starts under `strict`.
fn is_whole() -> bool {
    let mut command = binary();
    command.args(["--sandbox", "strict", "--workers", "1"]);
    let mut server = Server::spawn(command);
    let line = server.wait_for_any(&["listening on ", "no worker could start"]);
    let is_whole = line.contains("listening on ");
    if !is_whole {
        support::skip(&line);
    }
    is_whole
}

#[test]
fn the_sandbox_refuses_attacks_and_allows_what_a_server_needs() {
    if !is_whole() {
        return;
    }
    let mut free = testbed(&[("FORKPOOL_WORKERS", "1")]);
    let mut confined = testbed(&[("FORKPOOL_WORKERS", "1"), ("FORKPOOL_SANDBOX", "strict")]);
    for (what, in_sandbox) in [
        ("read", "Permission denied (os error 13)"),
        ("list", "Permission denied (os error 13)"),
        ("write", "Permission denied (os error 13)"),
        ("device", "Permission denied (os error 13)"),
        ("fork", "Operation not permitted (os error 1)"),
        ("connect", "Operation not permitted (os error 1)"),
        ("listen", "Operation not permitted (os error 1)"),
        ("setuid", "Operation not permitted"),
        ("signal", "Operation not permitted"),
        ("thread", "done"),
    ] {
        assert_eq!(free.get(&format!("/try?{what}")).text(), "done", "{what} without a sandbox");
        let text = confined.get(&format!("/try?{what}")).text().to_owned();
        assert!(text.contains(in_sandbox), "{what} in the sandbox: {text}");
    }
}

#[test]
fn executing_and_tracing_end_the_worker_and_the_log_says_so() {
    if !is_whole() {
        return;
    }
    for what in ["execute", "trace"] {
        let mut server = testbed(&[("FORKPOOL_SANDBOX", "auto")]);
        let mut client = server.connect();
        client.send(format!("GET /try?{what} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert!(client.try_answer(false).is_err(), "{what}");
        server.wait_for("killed by SIGSYS (a system call that its sandbox forbids: see dmesg)");
        server.wait_for(" gen=2 ");
        assert_eq!(server.get("/").status, 200);
    }
    // Without it neither ends in SIGSYS: `true` answers nothing and exits, the other is answered.
    let mut server = testbed(&[]);
    assert_eq!(server.get("/try?trace").text(), "done");
    let mut server = testbed(&[]);
    let mut client = server.connect();
    client.send("GET /try?execute HTTP/1.1\r\nHost: a\r\n\r\n");
    server.wait_for("exited with code 0");
}

#[test]
fn the_binary_confines_its_workers_by_itself_and_never_the_parent() {
    let mut server = Server::start(binary());
    assert_eq!(server.get("/").text(), "hello world\n");
    for worker in server.workers() {
        assert_eq!(status(worker.as_raw(), "NoNewPrivs"), "1");
        assert_eq!(status(worker.as_raw(), "Seccomp"), "2");
    }
    assert_eq!(status(server.pid().as_raw(), "NoNewPrivs"), "0");
    let mut command = binary();
    command.args(["--sandbox", "off"]);
    let server = Server::start(command);
    for worker in server.workers() {
        assert_eq!(status(worker.as_raw(), "NoNewPrivs"), "0");
        assert_eq!(status(worker.as_raw(), "Seccomp"), "0");
    }
}

#[test]
fn an_embedder_and_a_program_are_confined_only_when_asked() {
    let server = testbed(&[]);
    assert_eq!(status(server.workers()[0].as_raw(), "NoNewPrivs"), "0");
    for (variables, expected) in [(&[][..], "0"), (&[("FORKPOOL_SANDBOX", "strict")], "1")] {
        let mut command = binary();
        command.envs(variables.iter().copied()).args([
            "exec",
            "--adopt",
            "off",
            "--ready",
            "listen",
            "--workers",
            "1",
            "--",
            "sleep",
            "1000",
        ]);
        let server = Server::start(command);
        // The worker itself, which keeps the program, always is.
        let keeper = server.workers()[0];
        until("the keeper is confined", || (status(keeper.as_raw(), "Seccomp") == "2").then_some(()));
        let program = || children(keeper).into_iter().find(|pid| status(pid.as_raw(), "Name") == "sleep");
        assert_eq!(status(until("the program runs", program).as_raw(), "NoNewPrivs"), expected);
    }
}

#[test]
fn links_that_lead_anywhere_are_followed_in_the_sandbox() {
    let path: PathBuf = fresh_path("sandbox-links");
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(path.join("www")).expect("writable");
    fs::write(path.join("beside"), "beside").expect("writable");
    std::os::unix::fs::symlink(path.join("beside"), path.join("www/link")).expect("writable");
    for (symlinks, status) in [("anywhere", 200), ("inside", 404)] {
        let mut command = binary();
        command.args(["--root"]).arg(path.join("www")).args(["--symlinks", symlinks]);
        assert_eq!(Server::start(command).get("/link").status, status, "{symlinks}");
    }
    fs::remove_dir_all(&path).expect("ours");
}

#[test]
fn threads_come_after_the_sandbox() {
    for fixture in ["thread-first", "thread-first-whatever"] {
        let mut command = example("testbed");
        command.envs([("FORKPOOL_SANDBOX", "strict"), ("FORKPOOL_WORKERS", "1"), ("TESTBED", fixture)]);
        let (status, log) = Server::spawn(command).finish();
        assert_eq!(status.code(), Some(1), "{fixture}");
        assert!(log.iter().any(|line| line.contains("it has 2 threads; call ready before")), "{log:?}");
    }
    let mut server = testbed(&[("FORKPOOL_SANDBOX", "auto"), ("TESTBED", "thread-first")]);
    assert_eq!(server.get("/").status, 200);
    server.signal(Signal::SIGTERM);
    let (_, log) = server.finish();
    assert_eq!(log.iter().filter(|line| line.contains("sandbox: continuing without: ")).count(), 1, "{log:?}");
}

/// A field of `/proc/PID/status`.
#[track_caller]
fn status(pid: i32, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).expect(field);
    line.trim().to_owned()
}
