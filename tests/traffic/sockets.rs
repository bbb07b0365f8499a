//! A worker breaks the sockets that it has: the pool mends them, and a confined worker cannot.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use crate::support::{self, example, fresh_path, until, Client, Server};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

fn sabotage(variables: &[(&str, &str)]) -> Server {
    let mut command = example("sabotage");
    command.env("FORKPOOL_WORKERS", "4").envs(variables.iter().copied());
    Server::start(command)
}

/// Connects until every worker has answered, and each time somebody does. All stay connected: the kernel may take a
/// worker for the busiest whose first connection a neighbour has taken, until that is settled or the others have more.
#[track_caller]
fn all_serve(server: &mut Server) {
    until("four workers are there", || (server.workers().len() == 4).then_some(()));
    let workers: BTreeSet<Pid> = server.workers().into_iter().collect();
    let (mut answered, mut clients) = (BTreeSet::new(), Vec::new());
    // Where one of them is late, others look after its queue.
    until(&format!("each of {workers:?} answers"), || {
        let mut client = server.connect();
        answered.insert(client.get("/").worker());
        clients.push(client);
        (answered == workers).then_some(())
    });
}

/// Kills a worker, and has all of them replaced.
#[track_caller]
fn kill_and_restart(server: &mut Server, worker: Pid) {
    // One that waits in accept(2) may have been killed by the pool already.
    let _ = kill(worker, Signal::SIGKILL);
    server.wait_for("killed by SIGKILL");
    server.signal(Signal::SIGHUP);
    server.wait_for("rolling restart done");
}

#[test]
fn a_listener_that_was_shut_down_is_replaced() {
    for balance in ["auto", "random", "hash"] {
        let mut server = sabotage(&[("FORKPOOL_BALANCE", balance)]);
        let before = server.workers();
        // Its own and, as a neighbour, those of all others.
        assert_eq!(server.get("/sockets?shutdown").text(), "done to 4");
        server.wait_for("it was shut down");
        until("all are replaced", || {
            let now = server.workers();
            (now.len() == 4 && now.iter().all(|pid| !before.contains(pid))).then_some(())
        });
        all_serve(&mut server);
        assert_eq!(server.count("stops accepting until"), 0, "the others went on");
    }
}

#[test]
fn changes_of_sockets_end_with_the_worker_that_made_them() {
    for (what, balance) in [
        ("unblock", "auto"),
        ("unblock-by-ioctl", "random"),
        ("filter", "hash"),
        ("leave", "auto"),
        ("leave", "random"),
        ("steer", "auto"),
        ("steer", "random"),
        ("steer", "hash"),
    ] {
        // Who waits in accept(2) is killed, whether it serves or drains.
        let mut server = sabotage(&[
            ("FORKPOOL_BALANCE", balance),
            ("FORKPOOL_STALL_TIMEOUT", "2s"),
            ("FORKPOOL_DRAIN_TIMEOUT", "2s"),
        ]);
        let answer = server.get(&format!("/sockets?{what}"));
        assert_eq!(answer.text(), "done to 4", "{what}");
        kill_and_restart(&mut server, answer.worker());
        all_serve(&mut server);
    }
}

#[test]
fn a_unix_socket_that_was_shut_down_is_replaced() {
    let path = fresh_path("sockets.sock");
    let listen = format!("unix:{}", path.display());
    let mut command = example("sabotage");
    command.envs([("FORKPOOL_WORKERS", "2"), ("FORKPOOL_LISTEN", &listen), ("FORKPOOL_UNIX_MODE", "0640")]);
    let mut server = Server::start(command);
    let connect = || {
        let stream = UnixStream::connect(&path).ok()?;
        stream.set_read_timeout(Some(support::DEADLINE)).expect("a socket");
        Some(Client::new(stream))
    };
    let mode = || fs::symlink_metadata(&path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(), 0o640);
    assert_eq!(connect().expect("it listens").get("/sockets?shutdown").text(), "done to 1");
    server.wait_for("making a new socket and replacing all workers");
    assert_eq!(mode(), 0o640);
    assert_eq!(connect().expect("it listens").get("/").text(), "here\n");
    server.wait_for("rolling restart done");
    for _ in 0..10 {
        assert_eq!(connect().expect("it listens").get("/").text(), "here\n");
    }
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
    assert!(!path.exists());
}

#[test]
fn a_confined_worker_breaks_no_socket_and_uses_what_it_has_open() {
    let path = fresh_path("database");
    fs::write(&path, "").expect("writable");
    let database = path.to_str().expect("text");
    let mut command = example("sabotage");
    command.envs([("FORKPOOL_WORKERS", "2"), ("FORKPOOL_SANDBOX", "strict"), ("DATABASE", database)]);
    let mut server = Server::spawn(command);
    if server.wait_for_any(&["listening on ", "no worker could start"]).contains("no worker") {
        return support::skip("this kernel has not all of the sandbox");
    }
    for what in ["shutdown", "unblock", "unblock-by-ioctl", "filter", "leave", "steer"] {
        let answer = server.get(&format!("/sockets?{what}"));
        assert_eq!(answer.text(), "Operation not permitted (os error 1)", "{what}");
    }
    assert_eq!(server.get("/store").text(), "done");
    for (path, text) in [
        ("/dev/null", "done"),
        ("w:/dev/null", "done"),
        ("/dev/urandom", "done"),
        ("/usr/share/zoneinfo", "done"),
        ("/etc/passwd", "Permission denied (os error 13)"),
        ("w:/dev/zero", "Permission denied (os error 13)"),
        (database, "Permission denied (os error 13)"),
    ] {
        let text = if path.contains("zoneinfo") && !fs::exists(path).unwrap_or(false) { "" } else { text };
        assert!(server.get(&format!("/open?{path}")).text().contains(text), "{path}");
    }
    assert_eq!(server.count("broken socket"), 0);
}
