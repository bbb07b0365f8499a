//! Programs that lie, die, hide or hang in the calls that their keeper answers. They must harm nobody else.

use std::time::Duration;

use super::*;

/// A pool with such a program must serve, restart and end as usual.
fn harms_nobody(what: &str) {
    let Some(path) = server() else { return };
    let mut server = Server::start(exec(&["--adopt", "require"], &format!("exec {path} {what} $PORT")));
    for _ in 0..4 {
        is_answered(&mut server, "c");
    }
    restart(&mut server, 2);
    is_answered(&mut server, "c");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0), "{:?}", server.log());
}

#[test]
fn an_address_that_changes_while_it_is_read() {
    harms_nobody("lies");
}

#[test]
fn processes_that_are_killed_inside_a_call() {
    harms_nobody("dies");
}

#[test]
fn a_flood_of_binds() {
    harms_nobody("floods");
}

/// The keeper waits for memory that nobody provides, and is finally killed like any worker that does not obey. The
/// other worker and the parent go on.
#[test]
fn memory_that_makes_the_keeper_wait() {
    let Some(path) = server() else { return };
    let options = ["--adopt", "require", "--drain-timeout", "1s"];
    let mut server = Server::spawn(exec(&options, &format!("exec {path} blocks $PORT")));
    let mut said = |part: &str| server.log().iter().find(|line| line.contains(part)).cloned();
    let has_none = until("it blocks", || match said("blocks its keeper") {
        Some(_) => Some(false),
        None => said("it has no userfaultfd(2)").map(|_| true),
    });
    if has_none {
        return skip("this kernel has no userfaultfd(2) for us");
    }
    let line = until("the other one binds", || said("gets the pool's socket, "));
    let port = line.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    until("the other one serves", || {
        let mut client = TcpStream::connect(("127.0.0.1", port)).ok()?;
        client.set_read_timeout(Some(Duration::from_secs(1))).expect("it is a socket");
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").ok()?;
        client.read_exact(&mut [0; 15]).ok()
    });
    let keepers = server.workers();
    assert_eq!(keepers.len(), 2);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0), "{:?}", server.log());
    until("no keeper is left", || keepers.iter().all(|keeper| is_gone(*keeper)).then_some(()));
}

/// Root can read the memory of every process, so the keeper must run as another user.
#[test]
fn a_program_with_hidden_memory_is_told_of_and_may_use_its_number() {
    if !Uid::effective().is_root() {
        return skip("only root can be another user");
    }
    let Some(path) = server() else { return };
    let options = ["--adopt", "require", "--user", "65534", "--give-up", "1"];
    let mut server = Server::spawn(exec(&options, &format!("exec {path} hidden $PORT")));
    server.wait_for("since its memory is hidden");
    assert_ne!(server.wait().code(), Some(0));
}

#[test]
fn a_program_that_watches_too_early_fails_at_once_and_is_told_why() {
    let Some(path) = server() else { return };
    let options = ["--adopt", "require", "--give-up", "1"];
    let mut server = Server::spawn(exec(&options, &format!("exec {path} watches $PORT")));
    server.wait_for("watches a socket by epoll(7) before it binds it to 0.0.0.0:");
    assert_ne!(server.wait().code(), Some(0));
}

/// Whatever the program makes its keeper read, the keeper can do little.
#[test]
fn a_keeper_can_do_no_more_than_it_needs_and_its_program_everything() {
    let Some(path) = server() else { return };
    let mut server = Server::start(exec(&["--adopt", "require"], &format!("exec {path} $PORT")));
    let said = |pid: Pid, name: &str| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("it is there");
        line.trim_start_matches(':').trim().to_owned()
    };
    is_answered(&mut server, "c");
    for keeper in server.workers() {
        assert_eq!((said(keeper, "Seccomp"), said(keeper, "NoNewPrivs")), ("2".to_owned(), "1".to_owned()));
        if Uid::effective().is_root() {
            assert_eq!(said(children(keeper)[0], "NoNewPrivs"), "0");
        }
    }
    drop(server);
    let mut intruder = support::example("intruder");
    intruder.env("FORKPOOL_WORKERS", "1").args(["sh", "-c", &format!("exec {path} $LISTEN_FDNAMES")]);
    let mut server = Server::spawn(intruder);
    for (what, outcome) in [
        ("start", "Operation not permitted (os error 1)"),
        ("write", "Operation not permitted (os error 1)"),
        ("connect", "Operation not permitted (os error 1)"),
        ("listen", "Operation not permitted (os error 1)"),
        ("signal", "Operation not permitted (os error 1)"),
        ("read", "done"),
    ] {
        assert!(server.wait_for(&format!("tried: {what}: ")).ends_with(outcome), "{what}: {:?}", server.log());
    }
}

#[test]
fn an_idle_keeper_is_small() {
    let Some(path) = server() else { return };
    let server = Server::start(exec(&["--adopt", "require"], &format!("exec {path} $PORT")));
    for keeper in server.workers() {
        let smaps = fs::read_to_string(format!("/proc/{keeper}/smaps_rollup")).expect("it runs");
        let private = smaps.lines().find_map(|line| line.strip_prefix("Private_Dirty:")).expect("a number of kB");
        let private: u64 = private.trim().trim_end_matches(" kB").parse().expect("a number");
        assert!(private <= 300, "{private} kB");
    }
}
