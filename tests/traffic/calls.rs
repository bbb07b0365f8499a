//! How many system calls a connection costs.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

use crate::support::{self, fresh_path, testbed, until};

const CONNECTIONS: usize = 20;

/// The connection of a client that has sent its request when it is accepted, and that ends with the response, is never
/// watched by epoll. setsockopt(2) clears the SO_LINGER that a neighbour may have set on the listener. poll(2) finds
/// the next connection.
#[test]
fn a_connection_for_each_request_takes_six_system_calls() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "1")]);
    // Kept, so that its end is not counted.
    let mut first = server.connect();
    let worker = first.get("/").worker();
    let path = fresh_path("calls");
    let Some(mut strace) = attach(worker, &path) else { return };
    // The parent, too, which would replace a worker that is stopped.
    server.signal(Signal::SIGSTOP);
    kill(worker, Signal::SIGSTOP).expect("it runs");
    // A worker that is not stopped yet would accept a client that has not sent.
    let is_stopped = || fs::read_to_string(&path).is_ok_and(|text| text.contains("stopped by SIGSTOP"));
    until("it is stopped", || is_stopped().then_some(()));
    let mut clients: Vec<_> = (0..CONNECTIONS).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send("GET /plaintext HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    }
    kill(worker, Signal::SIGCONT).expect("it is stopped");
    for client in &mut clients {
        assert_eq!(client.answer().status, 200);
        assert!(client.is_closed());
    }
    // Answered in a later turn, so all that the turns before it did is traced.
    assert_eq!(first.get("/").status, 200);
    kill(Pid::from_raw(strace.id() as i32), Signal::SIGTERM).expect("it runs");
    strace.wait().expect("it is a child");
    server.signal(Signal::SIGCONT);
    let text = fs::read_to_string(&path).expect("strace has written it");
    fs::remove_file(&path).expect("it is there");
    let counts = counts(&text);
    let count = |name: &str| counts.get(name).copied().unwrap_or(0);
    for (name, expected) in [
        ("accept4", CONNECTIONS),
        ("setsockopt", CONNECTIONS),
        ("recvfrom", CONNECTIONS + 1),
        ("sendto", CONNECTIONS + 1),
        ("close", CONNECTIONS),
        // Before each but the first, and in vain after the last.
        ("poll", CONNECTIONS),
    ] {
        assert_eq!(count(name), expected, "{name} in {counts:?}");
    }
    for name in ["epoll_ctl", "read", "shutdown", "getpeername", "getsockname", "getsockopt", "ioctl"] {
        assert_eq!(count(name), 0, "{name} in {counts:?}");
    }
    let in_vain = text.lines().filter(|line| line.starts_with("accept4(") && line.contains(" = -1 ")).count();
    assert_eq!(in_vain, 0, "accept4 that finds nothing, in {text}");
}

/// Traces a process; `None`, with the reason, if that is impossible here.
fn attach(pid: Pid, path: &Path) -> Option<Child> {
    let mut command = Command::new("strace");
    command.args(["-p", &pid.to_string(), "-o"]).arg(path).stdin(Stdio::null()).stderr(Stdio::piped());
    let Ok(mut strace) = command.spawn() else {
        support::skip("strace is missing");
        return None;
    };
    let mut first = String::new();
    let stderr = strace.stderr.take().expect("it is piped");
    BufReader::new(stderr).read_line(&mut first).expect("it is text");
    if !first.contains("attached") {
        strace.wait().expect("it is a child");
        support::skip(&format!("strace cannot attach to a process: {}", first.trim()));
        return None;
    }
    Some(strace)
}

/// How many times each system call has not failed.
fn counts(text: &str) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for line in text.lines().filter(|line| !line.contains(" = -1 ")) {
        if let Some((name, _)) = line.split_once('(') {
            *counts.entry(name).or_default() += 1;
        }
    }
    counts
}
