//! Kept connections outlive the worker that serves them: none is closed by a restart, an upgrade, scaling or recycling,
//! and no response says that it is the last one.

#[path = "handover/full.rs"]
mod full;
#[path = "handover/steps.rs"]
mod steps;
mod support;

use std::collections::{BTreeMap, BTreeSet};
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
    server.catch_up();
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

/// The number of descriptors of a process.
fn descriptors(pid: Pid) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Restarts again and again without waiting for the old workers, a few thousand moves in all.
#[test]
fn thousands_of_moves_leave_no_descriptor_and_no_process_behind() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "4"), ("FORKPOOL_SURGE", "4")]);
    let mut kept = Kept::open(&mut server, 200);
    let of_workers = |server: &Server| server.workers().into_iter().map(descriptors).sum::<usize>();
    let before = (descriptors(server.pid()), of_workers(&server));
    for round in 0..20 {
        server.signal(Signal::SIGHUP);
        server.wait_for("rolling restart done");
        if round % 5 == 0 {
            kept.ask();
        }
    }
    until("four workers are left, of the last generation", || (server.workers().len() == 4).then_some(()));
    kept.ask();
    // Each worker gets copies of the three others' sockets soon after it is ready, which may have been after `before`.
    let most = (before.0, before.1 + 4 * 3);
    until(&format!("the parent and the workers have no more descriptors than {most:?}"), || {
        let now = (descriptors(server.pid()), of_workers(&server));
        (now.0 <= most.0 && now.1 <= most.1).then_some(())
    });
    assert_eq!(server.count("killed"), 0);
}

/// The workers that have become ready and have not left, without the admin process.
fn serving(server: &mut Server) -> Vec<Pid> {
    let ready = server.log().iter().filter_map(|line| line.strip_suffix(" ready")?.rsplit_once("pid=")?.1.parse().ok());
    ready.map(Pid::from_raw).filter(|pid| !is_gone(*pid)).collect()
}

/// The number of open connections, on which steering depends, and what was passed on.
fn counts(admin: u16) -> (u64, u64) {
    let mut client = Client::new(TcpStream::connect(("127.0.0.1", admin)).expect("it listens"));
    let status = client.get("/status.json").text().to_owned();
    let totals = status.split_once("\"totals\":").map_or(&*status, |(_, rest)| rest);
    let number = |key: &str| {
        let rest = totals.split_once(&format!("\"{key}\":")).unwrap_or_else(|| panic!("{key} in {status}")).1;
        rest.split(&[',', '}'][..]).next().and_then(|number| number.parse().ok()).unwrap_or(u64::MAX)
    };
    (number("open"), number("handed_over"))
}

#[test]
fn the_counts_stay_right() {
    for balance in ["auto", "random"] {
        let variables = [("FORKPOOL_ADMIN", "127.0.0.1:0"), ("FORKPOOL_BALANCE", balance)];
        let mut server = testbed(&[&variables[..], &[("FORKPOOL_REBALANCE", "off")]].concat());
        let admin = server.log().iter().find_map(|line| line.split_once("admin on http://127.0.0.1:")?.1.parse().ok());
        let admin = admin.expect("it was announced");
        let mut kept = Kept::open(&mut server, 30);
        for round in 1..=3 {
            let old = serving(&mut server);
            server.signal(Signal::SIGHUP);
            until_gone(&old);
            until("each is counted once", || (counts(admin) == (30, 30 * round)).then_some(()));
        }
        kept.ask();
        // The kernel chooses among all workers again.
        let mut workers = BTreeSet::new();
        until("both workers get new connections", || {
            workers.insert(server.get("/").worker());
            (workers.len() == 2).then_some(())
        });
        drop(kept);
        until("none is counted", || (counts(admin).0 == 0).then_some(()));
    }
}

/// Kills senders and receivers while connections move. Each connection is served by one worker, or was closed with one
/// that was killed.
#[test]
fn killed_workers_leave_no_connection_between_two() {
    let variables = [("FORKPOOL_WORKERS", "4"), ("FORKPOOL_SURGE", "4"), ("FORKPOOL_ADMIN", "127.0.0.1:0")];
    let mut server = testbed(&variables);
    let admin = server.log().iter().find_map(|line| line.split_once("admin on http://127.0.0.1:")?.1.parse().ok());
    let admin = admin.expect("it was announced");
    let mut kept = Kept::open(&mut server, 100);
    let parent = descriptors(server.pid());
    for round in 0..10 {
        let old = serving(&mut server);
        server.signal(Signal::SIGHUP);
        let ready = server.wait_for(" ready");
        let new = ready.rsplit_once("pid=").and_then(|(_, pid)| pid.split(' ').next()?.parse().ok());
        let victims = [Pid::from_raw(new.expect("a pid")), old[round % old.len()]];
        // It may have left already.
        let _ = kill(victims[round % 2], Signal::SIGKILL);
        server.wait_for_any(&["rolling restart done", "rolling restart aborted"]);
        until("four workers are left", || (serving(&mut server).len() == 4).then_some(()));
        for client in &mut kept.0 {
            match client.try_get("/") {
                Ok(answer) => assert!(answer.status == 200 && !answer.closes(), "{answer:?}"),
                Err(_) => {
                    *client = server.connect();
                    assert_eq!(client.get("/").status, 200);
                }
            }
        }
    }
    until("each is counted once", || (counts(admin).0 == 100).then_some(()));
    until(&format!("the parent has {parent} descriptors"), || (descriptors(server.pid()) <= parent).then_some(()));
    for client in &mut kept.0 {
        client.stream().set_nonblocking(true).expect("a socket");
        let nothing = client.stream().peek(&mut [0]).map_err(|error| error.kind());
        assert_eq!(nothing, Err(std::io::ErrorKind::WouldBlock), "nothing was answered twice");
    }
}

#[test]
fn the_limit_of_requests_counts_on() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "1"), ("FORKPOOL_MAX_REQUESTS_PER_CONNECTION", "5")]);
    let mut client = server.connect();
    for request in 1..=5 {
        let answer = client.get("/");
        assert_eq!((answer.status, answer.closes()), (200, request == 5), "{request}");
        if request < 5 {
            let old = server.workers();
            server.signal(Signal::SIGHUP);
            until_gone(&old);
        }
    }
    assert!(client.is_closed());
}

#[test]
fn the_client_that_a_proxy_has_named_goes_along() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "1"), ("FORKPOOL_PROXY_PROTOCOL", "yes")]);
    let header = "PROXY TCP4 203.0.113.9 10.0.0.1 12345 80\r\n";
    // The header has come, half of it has, and none of it has.
    let mut clients: Vec<_> = [header.len(), 20, 0].map(|len| (server.connect(), len)).into();
    clients.iter_mut().for_each(|(client, len)| client.send(&header[..*len]));
    let mut asked = server.connect();
    asked.send(header);
    assert!(asked.get("/client").text().starts_with("203.0.113.9 "));
    let old = server.workers();
    server.signal(Signal::SIGHUP);
    until_gone(&old);
    clients.push((asked, header.len()));
    for (client, len) in &mut clients {
        client.send(&header[*len..]);
        let answer = client.get("/client");
        assert!(answer.text().starts_with("203.0.113.9 ") && !answer.closes(), "{answer:?}");
    }
}

#[test]
fn the_access_log_has_each_request_once() {
    let log = fresh_path("handover.log");
    let mut server = testbed(&[("FORKPOOL_ACCESS_LOG", log.to_str().expect("text"))]);
    let mut kept = Kept::open(&mut server, 10);
    for _ in 0..3 {
        let old = server.workers();
        server.signal(Signal::SIGHUP);
        kept.ask();
        until_gone(&old);
        kept.ask();
    }
    server.signal(Signal::SIGTERM);
    assert!(server.wait().success());
    let text = std::fs::read_to_string(&log).expect("it was written");
    assert_eq!(text.lines().filter(|line| line.contains("127.0.0.1") && line.contains(" 200 ")).count(), 70, "{text}");
    std::fs::remove_file(log).expect("it is there");
}

#[test]
fn workers_in_the_sandbox_pass_them_on() {
    let mut server = Server::spawn(support::testbed_command(&[("FORKPOOL_SANDBOX", "strict")]));
    if server.wait_for_any(&["listening on http://", "no worker could start"]).contains("no worker") {
        return support::skip("this kernel has not got all of the strict sandbox");
    }
    let mut kept = Kept::open(&mut server, 20);
    for _ in 0..2 {
        let old = server.workers();
        server.signal(Signal::SIGHUP);
        until_gone(&old);
        let new = server.workers();
        assert!(kept.ask().iter().all(|worker| new.contains(worker)));
    }
    assert_eq!(server.count("killed"), 0);
}

/// What is full takes none, and loses none of its own. Those that nobody takes are closed when they are idle.
#[test]
fn a_worker_at_its_limit_takes_none() {
    let mut server = testbed(&[("FORKPOOL_MAX_CONNECTIONS", "3"), ("FORKPOOL_REBALANCE", "off")]);
    let mut kept: BTreeMap<Pid, Vec<Client<TcpStream>>> = BTreeMap::new();
    until("both have as many as they may", || {
        let mut client = server.connect();
        kept.entry(client.get("/").worker()).or_default().push(client);
        kept.values_mut().for_each(|clients| clients.truncate(3));
        (kept.len() == 2 && kept.values().all(|clients| clients.len() == 3)).then_some(())
    });
    let before = server.workers();
    server.signal(Signal::SIGTTOU);
    until("one has left", || (server.workers().len() == 1).then_some(()));
    let stays = server.workers()[0];
    let left = before.into_iter().find(|worker| *worker != stays).expect("there were two");
    for client in kept.get_mut(&stays).expect("it has three") {
        assert_eq!(client.get("/").worker(), stays);
    }
    assert!(kept.get_mut(&left).expect("it had three").iter_mut().all(Client::is_closed));
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
