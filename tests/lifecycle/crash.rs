//! A worker dies: it is replaced, the log says how it died, and the others serve.

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::thread::sleep;
use std::time::Duration;

use crate::support::sockets::{count_tcp_sockets, LISTEN};
use crate::support::{example, fresh_path, is_gone, skip, testbed, until, Client, Server};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

/// Makes one worker die by a request; its client gets no answer.
fn provoke(server: &mut Server, target: &str) {
    let mut client = server.connect();
    client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert!(client.try_answer(false).is_err(), "{target}");
}

#[test]
fn the_log_says_how_a_worker_has_ended() {
    for (target, expected) in [
        ("/exit?code=3", "exited with code 3 in GET /exit, 1 requests on 1 connections"),
        ("/exit?code=0", "exited with code 0 in GET /exit, 1 requests on 1 connections"),
        ("/abort", "killed by SIGABRT"),
    ] {
        let mut server = testbed(&[]);
        let before = server.workers();
        provoke(&mut server, target);
        let line = server.wait_for(expected);
        assert!(line.contains(" gen=1 pid="), "{line}");
        let ready = server.wait_for(" ready");
        assert!(ready.contains(" gen=2 pid="), "{ready}");
        until("there are two again", || (server.workers().len() == 2).then_some(()));
        assert_eq!(server.workers().iter().filter(|pid| before.contains(pid)).count(), 1);
        assert_eq!(server.get("/").status, 200);
    }
}

#[test]
fn a_killed_worker_is_replaced_and_its_queue_is_served() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "1")]);
    let mut busy = server.connect();
    let worker = busy.get("/").worker();
    busy.send("GET /sliced?ms=600000 HTTP/1.1\r\nHost: a\r\n\r\n");
    server.wait_for("serves /sliced");
    // They wait in the queue of a socket that outlives the worker.
    let mut waiting: Vec<_> = (0..50).map(|_| server.connect()).collect();
    for client in &mut waiting {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    kill(worker, Signal::SIGKILL).expect("it runs");
    for client in &mut waiting {
        assert_ne!(client.answer().worker(), worker);
    }
    server.wait_for("killed by SIGKILL (not by this pool: out of memory, or by hand)");
}

#[test]
fn a_panic_costs_its_connection_and_not_the_worker() {
    let mut server = testbed(&[]);
    let mut client = server.connect();
    let worker = client.get("/").worker();
    let answer = client.get("/panic");
    assert_eq!((answer.status, answer.worker()), (500, worker));
    assert!(answer.closes() && client.is_closed());
    let line = server.wait_for("panicked in GET /panic: the testbed was told to panic");
    assert!(line.contains(&format!("pid={worker} ")), "{line}");
    assert!(!is_gone(worker));
}

#[test]
fn a_panic_ends_the_worker_when_told_to() {
    let mut server = testbed(&[("FORKPOOL_ON_PANIC", "exit")]);
    provoke(&mut server, "/panic");
    server.wait_for("panicked in GET /panic: the testbed was told to panic");
    server.wait_for("exited with code 101: panicked: the testbed was told to panic in GET /panic, 1 requests on");
    server.wait_for(" gen=2 ");
    assert_eq!(server.get("/").status, 200);
}

#[test]
fn a_pool_recovers_from_repeated_kills_of_all_workers() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "3")]);
    for _ in 0..5 {
        let before: BTreeSet<_> = server.workers().into_iter().collect();
        for worker in &before {
            kill(*worker, Signal::SIGKILL).expect("it runs");
        }
        let whole = || {
            let now = server.workers();
            (now.len() == 3 && now.iter().all(|pid| !before.contains(pid))).then_some(())
        };
        until("all are replaced", whole);
    }
    assert_eq!(server.get("/").status, 200);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_crash_loop_backs_off_while_the_others_serve() {
    let marker = fresh_path("crash-loop");
    let mut server = testbed(&[("TESTBED", &format!("fail-while:{}", marker.display()))]);
    let mut steady = server.connect();
    let survivor = steady.get("/").worker();
    let victim = server.workers().into_iter().find(|pid| *pid != survivor).expect("there are two");
    // From now on none gets so far as to have served, which would make its end the first one again.
    std::fs::write(&marker, "").expect("a writable directory");
    kill(victim, Signal::SIGKILL).expect("it runs");
    let mut delays = Vec::new();
    while delays.len() < 4 {
        let line = server.wait_for(" backing off for ");
        let (_, delay) = line.split_once(" backing off for ").expect("it is there");
        delays.extend(delay.split(' ').next().and_then(|delay| delay.parse::<u64>().ok()));
        assert_eq!(steady.get("/").worker(), survivor);
    }
    std::fs::remove_file(&marker).expect("it is there");
    // The first respawn was immediate; then a quarter of a second after the one before, or half of 100, 200, 400 ...
    // milliseconds and up.
    for (delay, full) in delays.iter().zip([250, 250, 400, 800]) {
        // A little more where the parent is late itself, as on a busy machine.
        assert!((1..=full + 250).contains(delay), "{delays:?}");
    }
    assert!(delays[3] >= 400, "{delays:?}");
}

#[test]
fn a_worker_that_has_served_is_replaced_at_once_each_time() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "1"), ("FORKPOOL_GIVE_UP", "2")]);
    for _ in 0..10 {
        // It waits in the slot's queue if the worker is not there yet.
        provoke(&mut server, "/abort");
    }
    assert_eq!(server.get("/").status, 200);
    server.signal(Signal::SIGTERM);
    let (status, log) = server.finish();
    assert!(status.success(), "{log:?}");
    let count = |part: &str| log.iter().filter(|line| line.contains(part)).count();
    assert_eq!((count("killed by SIGABRT"), count("backing off"), count("gave up")), (10, 0, 0));
}

/// Without a connection counted, as for programs: that it lived for a second is enough.
#[test]
fn a_worker_that_does_not_count_has_served_after_a_second() {
    let mut command = example("testbed");
    command.envs([("TESTBED", "plain"), ("FORKPOOL_WORKERS", "1"), ("FORKPOOL_GIVE_UP", "1")]);
    let mut server = Server::start(command);
    for generation in 1..=2 {
        let tag = format!(" gen={generation} pid=");
        let line = until("it is ready", || {
            let is_ready = |line: &&String| line.contains(&tag) && line.ends_with(" ready");
            server.log().iter().find(is_ready).cloned()
        });
        let pid = line.split_once(" pid=").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
        let worker = Pid::from_raw(pid.expect("it names its pid"));
        // It counts from then on, and nothing waits for it.
        sleep(Duration::from_millis(1100));
        kill(worker, Signal::SIGKILL).expect("it runs");
        until("it is gone", || is_gone(worker).then_some(()));
    }
    server.wait_for("gen=3 ");
    assert_eq!((server.count("backing off"), server.count("gave up")), (0, 0));
}

#[test]
fn a_fork_that_fails_is_logged_with_its_reason() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "1")]);
    let cgroup = std::path::PathBuf::from(format!("/sys/fs/cgroup/pids/forkpool-test-{}", server.pid()));
    let limited = std::fs::create_dir(&cgroup)
        .and_then(|()| std::fs::write(cgroup.join("cgroup.procs"), server.pid().to_string()))
        .and_then(|()| std::fs::write(cgroup.join("pids.max"), "1"));
    if let Err(error) = limited {
        return skip(&format!("no cgroup with a limit of processes can be made in /sys/fs/cgroup/pids: {error}"));
    }
    server.signal(Signal::SIGTTIN);
    let reason =
        "cannot fork a worker with fork(2): Resource temporarily unavailable (os error 11); is RLIMIT_NPROC or \
                  the pids cgroup's limit reached?";
    server.wait_for(&format!("worker=1 {reason}"));
    server.wait_for(&format!("scaling failed, still trying for 2 workers; worker=1 {reason}"));
    std::fs::write(cgroup.join("pids.max"), "max").expect("it is ours");
    server.wait_for("worker=1 gen=");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
    until("the cgroup is empty", || std::fs::remove_dir(&cgroup).ok());
}

#[test]
fn a_pool_whose_workers_all_fail_to_start_ends_with_the_reason() {
    let mut command = example("testbed");
    command.env("TESTBED", "fail").env("FORKPOOL_WORKERS", "3");
    let (status, log) = Server::spawn(command).finish();
    assert_eq!(status.code(), Some(1));
    let last = log.last().expect("it says why");
    assert!(last.contains("no worker could start: "), "{log:?}");
    assert!(last.contains("exited with code 1: the testbed was told to fail"), "{log:?}");
}

#[test]
fn a_worker_that_is_not_ready_in_time_is_killed() {
    let mut command = example("testbed");
    command.envs([("TESTBED", "hang"), ("FORKPOOL_WORKERS", "1"), ("FORKPOOL_BOOT_TIMEOUT", "100ms")]);
    let (status, log) = Server::spawn(command).finish();
    assert_eq!(status.code(), Some(1));
    assert!(log.iter().any(|line| line.contains("killed: not ready 100ms after its start")), "{log:?}");
}

#[test]
fn a_worker_that_hangs_is_replaced() {
    let mut server = testbed(&[("FORKPOOL_STALL_TIMEOUT", "1s")]);
    let mut client = server.connect();
    let worker = client.get("/").worker();
    client.send("GET /slow?ms=60000 HTTP/1.1\r\nHost: a\r\n\r\n");
    let line = server.wait_for("killed: busy with one request for 1s (stall-timeout)");
    assert!(line.contains(&format!("pid={worker} ")), "{line}");
    assert!(client.try_answer(false).is_err());
    server.wait_for(" ready");
}

#[test]
fn a_worker_that_is_busy_with_many_requests_is_no_stall() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "1"), ("FORKPOOL_STALL_TIMEOUT", "1s")]);
    let mut client = server.connect();
    // One turn of the loop, several times longer than the timeout.
    client.send("GET /slow?ms=100 HTTP/1.1\r\nHost: a\r\n\r\n".repeat(30));
    for _ in 0..30 {
        assert_eq!(client.answer().status, 200);
    }
    assert_eq!(server.count("stall-timeout"), 0);
}

#[test]
fn a_long_request_with_progress_is_no_stall() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "1"), ("FORKPOOL_STALL_TIMEOUT", "1s")]);
    assert_eq!(server.get("/steady?ms=3000").status, 200);
    assert_eq!(server.count("stall-timeout"), 0);
}

#[test]
fn rolling_restarts_replace_every_worker_and_lose_no_request() {
    let mut server = testbed(&[]);
    let port = server.port();
    let before = server.workers();
    let load = std::thread::spawn(move || {
        let mut served = 0;
        // Until told by the last answer that a second generation has come and gone.
        for _ in 0..2000 {
            let mut client = Client::new(TcpStream::connect(("127.0.0.1", port)).expect("the port stays open"));
            assert_eq!(client.get("/").status, 200);
            served += 1;
        }
        served
    });
    server.signal(Signal::SIGHUP);
    server.wait_for("rolling restart done");
    assert_eq!(load.join().expect("no request is lost"), 2000);
    until("the old ones are gone", || before.iter().all(|pid| is_gone(*pid)).then_some(()));
    assert_eq!(server.workers().len(), 2);
}

#[test]
fn scaling_starts_and_stops_one_worker_at_a_time() {
    let mut server = testbed(&[]);
    server.signal(Signal::SIGTTIN);
    server.wait_for("scaled from 2 to 3 workers");
    until("there are three", || (server.workers().len() == 3).then_some(()));
    for to in [2, 1] {
        server.signal(Signal::SIGTTOU);
        server.wait_for(&format!("to {to} workers"));
        until("one is gone", || (server.workers().len() == to).then_some(()));
    }
    server.signal(Signal::SIGTTOU);
    server.wait_for("still 1 worker");
    assert_eq!(server.get("/").status, 200);
}

#[test]
fn a_worker_scaled_away_takes_no_new_connections() {
    let mut server = testbed(&[("FORKPOOL_DRAIN_TIMEOUT", "1h")]);
    // Requests in progress in both workers hold the drain of the one that leaves up; idle connections would be passed
    // on.
    let mut kept = Vec::new();
    let mut seen = BTreeSet::new();
    while seen.len() < 2 {
        let mut client = server.connect();
        seen.insert(client.get("/").worker());
        client.send("POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n");
        assert_eq!(client.answer().status, 100);
        kept.push(client);
    }
    server.signal(Signal::SIGTTOU);
    server.wait_for("scaled from 2 to 1 workers");
    assert_eq!(server.workers().len(), 2, "the worker still has its connection");
    // One that has not been scheduled since it was told may still take one.
    let survivor = until("one worker serves a hundred in a row", || {
        let first = server.get("/").worker();
        (0..100).all(|_| server.get("/").worker() == first).then_some(first)
    });
    drop(kept);
    until("it is gone", || (server.workers() == [survivor]).then_some(()));
    // Late handshakes have had their time; then its socket leaves the group.
    let port = server.port();
    let listeners = || count_tcp_sockets(Pid::this(), port, LISTEN);
    until("one socket is left in the group", || (listeners() == 1).then_some(()));
    for _ in 0..100 {
        assert_eq!(server.get("/").worker(), survivor);
    }
}
