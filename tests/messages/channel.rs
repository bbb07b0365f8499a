//! What a hostile worker may send through its channel, and what the parent does with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::TcpStream;

use crate::support::{example, limit_descriptors, testbed, until, Client, Server};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

/// Two workers of the hostile program, whose application takes descriptors with its messages.
fn taking() -> Server {
    let mut command = example("hostile");
    command.envs([("FORKPOOL_WORKERS", "2"), ("HOSTILE_HOOK", "take"), ("FORKPOOL_DRAIN_TIMEOUT", "2s")]);
    Server::start(command)
}

fn descriptors(pid: Pid) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).expect("the parent lives").count()
}

/// The worker that answers, by what it says.
fn worker(text: &str) -> Pid {
    Pid::from_raw(text.trim().parse().expect("a pid"))
}

#[test]
fn the_parent_does_not_wait_for_a_connection_that_lingers() {
    let mut server = taking();
    let workers: BTreeSet<Pid> = server.workers().into_iter().collect();
    let before = descriptors(server.pid());
    let mut idle = Vec::new();
    let mut wanted = workers.clone();
    until("each worker has a client that takes nothing", || {
        let mut client = server.connect();
        wanted.remove(&worker(client.get("/").text()));
        client.send("GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
        idle.push(client);
        wanted.is_empty().then_some(())
    });
    // Made before anybody dies: whoever replaces the first one would be given all that come later.
    let mut attackers = BTreeMap::new();
    until("each worker has a client that asks for it", || {
        let mut client = server.connect();
        idle.extend(attackers.insert(worker(client.get("/").text()), client));
        (attackers.len() == workers.len()).then_some(())
    });
    for client in attackers.values_mut() {
        // No answer is waited for: it passes this connection on, too.
        client.send("GET /attack?linger HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    let passed = idle.len() + attackers.len();
    until("the application has got them all", || (server.count("took a descriptor") >= passed).then_some(()));
    for pid in &workers {
        // It may be dead already.
        let _ = kill(*pid, Signal::SIGKILL);
    }
    until("both are replaced", || {
        let now = server.workers();
        (now.len() == 2 && now.iter().all(|pid| !workers.contains(pid))).then_some(())
    });
    assert_eq!(server.get("/").status, 200);
    until("nothing that was passed is held", || (descriptors(server.pid()) <= before).then_some(()));
    server.signal(Signal::SIGTERM);
    // The connection lingers for longer than anybody waits here.
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn the_parent_does_not_wait_for_what_it_has_no_descriptor_for() {
    let mut command = example("hostile");
    let few = [("FORKPOOL_WORKERS", "1"), ("HOSTILE_HOOK", "take"), ("HOSTILE_FEW_FILES", "1")];
    command.envs(few);
    let mut server = Server::start(command);
    let before = descriptors(server.pid());
    let mut idle = server.connect();
    idle.send("GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut client = server.connect();
    let attacker = worker(client.get("/").text());
    client.send("GET /attack?too-many HTTP/1.1\r\nHost: a\r\n\r\n");
    let _ = client.try_answer(false);
    until("it is replaced", || {
        let now = server.workers();
        (now.len() == 1 && now[0] != attacker).then_some(())
    });
    until("nothing that was passed is held", || (descriptors(server.pid()) <= before).then_some(()));
    assert_eq!(server.get("/").status, 200);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
}

/// A pool of one worker that has a client which takes nothing, and whose parent has so many numbers free; `None` where
/// they cannot be taken from it.
fn cramped(free: usize) -> Option<(Server, Client<TcpStream>)> {
    let mut command = example("hostile");
    command.envs([("FORKPOOL_WORKERS", "1"), ("HOSTILE_HOOK", "take"), ("FORKPOOL_DRAIN_TIMEOUT", "2s")]);
    let mut server = Server::start(command);
    let mut idle = server.connect();
    idle.send("GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
    // It has been accepted before this.
    server.get("/");
    let is_free = |number: &usize| fs::symlink_metadata(format!("/proc/{}/fd/{number}", server.pid())).is_err();
    let most = (0..).filter(is_free).nth(free).expect("there is no end of numbers");
    limit_descriptors(server.pid(), most).then_some((server, idle))
}

#[test]
fn a_message_waits_while_there_is_no_descriptor_for_what_comes_with_it() {
    let Some((mut server, _idle)) = cramped(0) else { return };
    let mut client = server.connect();
    client.send("GET /attack?linger-and-live HTTP/1.1\r\nHost: a\r\n\r\n");
    server.wait_for("its messages wait: no descriptor is free");
    // It goes on meanwhile: without a descriptor it cannot fork, and says so.
    server.signal(Signal::SIGTTIN);
    server.wait_for("is RLIMIT_NOFILE too low?: ");
    assert_eq!(server.count("took a descriptor"), 0);
    limit_descriptors(server.pid(), 1000);
    server.wait_for("took a descriptor");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_message_with_more_descriptors_than_it_may_have_is_not_received() {
    let Some((mut server, _idle)) = cramped(1) else { return };
    let mut client = server.connect();
    client.send("GET /attack?linger-and-live:1 HTTP/1.1\r\nHost: a\r\n\r\n");
    server.wait_for("killed: it sent an invalid message: it carries several descriptors");
    limit_descriptors(server.pid(), 1000);
    server.wait_for(" ready");
    assert_eq!(server.get("/").status, 200);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn unrequested_descriptors_are_refused_and_logged_once() {
    let mut command = example("hostile");
    command.envs([("FORKPOOL_WORKERS", "1"), ("HOSTILE_HOOK", "1")]);
    let mut server = Server::start(command);
    let before = descriptors(server.pid());
    let mut client = server.connect();
    client.send("GET /attack?letters HTTP/1.1\r\nHost: a\r\n\r\n");
    server.wait_for("killed: it sent");
    server.wait_for("killed by SIGKILL");
    assert_eq!(server.get("/").status, 200);
    assert_eq!(server.count("killed: it s"), 1);
    until("it holds no descriptor more", || (descriptors(server.pid()) <= before).then_some(()));
}

#[test]
fn no_worker_is_forked_while_a_hook_has_a_thread() {
    let mut server = testbed(&[("TESTBED", "hook"), ("FORKPOOL_WORKERS", "2")]);
    let mut client = server.connect();
    client.send("GET /exit?code=46 HTTP/1.1\r\nHost: a\r\n\r\n");
    server.wait_for("this process has 2 threads");
    assert_eq!(server.get("/").status, 200, "the other worker serves");
    server.wait_for("the hook's thread has ended");
    until("there are two workers again", || (server.workers().len() == 2).then_some(()));
    assert_eq!(server.get("/").status, 200);
}

#[test]
fn a_kill_by_the_application_is_logged_as_its_own() {
    let mut command = example("messages");
    command.envs([("FORKPOOL_WORKERS", "1")]);
    let mut server = Server::start(command);
    let mut client = server.connect();
    client.send("GET /kill?9 HTTP/1.1\r\nHost: a\r\n\r\n");
    let line = server.wait_for("killed by SIGKILL");
    assert!(!line.contains("not by this pool"), "{line}");
}
