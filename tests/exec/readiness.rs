//! Programs that say themselves that they are ready, and those that never are.

use std::fs;
use std::net::TcpStream;
use std::process::Command;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::{exec, program, programs};
use crate::support::{example, fresh_path, is_gone, until, Server};

#[test]
fn a_program_says_itself_that_it_is_ready() {
    let directory = fresh_path("notify");
    fs::create_dir_all(&directory).expect("a writable directory");
    let mut command = exec("2", &["--ready", "notify"], &program("listen_fds").expect("built"));
    command.env("TMPDIR", &directory);
    let mut server = Server::start(command);
    assert_eq!(server.get("/").status, 200);
    server.signal(Signal::SIGHUP);
    server.wait_for("rolling restart done");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
    let left = fs::read_dir(&directory).expect("the directory").count();
    assert_eq!(left, 0, "sockets are left");
    fs::remove_dir(&directory).expect("it is empty");
}

/// It sends more descriptors than the parent can open, and last those of clients that take nothing, of which the last
/// to close them would wait for ten minutes.
#[test]
fn the_parent_does_not_wait_for_what_a_program_notifies() {
    for end in ["stay", "exit"] {
        let hostile = example("hostile");
        let hostile = hostile.get_program().to_str().expect("text");
        let inner = exec("1", &["--ready", "notify", "--drain-timeout", "2s"], &[hostile, "program"]);
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -n 1024 && exec \"$@\"", "sh"]).arg(inner.get_program()).args(inner.get_args());
        command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let mut server = Server::start(command);
        let descriptors = |pid: Pid| fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives").count();
        let before = descriptors(server.pid());
        let attacker = programs(&server)[0];
        let mut idle = server.connect();
        idle.send("GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(server.get("/").text(), attacker.to_string(), "the program has that client");
        // All of it is there when the parent looks.
        server.signal(Signal::SIGSTOP);
        assert_eq!(server.get(&format!("/{end}")).text(), "sent 5 notifications and 1 clients");
        server.signal(Signal::SIGCONT);
        server.signal(Signal::SIGHUP);
        server.wait_for("rolling restart done");
        // A program that is replaced dies of the signal, with what it has: the attacker, or the one that has followed
        // it.
        until("the attacker is gone", || is_gone(attacker).then_some(()));
        until("one program is left", || (programs(&server).len() == 1).then_some(()));
        assert_ne!(server.get("/").text(), attacker.to_string());
        until("nothing that was passed is held", || (descriptors(server.pid()) <= before).then_some(()));
        server.signal(Signal::SIGTERM);
        assert_eq!(server.wait().code(), Some(0));
    }
}

#[test]
fn a_program_that_notifies_needs_no_directory() {
    let mut command = exec("1", &["--ready", "notify"], &["sh", "-c", "echo socket=$NOTIFY_SOCKET; exec sleep 600"]);
    // Too long for the path of a socket, and none is made in it.
    let long = fresh_path(&"x".repeat(120));
    fs::create_dir_all(&long).expect("a writable directory");
    command.env("TMPDIR", &long).env("RUNTIME_DIRECTORY", &long);
    let mut server = Server::spawn(command);
    let line = server.wait_for("socket=");
    assert!(line.contains("socket=/tmp/forkpool-") || line.contains("socket=@forkpool-"), "{line}");
    let left = fs::read_dir(&long).expect("the directory").count();
    assert_eq!(left, 0, "nothing is left");
    fs::remove_dir(&long).expect("it is empty");
}

#[test]
fn a_program_whose_sign_does_not_come_is_not_ready() {
    let refused = "boot-timeout: 200ms is over before the program is ready";
    for (ready, line) in [("notify", "killed: not ready 200ms after its start"), ("delay:24h", refused)] {
        let options = ["--ready", ready, "--boot-timeout", "200ms"];
        let mut server = Server::spawn(exec("1", &options, &["sleep", "600"]));
        server.wait_for(line);
        assert_ne!(server.wait().code(), Some(0));
        assert!(!server.log().iter().any(|line| line.ends_with(" ready")), "{ready}");
    }
}

#[test]
fn a_program_that_stops_its_keeper_before_it_is_ready_is_replaced() {
    let taken = fresh_path("stopped");
    let program = example("listen_fds").get_program().to_str().expect("text").to_owned();
    let script =
        format!("if mkdir {0} 2>/dev/null; then kill -STOP $PPID; exec sleep 600; fi; exec {program}", taken.display());
    // Nobody waits for the boot timeout.
    let mut server = Server::spawn(exec("2", &["--boot-timeout", "0"], &["sh", "-c", &script]));
    server.wait_for("killed: a signal had stopped it before it was ready");
    server.wait_for("listening on ");
    until("all are of the pool", || (server.workers().len() == 2).then_some(()));
    assert_eq!(server.get("/").status, 200);
    fs::remove_dir(taken).expect("the first program has made it");
}

/// It is never seen to wait.
#[test]
fn a_program_that_closes_the_socket_before_it_is_ready_and_has_accepted_is_noticed() {
    if program("python3").is_none() {
        return;
    }
    let script = "
import os, socket, sys, time
listener = socket.socket(fileno=3)
print('port', listener.getsockname()[1], file=sys.stderr, flush=True)
taken = 0
while taken < 10:
    time.sleep(0.1)
    try: listener.accept()[0].close()
    except BlockingIOError: continue
    taken += 1
listener.close()
time.sleep(600)";
    let mut server = Server::spawn(exec("1", &["--boot-timeout", "0"], &["python3", "-c", script]));
    let line = server.wait_for("port ");
    let port: u16 = line.rsplit(' ').next().and_then(|port| port.parse().ok()).expect("a port");
    let _clients: Vec<_> = (0..11).map(|_| TcpStream::connect(("127.0.0.1", port)).expect("it listens")).collect();
    server.wait_for("it had closed the pool's socket");
}

#[test]
fn a_program_is_ready_after_a_while() {
    let mut server = Server::start(exec("2", &["--ready", "delay:1ms"], &["sleep", "600"]));
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
}
