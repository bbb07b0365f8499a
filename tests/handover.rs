//! Kept connections outlive the worker that serves them: none is closed by a restart, an upgrade, scaling or recycling,
//! and no response says that it is the last one.

mod support;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;

use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use support::{children, connect_unix, example, fresh_path, is_gone, testbed, until, Client, Server};

/// Connections that are kept, and must stay open.
struct Kept<S>(Vec<Client<S>>);

impl Kept<TcpStream> {
    fn open(server: &mut Server, count: usize) -> Kept<TcpStream> {
        let mut kept = Kept((0..count).map(|_| server.connect()).collect());
        kept.ask();
        kept
    }
}

impl<S: Read + Write> Kept<S> {
    /// Makes a request on each. Returns the workers that have answered.
    #[track_caller]
    fn ask(&mut self) -> BTreeSet<Pid> {
        let mut workers = BTreeSet::new();
        for client in &mut self.0 {
            let answer = client.get("/");
            assert!(answer.status == 200 && !answer.closes(), "{answer:?}");
            workers.insert(answer.worker());
        }
        workers
    }
}

/// Waits until all of these have exited, which a worker does as soon as it has no connections left.
#[track_caller]
fn until_gone(workers: &[Pid]) {
    until("the old workers are gone", || workers.iter().all(|worker| is_gone(*worker)).then_some(()));
}

#[test]
fn restarts_close_none() {
    let mut server = testbed(&[]);
    let mut kept = Kept::open(&mut server, 50);
    for _ in 0..4 {
        let old = server.workers();
        server.signal(Signal::SIGHUP);
        server.wait_for("restart done");
        // Some are asked while the old workers leave.
        kept.ask();
        until_gone(&old);
        let new = server.workers();
        assert!(kept.ask().iter().all(|worker| new.contains(worker)));
    }
    assert_eq!(server.count("killed"), 0);
}

#[test]
fn scaling_closes_none() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "4")]);
    let mut kept = Kept::open(&mut server, 50);
    for _ in 0..2 {
        for count in [3, 2, 1] {
            let old = server.workers();
            server.signal(Signal::SIGTTOU);
            until("one worker has left", || (server.workers().len() == count).then_some(()));
            let stay = server.workers();
            assert!(stay.iter().all(|worker| old.contains(worker)));
            assert!(kept.ask().iter().all(|worker| stay.contains(worker)));
        }
        for count in [2, 3, 4] {
            server.signal(Signal::SIGTTIN);
            until("there is one more", || (server.workers().len() == count).then_some(()));
            kept.ask();
        }
    }
}

#[test]
fn upgrades_close_none() {
    let pid_file = fresh_path("handover.pid");
    let path = pid_file.display().to_string();
    let mut server = testbed(&[("FORKPOOL_PID_FILE", &path)]);
    let mut kept = Kept::open(&mut server, 50);
    let parent = || -> Option<Pid> {
        let text = std::fs::read_to_string(&pid_file).ok()?;
        text.trim().parse().ok().map(Pid::from_raw)
    };
    let mut pool = server.pid();
    for _ in 0..3 {
        let old = children(pool);
        kill(pool, Signal::SIGUSR2).expect("it runs");
        server.wait_for("upgrade done: pid=");
        until_gone(&old);
        pool = until("the new pool has written its pid", || parent().filter(|new| *new != pool));
        let new = children(pool);
        assert!(kept.ask().iter().all(|worker| new.contains(worker)), "{new:?}");
    }
    kill(pool, Signal::SIGTERM).expect("it runs");
    until("it is gone", || is_gone(pool).then_some(()));
}

#[test]
fn recycling_closes_none() {
    let mut server = testbed(&[("FORKPOOL_MAX_REQUESTS", "30")]);
    let mut kept = Kept::open(&mut server, 10);
    let mut workers = BTreeSet::new();
    until("ten workers have answered", || {
        workers.extend(kept.ask());
        (workers.len() >= 10).then_some(())
    });
}

#[test]
fn a_lone_worker_passes_them_to_its_replacement() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "1")]);
    let mut kept = Kept::open(&mut server, 20);
    let old = server.workers();
    server.signal(Signal::SIGHUP);
    until_gone(&old);
    assert_eq!(kept.ask().into_iter().collect::<Vec<_>>(), server.workers());
}

#[test]
fn half_a_head_goes_along() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "1")]);
    let (mut new, mut used) = (server.connect(), server.connect());
    used.get("/");
    for client in [&mut new, &mut used] {
        client.send("GET / HTTP/1.1\r\nHo");
    }
    // The worker has read them before it reads this.
    server.get("/");
    let old = server.workers();
    server.signal(Signal::SIGHUP);
    until_gone(&old);
    for client in [&mut new, &mut used] {
        client.send("st: a\r\n\r\n");
        let answer = client.answer();
        assert!(answer.status == 200 && !answer.closes() && !old.contains(&answer.worker()), "{answer:?}");
    }
}

#[test]
fn unread_requests_are_answered_in_order() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "1")]);
    let mut client = server.connect();
    client.get("/");
    let old = server.workers();
    server.signal(Signal::SIGHUP);
    // While it moves.
    for _ in 0..20 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
        for _ in 0..2 {
            let answer = client.answer();
            assert!(answer.status == 200 && !answer.closes());
        }
    }
    until_gone(&old);
    assert!(!old.contains(&client.get("/").worker()));
}

#[test]
fn a_connection_follows_after_its_response() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "1")]);
    let mut client = server.connect();
    let old = server.workers();
    client.send("GET /sliced?ms=500 HTTP/1.1\r\nHost: a\r\n\r\n");
    server.wait_for("serves /sliced");
    server.signal(Signal::SIGHUP);
    let answer = client.answer();
    assert!(answer.status == 200 && !answer.closes(), "{answer:?}");
    assert!(old.contains(&answer.worker()), "the one that had it has answered");
    until_gone(&old);
    assert!(!old.contains(&client.get("/").worker()));
}

#[test]
fn unix_sockets_are_passed_on_as_well() {
    let socket = fresh_path("handover.socket");
    let listen = format!("127.0.0.1:0,unix:{}", socket.display());
    let mut server = testbed(&[("FORKPOOL_LISTEN", &listen)]);
    let mut kept = Kept((0..20).map(|_| connect_unix(&socket)).collect());
    kept.ask();
    let old = server.workers();
    server.signal(Signal::SIGHUP);
    server.wait_for("restart done");
    until_gone(&old);
    let new = server.workers();
    assert!(kept.ask().iter().all(|worker| new.contains(worker)));
}

/// When the pool ends there is nobody to take over, and it does not wait for idle clients.
#[test]
fn a_pool_that_ends_closes_them() {
    let mut server = testbed(&[]);
    let mut kept = Kept::open(&mut server, 20);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
    assert!(kept.0.iter_mut().all(Client::is_closed));
}

/// A server of one's own, over restarts, scaling and an upgrade.
#[test]
fn a_server_of_ones_own_can_pass_them_on() {
    let mut command = example("handover");
    command.env("FORKPOOL_WORKERS", "2").env("FORKPOOL_REBALANCE", "off");
    let mut server = Server::start_silent(command);
    let mut clients: Vec<_> = (0..20).map(|_| server.connect()).collect();
    let mut ask = |wanted: &dyn Fn(&str) -> bool| {
        for client in &mut clients {
            let answer = client.get("/");
            assert!(wanted(answer.text()), "{answer:?}");
        }
    };
    ask(&|worker| worker.ends_with(" generation 1\n"));
    let old = server.workers();
    server.signal(Signal::SIGHUP);
    until_gone(&old);
    ask(&|worker| worker.ends_with(" generation 2\n"));
    server.signal(Signal::SIGTTOU);
    until("one has left", || (server.workers().len() == 1).then_some(()));
    ask(&|worker| worker == "worker 0 generation 2\n");
    let old = server.workers();
    server.signal(Signal::SIGUSR2);
    until_gone(&old);
    ask(&|worker| worker.ends_with(" generation 1\n"));
}
