//! Workers that hang, pools that give up or take their time to leave, and applications that have a say in it.
//!
//! Tried without the backtrace, the lame duck and the giving up: each makes a test fail.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::{example, fresh_path, testbed, until, Client, Server};
use nix::sys::signal::{kill, Signal};

#[test]
fn a_worker_that_hangs_says_where() {
    let mut server = testbed(&[("FORKPOOL_STALL_TIMEOUT", "1s"), ("FORKPOOL_ON_STALL", "abort")]);
    let mut client = server.connect();
    let worker = client.get("/").worker();
    client.send("GET /slow?ms=60000 HTTP/1.1\r\nHost: a\r\n\r\n");
    server.wait_for("killed: busy with one request for 1s (stall-timeout)");
    let line = server.wait_for(&format!("pid={worker} aborted here:"));
    // More than the handler itself, and as addr2line(1) takes it.
    assert!(line.matches("/testbed+0x").count() > 5, "{line}");
    server.wait_for(&format!("pid={worker} killed by SIGABRT"));
    assert!(client.try_answer(false).is_err());
    // Its replacement does not wait for all that.
    until("it is replaced", || (server.count(" gen=2 ") > 0).then_some(()));
}

#[test]
fn a_lame_duck_serves_until_its_time() {
    // Once more where this machine has not let the client ask in time.
    until("it is asked in time", || {
        let mut server = testbed(&[("FORKPOOL_LAME_DUCK", "2s"), ("FORKPOOL_DRAIN_TIMEOUT", "1s")]);
        let begun = Instant::now();
        server.signal(Signal::SIGTERM);
        server.wait_for("lame duck: no longer ready, draining in 2s (lame-duck)");
        // New connections are served, and answers are not the last ones yet.
        let asked = TcpStream::connect(("127.0.0.1", server.port())).and_then(|it| Client::new(it).try_get("/"));
        let is_in_time = begun.elapsed() < Duration::from_secs(2);
        if is_in_time {
            let answer = asked.expect("it serves");
            assert_eq!((answer.status, answer.closes()), (200, false));
        }
        assert_eq!(server.wait().code(), Some(0));
        // Not a measurement: it tells "later" from "at once".
        assert!(begun.elapsed().as_millis() >= 2000);
        is_in_time.then_some(())
    });
}

#[test]
fn a_pool_gives_up_where_that_is_configured() {
    let marker = fresh_path("gives-up");
    let fixture = format!("fail-while:{}", marker.display());
    let mut server = testbed(&[("TESTBED", &fixture), ("FORKPOOL_GIVE_UP", "3")]);
    let [steady, victim] = server.workers()[..] else { panic!("two workers") };
    // Those that come after it have not served, however slow this test is.
    std::fs::write(&marker, "").expect("a writable directory");
    kill(victim, Signal::SIGKILL).expect("it runs");
    let (status, log) = server.finish();
    std::fs::remove_file(&marker).expect("it is there");
    assert_eq!(status.code(), Some(1));
    let why = "worker=1 gave up after 3 failures in a row (give-up), draining; ";
    assert!(log.iter().any(|line| line.contains(why)), "{log:?}");
    assert!(log.iter().any(|line| line.contains(&format!("pid={steady} exited with code 0"))), "{log:?}");
}

/// A pool whose application prints its events, and acts on exit codes.
fn hooked() -> Server {
    let mut command = example("testbed");
    command.envs([("TESTBED", "hook"), ("FORKPOOL_WORKERS", "2"), ("FORKPOOL_DRAIN_TIMEOUT", "1s")]);
    Server::start(command)
}

fn exit(server: &mut Server, code: u32) {
    let mut client = server.connect();
    client.send(format!("GET /exit?code={code} HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert!(client.try_answer(false).is_err());
}

#[test]
fn events_reach_the_application_in_order() {
    let mut command = example("testbed");
    command.envs([("TESTBED", "hook"), ("FORKPOOL_WORKERS", "1")]);
    let mut server = Server::spawn(command);
    for event in ["Forked(", "Online(", "Listening {", "Ready(", "Serving"] {
        let line = server.wait_for(&format!("event {event}"));
        assert!(event == "Serving" || line.contains("worker: 0, generation: 1, pid: "), "{line}");
    }
    let (port, pid) = (server.port(), server.workers()[0]);
    let log = server.log().to_vec();
    assert!(log.iter().any(|line| line.contains(&format!("addresses: [127.0.0.1:{port}]"))), "{log:?}");
    assert!(log.iter().any(|line| line.starts_with("status ") && line.contains("state: Ready")), "{log:?}");
    exit(&mut server, 3);
    server.wait_for("event Disconnected(Process { worker: 0, generation: 1");
    let line = server.wait_for("event Exited");
    let process = format!("Process {{ worker: 0, generation: 1, pid: {pid}, unique_id: 1 }}");
    assert!(line.contains(&format!("{process}, code: Some(3), signal: None, was_requested: false")), "{line}");
    server.wait_for("event Ready(Process { worker: 0, generation: 2");
    server.signal(Signal::SIGTERM);
    server.wait_for("event Stopping");
    server.wait_for("event Disconnected(Process { worker: 0, generation: 2");
    server.wait_for("is leaving: Some(true)");
    let line = server.wait_for("event Exited");
    assert!(line.contains("code: Some(0), signal: None, was_requested: true"), "{line}");
}

#[test]
fn the_application_may_restart_scale_upgrade_and_stop() {
    let mut server = hooked();
    exit(&mut server, 40);
    server.wait_for("event RestartBegun");
    server.wait_for("event RestartDone");
    exit(&mut server, 41);
    server.wait_for("event Scaled { from: 2, to: 3 }");
    until("there are three", || (server.workers().len() == 3).then_some(()));
    exit(&mut server, 45);
    server.wait_for("the application's hook panicked: the hook was told to panic");
    assert_eq!(server.get("/").status, 200);
    exit(&mut server, 42);
    server.wait_for("event UpgradeDone");
    assert_eq!(server.wait().code(), Some(0));
    // The new pool is the same program.
    exit(&mut server, 43);
    server.wait_for("draining: requested by the application");
    let mut server = hooked();
    exit(&mut server, 44);
    server.wait_for("stopping: requested by the application");
    assert_eq!(server.wait().code(), Some(0));
}

/// Two workers, whose exit codes say when they are replaced; and the application's hook.
fn with_policy(workers: &str) -> Server {
    let mut command = example("testbed");
    command.envs([("TESTBED", "policy"), ("FORKPOOL_WORKERS", workers)]);
    Server::start(command)
}

#[test]
fn the_application_decides_about_workers_that_exit() {
    let mut server = with_policy("1");
    // A third failure within a second would wait, by the pool's own policy.
    for (generation, code) in [(2, 52), (3, 52), (4, 52), (5, 53), (6, 54)] {
        exit(&mut server, code);
        server.wait_for(&format!("event Exited {{ process: Process {{ worker: 0, generation: {}", generation - 1));
        server.wait_for("still there: None");
        server.wait_for(&format!("event Ready(Process {{ worker: 0, generation: {generation}"));
        server.wait_for("is leaving: Some(false)");
    }
    assert_eq!(server.count("on_exit hook panicked, backing off: the policy was told to panic"), 1);
    assert_eq!(server.count("event BackingOff"), 0);
    exit(&mut server, 51);
    let (status, log) = server.finish();
    assert!(status.success(), "{log:?}");
    assert!(log.iter().any(|line| line.contains("draining: requested by the application (on_exit)")), "{log:?}");
}

#[test]
fn a_slot_is_left_empty_until_a_restart() {
    let mut server = with_policy("2");
    exit(&mut server, 50);
    server.wait_for("not started again: requested by the application");
    until("one is left", || (server.workers().len() == 1).then_some(()));
    // The one that is left has all the connections.
    for _ in 0..20 {
        assert_eq!(server.get("/").worker(), server.workers()[0]);
    }
    server.signal(Signal::SIGHUP);
    server.wait_for("event RestartDone");
    until("there are two again", || (server.workers().len() == 2).then_some(()));
}

#[test]
fn a_pool_whose_slots_are_all_left_empty_ends() {
    let mut server = with_policy("1");
    exit(&mut server, 50);
    let (status, log) = server.finish();
    assert!(status.success(), "{log:?}");
    assert!(log.iter().any(|line| line.contains("stopping: no worker is left")), "{log:?}");
}

#[test]
fn the_application_is_told_that_the_pool_gives_up() {
    let mut command = example("testbed");
    command.envs([("TESTBED", "hook"), ("FORKPOOL_WORKERS", "1"), ("FORKPOOL_GIVE_UP", "1")]);
    let mut server = Server::start(command);
    // One that has served does not count.
    exit(&mut server, 3);
    server.wait_for("event Exited");
    server.wait_for("event Ready");
    // Its successor has served as well once it has lived for a second: then it is the next one's turn.
    let status = until("the pool ends", || {
        server.workers().first().map(|worker| kill(*worker, Signal::SIGKILL));
        server.try_wait()
    });
    assert!(!status.success());
    let told = server.wait_for("event GaveUp");
    assert!(told.contains("worker: 0, failures: 1, reason: \"killed by SIGKILL"), "{told}");
}

#[test]
fn a_stalled_worker_is_not_reported_as_leaving() {
    let mut command = example("testbed");
    command.envs([("TESTBED", "hook"), ("FORKPOOL_WORKERS", "1"), ("FORKPOOL_STALL_TIMEOUT", "1s")]);
    let mut server = Server::start(command);
    let mut client = server.connect();
    client.send("GET /slow?ms=60000 HTTP/1.1\r\nHost: a\r\n\r\n");
    server.wait_for("event Stalled");
    let line = server.wait_for("event Exited");
    assert!(line.contains("signal: Some(9), was_requested: false"), "{line}");
}

#[test]
fn a_worker_that_leaves_is_no_stall() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "1"), ("FORKPOOL_STALL_TIMEOUT", "1s"), ("TESTBED", "hook")]);
    let mut client = server.connect();
    client.send("POST /slow?ms=2000 HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n");
    assert_eq!(client.answer().status, 100);
    server.signal(Signal::SIGHUP);
    server.wait_for("rolling restart done");
    client.send("x");
    assert_eq!(client.answer().status, 200);
    server.wait_for("exited with code 0");
    assert_eq!(server.count("event Stalled"), 0);
}
