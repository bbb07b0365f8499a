//! Nothing is lost: a load runs while workers, slots and the whole program come and go, and every request of it counts.
//!
//! That each test can fail was tried by taking its mechanism away: neighbours (the queue of a slot that backs off),
//! last answers that say so (rolling restarts), the abort of a restart, the replacement of a stopped worker, the report
//! of a worker that is due, taking registrations back (a draining worker). Some mechanisms stand in for each other
//! here, and have a test elsewhere that bites: custody in crash.rs, steering and the group's order in steer.rs, the
//! replacement before its predecessor in the supervisor's own.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use crate::support::{self, children, example, fresh_path, is_gone, testbed, until, Client, Load, Server, BOTH_MODES};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

#[test]
fn rolling_restarts() {
    for mode in BOTH_MODES {
        let mut server = testbed(&[("FORKPOOL_WORKERS", "3"), ("FORKPOOL_DRAIN_TIMEOUT", "1h")]);
        let load = Load::begin(server.port(), mode);
        for _ in 0..4 {
            server.signal(Signal::SIGHUP);
            server.wait_for("rolling restart done");
        }
        load.finish().nothing_lost();
        assert_eq!(server.count("rolling restart done"), 4);
    }
}

#[test]
fn several_slots_at_a_time() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "4"), ("FORKPOOL_SURGE", "4"), ("FORKPOOL_DRAIN_TIMEOUT", "1h")]);
    let load = Load::begin(server.port(), BOTH_MODES[0]);
    for _ in 0..4 {
        server.signal(Signal::SIGHUP);
        server.wait_for("rolling restart done");
    }
    load.finish().nothing_lost();
}

#[test]
fn workers_that_come_and_go() {
    for mode in BOTH_MODES {
        let mut server = testbed(&[("FORKPOOL_WORKERS", "4"), ("FORKPOOL_DRAIN_TIMEOUT", "1h")]);
        let load = Load::begin(server.port(), mode);
        for _ in 0..2 {
            for to in [3, 2, 1] {
                server.signal(Signal::SIGTTOU);
                server.wait_for(&format!("to {to} workers"));
            }
            for to in [2, 3, 4] {
                server.signal(Signal::SIGTTIN);
                server.wait_for(&format!("to {to} workers"));
            }
        }
        load.finish().nothing_lost();
    }
}

#[test]
fn slots_whose_sockets_are_closed() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "4"), ("RUST_LOG", "debug"), ("FORKPOOL_DRAIN_TIMEOUT", "1h")]);
    let load = Load::begin(server.port(), BOTH_MODES[0]);
    for to in [3, 2, 1] {
        server.signal(Signal::SIGTTOU);
        server.wait_for(&format!("to {to} workers"));
    }
    for _ in 0..3 {
        server.wait_for("removed, its sockets closed");
    }
    load.finish().nothing_lost();
}

#[test]
fn a_new_binary() {
    for mode in BOTH_MODES {
        let pid_file = fresh_path("upgraded.pid");
        let mut server = testbed(&[
            ("FORKPOOL_PID_FILE", pid_file.to_str().expect("text")),
            ("FORKPOOL_DRAIN_TIMEOUT", "1h"),
            ("FORKPOOL_WORKERS", "3"),
        ]);
        let load = Load::begin(server.port(), mode);
        for _ in 0..3 {
            let parent = std::fs::read_to_string(&pid_file).expect("a pid").trim().parse().expect("a number");
            kill(Pid::from_raw(parent), Signal::SIGUSR2).expect("it runs");
            server.wait_for("upgrade done");
            server.wait_for("another pool has taken over");
        }
        load.finish().nothing_lost();
    }
}

/// A worker's death costs the requests that were inside it, one for each connection at most; nobody is refused.
#[test]
fn killed_workers() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "3")]);
    let load = Load::begin(server.port(), BOTH_MODES[0]);
    for _ in 0..10 {
        let victim = until("a worker runs", || server.workers().first().copied());
        kill(victim, Signal::SIGKILL).expect("it runs");
        until("it is gone", || is_gone(victim).then_some(()));
        server.wait_for(" ready");
    }
    let tally = load.finish();
    for class in ["refused", "reset_connecting", "timed_out", "truncated", "bad"] {
        assert_eq!(tally.count(class), 0, "{tally:?}");
    }
    assert!(tally.count("lost") <= 10 * 16, "{tally:?}");
}

#[test]
fn a_worker_that_a_signal_has_stopped() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "2")]);
    let stopped = server.get("/").worker();
    let load = Load::begin(server.port(), &["--connections", "4", "--rate", "500"]);
    kill(stopped, Signal::SIGSTOP).expect("it runs");
    server.wait_for("replaced, since it was stopped by a signal");
    let ready = server.wait_for(" ready");
    assert!(ready.contains("gen=2"), "{ready}");
    for _ in 0..50 {
        assert_ne!(server.get("/").worker(), stopped);
    }
    // It runs again and finishes what it has, as after a rolling restart.
    kill(stopped, Signal::SIGCONT).expect("it is there");
    until("it is gone", || is_gone(stopped).then_some(()));
    load.finish().nothing_lost();
    assert_eq!(server.count("killed"), 0);
}

/// One that was replaced as well, which stays until it runs again.
#[test]
fn a_worker_that_a_signal_has_stopped_does_not_hold_up_the_end() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "2"), ("FORKPOOL_DRAIN_TIMEOUT", "1h")]);
    let workers = server.workers();
    kill(workers[0], Signal::SIGSTOP).expect("it runs");
    server.wait_for("replaced, since it was stopped by a signal");
    let ready = server.wait_for(" ready");
    assert!(ready.contains("gen=2"), "{ready}");
    kill(workers[1], Signal::SIGSTOP).expect("it runs");
    server.wait_for("replaced, since it was stopped by a signal");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
    assert_eq!(server.count("killed"), 0);
}

/// The kernel is told, by whatever program it takes; nobody else helps.
const STEERED: [[(&str, &str); 2]; 2] = [
    [("FORKPOOL_BALANCE", "random"), ("FORKPOOL_NEIGHBOURS", "0")],
    [("FORKPOOL_BALANCE", "auto"), ("FORKPOOL_NEIGHBOURS", "0")],
];

/// Asks until other workers have answered so many new clients one after the other. Until it is seen that a worker takes
/// no more, some may wait in its queue; they are kept in `waiting`. Returns how many it has answered itself.
#[track_caller]
fn others_answer(server: &mut Server, worker: Pid, in_a_row: usize, waiting: &mut Vec<Client<TcpStream>>) -> usize {
    let mut own = 0;
    // Whoever is answered later than this costs another try and no more.
    let soon = Duration::from_secs(2);
    until(&format!("{in_a_row} in a row are answered by others"), || {
        for _ in 0..in_a_row {
            let mut client = server.connect();
            client.stream().set_read_timeout(Some(soon)).expect("a socket");
            client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            match client.try_answer(false) {
                Ok(answer) if answer.worker() == worker => {
                    own += 1;
                    return None;
                }
                Ok(_) => {}
                Err(_) => {
                    waiting.push(client);
                    return None;
                }
            }
        }
        Some(())
    });
    own
}

#[test]
fn a_busy_worker_gets_no_new_connections() {
    for steered in STEERED {
        let mut server = testbed(&steered);
        let (mut busy, mut free) = (server.connect(), server.connect());
        let busy_worker = busy.get("/").worker();
        while free.get("/").worker() == busy_worker {
            free = server.connect();
        }
        let end = fresh_path("busy");
        busy.send(format!("GET /wait?{} HTTP/1.1\r\nHost: a\r\n\r\n", end.display()));
        let mut waiting = Vec::new();
        // It may answer some until it has read the request that keeps it busy.
        let _ = others_answer(&mut server, busy_worker, 100, &mut waiting);
        std::fs::write(&end, "").expect("a writable directory");
        for client in waiting.iter_mut().chain([&mut busy]) {
            client.stream().set_read_timeout(Some(support::DEADLINE)).expect("a socket");
            assert_eq!(client.answer().status, 200);
        }
        std::fs::remove_file(&end).expect("it is there");
        // And then it is chosen again.
        until("it is back", || (server.get("/").worker() == busy_worker).then_some(()));
    }
}

#[test]
fn a_full_worker_gets_no_new_connections() {
    for [balance, neighbours] in STEERED {
        let mut server = testbed(&[balance, neighbours, ("FORKPOOL_MAX_CONNECTIONS", "3")]);
        let mut kept: BTreeMap<Pid, Vec<Client<TcpStream>>> = BTreeMap::new();
        let full = loop {
            let mut client = server.connect();
            let worker = client.get("/").worker();
            // In progress, so that it makes no room for anybody.
            client.send("POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n");
            assert_eq!(client.answer().status, 100);
            let clients = kept.entry(worker).or_default();
            clients.push(client);
            if clients.len() == 3 {
                break worker;
            }
        };
        // The other one has room for more than one of those that come now.
        kept.retain(|worker, _| *worker == full);
        let mut waiting = Vec::new();
        assert_eq!(others_answer(&mut server, full, 100, &mut waiting), 0);
        for client in kept.values_mut().flatten() {
            client.send("x");
            assert_eq!(client.answer().status, 200);
        }
        drop(kept);
        for client in &mut waiting {
            client.stream().set_read_timeout(Some(support::DEADLINE)).expect("a socket");
            assert_eq!(client.answer().status, 200);
        }
    }
}

/// Both workers of the [`failing_testbed`] are busy, so both have queues, and one of them is dead and cannot be
/// replaced. Those wait who are in the queues.
fn one_of_two_backs_off(server: &mut Server, failing: &mut Failing) -> Vec<Client<TcpStream>> {
    let (mut first, mut second) = (server.connect(), server.connect());
    let victim = first.get("/").worker();
    // Its second answer says that it accepts no more in the turn in which it accepted this one.
    first.get("/");
    while second.get("/").worker() == victim {
        second = server.connect();
    }
    for (client, millis) in [(&mut first, 60_000), (&mut second, 1000)] {
        client.send(format!("GET /sliced?ms={millis} HTTP/1.1\r\nHost: a\r\n\r\n"));
        // A worker that is not in its request yet would accept those who are to wait.
        server.wait_for("serves /sliced");
    }
    let mut waiting: Vec<_> = (0..40).map(|_| server.connect()).collect();
    for client in &mut waiting {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    failing.begin();
    kill(victim, Signal::SIGKILL).expect("it runs");
    server.wait_for("backing off");
    waiting
}

/// The other one looks after what waits there.
#[test]
fn the_queue_of_a_slot_that_backs_off() {
    let (mut server, mut failing) = failing_testbed();
    for client in &mut one_of_two_backs_off(&mut server, &mut failing) {
        assert_eq!(client.answer().status, 200);
    }
    failing.end();
    server.wait_for(" ready");
    // What one worker gave back is the other's again.
    for _ in 0..50 {
        assert_eq!(server.get("/").status, 200);
    }
}

/// Its queue would otherwise go down with the pool.
#[test]
fn the_queue_of_a_slot_that_backs_off_when_the_pool_stops() {
    let (mut server, mut failing) = failing_testbed();
    let mut waiting = one_of_two_backs_off(&mut server, &mut failing);
    server.signal(Signal::SIGTERM);
    for client in &mut waiting {
        assert_eq!(client.answer().status, 200);
    }
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_restart_whose_replacement_fails() {
    let (mut server, mut failing) = failing_testbed();
    let before = server.workers();
    let load = Load::begin(server.port(), BOTH_MODES[1]);
    failing.begin();
    server.signal(Signal::SIGHUP);
    let line = server.wait_for("rolling restart aborted, the other workers stay; worker=0 ");
    assert!(line.contains("exited with code 1"), "{line}");
    until("the old ones are alone", || (server.workers() == before).then_some(()));
    failing.end();
    server.signal(Signal::SIGHUP);
    server.wait_for("rolling restart done");
    load.finish().nothing_lost();
}

#[test]
fn workers_with_a_limit_of_requests() {
    for (variable, value, target) in [
        ("FORKPOOL_MAX_REQUESTS", "200", "/plaintext"),
        ("FORKPOOL_MAX_AGE", "300ms", "/plaintext"),
        ("FORKPOOL_MAX_RSS", "64MiB", "/leak?kib=256"),
    ] {
        let mut server = testbed(&[("FORKPOOL_WORKERS", "3"), (variable, value), ("FORKPOOL_DRAIN_TIMEOUT", "1h")]);
        let load = Load::begin(server.port(), &["--connections", "4", "--rate", "500", "--path", target]);
        for _ in 0..3 {
            server.wait_for("recycled: ");
            // The next one is not begun before this one's replacement serves.
            let next = server.wait_for("worker=");
            assert!(next.contains(" ready") || next.contains(" exited"), "{next}");
        }
        load.finish().nothing_lost();
        // A fourth is a replacement, or one that drains.
        assert!(server.workers().len() >= 3);
    }
}

/// A testbed with two workers whose new workers fail while a file exists.
fn failing_testbed() -> (Server, Failing) {
    // Tests run at the same time, and each has its own.
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let failing = Failing(fresh_path(&format!("failing-{}", COUNT.fetch_add(1, Relaxed))));
    let mut command = example("testbed");
    command.env("TESTBED", format!("fail-while:{}", failing.0.display()));
    command.envs([("FORKPOOL_WORKERS", "2"), ("FORKPOOL_DRAIN_TIMEOUT", "1h")]);
    (Server::start(command), failing)
}

struct Failing(PathBuf);

impl Failing {
    fn begin(&mut self) {
        std::fs::write(&self.0, "").expect("a writable directory");
    }

    fn end(&mut self) {
        std::fs::remove_file(&self.0).expect("it is there");
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_crash_loop_leaves_the_others_alone() {
    let (mut server, mut failing) = failing_testbed();
    let load = Load::begin(server.port(), &["--connections", "4", "--rate", "1000"]);
    failing.begin();
    let victim = server.workers()[0];
    kill(victim, Signal::SIGKILL).expect("it runs");
    for _ in 0..4 {
        server.wait_for("backing off");
    }
    until("only one worker is left", || (children(server.pid()).len() == 1).then_some(()));
    let tally = load.finish();
    assert!(tally.count("lost") <= 4, "only what was inside the victim: {tally:?}");
    failing.end();
    server.wait_for(" ready");
}

/// A worker that drains for long must not be woken in place of those that serve.
#[test]
fn a_draining_worker_takes_no_wake_ups() {
    let path = fresh_path("draining.socket");
    let listen = format!("127.0.0.1:0,unix:{}", path.display());
    let mut server = testbed(&[("FORKPOOL_LISTEN", &listen), ("FORKPOOL_DRAIN_TIMEOUT", "1h")]);
    // They keep the old workers in their loops.
    let mut kept: Vec<_> = (0..8).map(|_| server.connect()).collect();
    let old: std::collections::BTreeSet<_> = kept.iter_mut().map(|client| client.get("/").worker()).collect();
    for client in &mut kept {
        // Nobody answers that; an unfinished head would keep them for a moment only.
        client.send("GET /late HTTP/1.1\r\nHost: a\r\n\r\n");
        // Until the worker has read it, it would pass the connection on.
        server.wait_for("serves /late");
    }
    server.signal(Signal::SIGHUP);
    server.wait_for("rolling restart done");
    // One that has not been scheduled since it was told may still take one.
    until("a hundred in a row are served by the new ones", || {
        let mut by_tcp = (0..100).map(|_| server.get("/").worker());
        let mut by_unix = (0..100).map(|_| support::connect_unix(&path).get("/").worker());
        (by_tcp.all(|pid| !old.contains(&pid)) && by_unix.all(|pid| !old.contains(&pid))).then_some(())
    });
    assert!(old.iter().all(|pid| !is_gone(*pid)));
}
