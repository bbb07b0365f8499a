//! Where new connections land: as the kernel was told, whatever happens to workers and slots.
//!
//! Tried with an order that does not follow the kernel when a socket leaves: the first test fails.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use crate::support::{self, example, fresh_path, skip, testbed, until, Client, Server};
use nix::sys::signal::{kill, Signal};
use nix::unistd::{Pid, Uid};
use socket2::{Domain, Socket, Type};

/// A pool of plain servers, who do not look after each other's queues, on two addresses; steered by the client's
/// address, so that it is known which seat a connection is for.
fn by_client(workers: usize) -> Server {
    let mut command = example("testbed");
    command.envs([("TESTBED", "plain"), ("FORKPOOL_BALANCE", "client"), ("RUST_LOG", "debug")]);
    command.env("FORKPOOL_LISTEN", "127.0.0.1:0,127.0.0.1:0").env("FORKPOOL_WORKERS", workers.to_string());
    Server::start(command)
}

/// The ports that the pool listens on.
fn ports(server: &mut Server) -> Vec<u16> {
    let lines = server.log().iter().filter_map(|line| line.split_once("listening on http://127.0.0.1:"));
    lines.filter_map(|(_, rest)| rest.split(' ').next()?.parse().ok()).collect()
}

/// Connects from an address of our choice and asks who answers.
fn answered(from: Ipv4Addr, port: u16) -> Pid {
    ask(from, port, "/")
}

fn ask(from: Ipv4Addr, port: u16, target: &str) -> Pid {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((from, 0)).into()).expect("all of 127.0.0.0/8 is ours");
    socket.connect(&SocketAddr::from(([127, 0, 0, 1], port)).into()).expect("it listens");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(support::DEADLINE)).expect("a socket");
    Client::new(stream).get(target).worker()
}

/// The seat of a client, of so many: what the program computes, written down a second time.
fn home(from: Ipv4Addr, seats: usize) -> usize {
    (u32::from(from).wrapping_mul(0x9e37_79b1) >> 12) as usize % seats
}

/// The process of each slot, by what the log has said last.
fn slots(server: &mut Server) -> BTreeMap<usize, Pid> {
    let ready = server.log().iter().filter(|line| line.ends_with(" ready"));
    let field = |line: &str, name: &str| -> Option<i32> {
        line.split(' ').find_map(|part| part.strip_prefix(name))?.parse().ok()
    };
    ready.filter_map(|line| Some((field(line, "worker=")? as usize, Pid::from_raw(field(line, "pid=")?)))).collect()
}

/// The slot of each seat, by what the log has said until now: where a socket leaves the group, the last one takes its
/// seat.
fn order(server: &mut Server, workers: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..workers).collect();
    let number = |line: &str, before: &str| line.split_once(before)?.1.split(' ').next()?.parse().ok();
    for line in server.log() {
        if let Some(slot) = number(line, "worker=").filter(|_| line.ends_with("removed, its sockets closed")) {
            order.iter().position(|it| *it == slot).map(|seat| order.swap_remove(seat));
        }
        // The last one of so many comes back, and to the end if it had no seat any more.
        if let (Some(from), Some(to)) = (number(line, "scaled from "), number(line, " to ")) {
            let comes: Option<usize> = (from < to).then_some(from);
            order.extend(comes.filter(|slot| !order.contains(slot)));
        }
    }
    order
}

/// Whether clients land on the seats that they are for; those of slots that have no worker may land on any that has
/// one. On a slow machine such slots may lose their seats meanwhile.
#[track_caller]
fn check_order(server: &mut Server, workers: usize, away: &[usize]) {
    let slots = slots(server);
    for port in ports(server) {
        for n in 1..=60_u8 {
            let from = Ipv4Addr::new(127, 0, 7, n);
            // On a busy machine a worker may be passed over because it was late; one in a wrong place always is.
            let wanted = format!("{from} lands on its seat's slot: {:?}, {slots:?}", order(server, workers));
            until(&wanted, || {
                let order = order(server, workers);
                let slot = order[home(from, order.len())];
                let pid = answered(from, port);
                let lands = match away.contains(&slot) {
                    true => slots.iter().any(|(slot, it)| *it == pid && !away.contains(slot)),
                    false => pid == slots[&slot],
                };
                lands.then_some(())
            });
        }
    }
}

#[test]
fn the_order_of_the_group_is_known_through_starts_replacements_and_removals() {
    let mut server = by_client(5);
    check_order(&mut server, 5, &[]);
    // Replacements keep their seats.
    kill(slots(&mut server)[&1], Signal::SIGKILL).expect("it runs");
    until("it is replaced", || is_ready(&mut server, 1, 2));
    check_order(&mut server, 5, &[]);
    server.signal(Signal::SIGHUP);
    server.wait_for("rolling restart done");
    check_order(&mut server, 5, &[]);
    // The workers of slots 3 and 4 have something to finish, so slot 2 is the first to go, and the last seat comes in
    // its place.
    let port = server.port();
    let slow: Vec<_> = [3, 4].map(|slot| std::thread::spawn(move || ask(client_of(slot, 5), port, "/slow"))).into();
    until("they are busy", || (server.count("serves /slow") == 2).then_some(()));
    for to in [4, 3, 2] {
        server.signal(Signal::SIGTTOU);
        server.wait_for(&format!("to {to} workers"));
    }
    check_order(&mut server, 5, &[2, 3, 4]);
    for slow in slow {
        slow.join().expect("it is answered");
    }
    server.wait_for("worker=2 removed, its sockets closed");
    check_order(&mut server, 5, &[2, 3, 4]);
    // Slots 3 and 4 come back where they were if they still have their seats, slot 2 to the end.
    for to in [3, 4, 5] {
        server.signal(Signal::SIGTTIN);
        server.wait_for(&format!("to {to} workers"));
    }
    until("slot 2 is ready", || is_ready(&mut server, 2, 1));
    until("slot 3 is ready", || is_ready(&mut server, 3, 1));
    until("slot 4 is ready", || is_ready(&mut server, 4, 1));
    eprintln!("at the end the seats are those of {:?}", order(&mut server, 5));
    check_order(&mut server, 5, &[]);
}

#[test]
fn a_client_keeps_its_worker_though_that_is_busy() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "4"), ("FORKPOOL_BALANCE", "client")]);
    let (from, port) = (Ipv4Addr::new(127, 0, 7, 1), server.port());
    let worker = answered(from, port);
    for _ in 0..3 {
        // So long that its neighbours look, and the kernel would be told to choose others.
        let busy = std::thread::spawn(move || ask(from, port, "/sliced?ms=1000"));
        server.wait_for("serves /sliced");
        let others: Vec<_> = (0..5).map(|_| std::thread::spawn(move || answered(from, port))).collect();
        for other in others.into_iter().chain([busy]) {
            assert_eq!(other.join().expect("it is answered"), worker);
        }
    }
    // While nobody serves its queue, others do.
    kill(worker, Signal::SIGSTOP).expect("it runs");
    assert_ne!(answered(from, port), worker);
}

/// Whether the slot's latest line says that its worker is ready, in this generation. One that comes back begins anew.
fn is_ready(server: &mut Server, slot: usize, generation: u64) -> Option<()> {
    let tag = format!("worker={slot} gen=");
    let last = server.log().iter().rfind(|line| line.contains(&tag))?;
    (last.contains(&format!("{tag}{generation} ")) && last.ends_with(" ready")).then_some(())
}

/// A client that is for this seat of so many.
fn client_of(seat: usize, seats: usize) -> Ipv4Addr {
    (1..=250).map(|n| Ipv4Addr::new(127, 0, 8, n)).find(|from| home(*from, seats) == seat).expect("one of them")
}

#[test]
fn two_hundred_and_fifty_six_slots() {
    let mut server = by_client(256);
    check_order(&mut server, 256, &[]);
}

/// Where nobody looks after its queue, a worker that does not take from it is seen by that, or by what it says.
#[test]
fn a_server_of_ones_own_that_is_busy_gets_no_new_connections() {
    for fixture in ["plain", "metered"] {
        let mut server = testbed(&[("TESTBED", fixture), ("FORKPOOL_BALANCE", "random")]);
        let end = fresh_path(&format!("busy-{fixture}"));
        let mut busy = server.connect();
        busy.send(format!("GET /wait?{} HTTP/1.1\r\n\r\n", end.display()));
        let mut left_behind = Vec::new();
        until("twenty in a row are answered", || {
            for _ in 0..20 {
                let mut client = server.connect();
                client.stream().set_read_timeout(Some(Duration::from_secs(1))).expect("a socket");
                client.send("GET / HTTP/1.1\r\n\r\n");
                if client.try_answer(false).is_err() {
                    left_behind.push(client);
                    return None;
                }
            }
            Some(())
        });
        std::fs::write(&end, "").expect("a writable directory");
        for client in left_behind.iter_mut().chain([&mut busy]) {
            client.stream().set_read_timeout(Some(support::DEADLINE)).expect("a socket");
            assert_eq!(client.answer().status, 200, "{fixture}");
        }
        std::fs::remove_file(&end).expect("it is there");
    }
}

/// The pool says that it chooses by connections, or why not.
fn counts(server: &mut Server) -> bool {
    server.count("balance: least connections, among the free workers") == 1
}

#[test]
fn each_worker_gets_as_many_connections_as_the_others() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "4"), ("FORKPOOL_DRAIN_TIMEOUT", "1s")]);
    if !counts(&mut server) {
        return skip("eBPF is not allowed here");
    }
    // A worker that waits for a processor is passed over, and has what it has missed soon after. By chance alone nobody
    // stays even for so long.
    let even = |server: &mut Server, workers: usize| {
        until(&format!("{workers} workers have as many as the others, and remain so"), || {
            let (mut open, mut in_a_row) = (Vec::new(), 0);
            let mut count: BTreeMap<Pid, usize> = BTreeMap::new();
            while open.len() < 600 && in_a_row < 100 {
                let mut client = server.connect();
                *count.entry(client.get("/").worker()).or_default() += 1;
                open.push(client);
                let most = count.values().max().unwrap_or(&0);
                // Of the first few even chance makes no more.
                let is_even =
                    open.len() > 100 && count.len() == workers && count.values().all(|count| count + 3 >= *most);
                in_a_row = if is_even { in_a_row + 1 } else { 0 };
            }
            (in_a_row == 100).then_some(())
        });
    };
    even(&mut server, 4);
    kill(server.workers()[2], Signal::SIGKILL).expect("it runs");
    server.wait_for(" ready");
    even(&mut server, 4);
    server.signal(Signal::SIGHUP);
    server.wait_for("rolling restart done");
    even(&mut server, 4);
    server.signal(Signal::SIGTTOU);
    server.wait_for("to 3 workers");
    even(&mut server, 3);
    server.signal(Signal::SIGTTIN);
    server.wait_for("to 4 workers");
    until("the fourth is ready", || is_ready(&mut server, 3, 1));
    even(&mut server, 4);
    server.signal(Signal::SIGUSR2);
    server.wait_for("another pool has taken over");
    even(&mut server, 4);
}

/// Nobody knows how many connections such a worker has open: a new one must not get all the next ones.
#[test]
fn servers_that_report_nothing_get_their_share() {
    let mut server = testbed(&[("TESTBED", "plain"), ("FORKPOOL_WORKERS", "2")]);
    if !counts(&mut server) {
        return skip("eBPF is not allowed here");
    }
    for _ in 0..200 {
        server.get("/");
    }
    let killed = server.workers()[0];
    kill(killed, Signal::SIGKILL).expect("it runs");
    server.wait_for(" ready");
    // As long as it takes to be looked at again.
    until("the new one has had some, and the old one too", || {
        let workers = server.workers();
        let seen: Vec<Pid> = (0..50).map(|_| server.get("/").worker()).collect();
        workers.iter().all(|pid| seen.iter().filter(|it| *it == pid).count() >= 10).then_some(())
    });
}

#[test]
fn without_the_privilege_it_says_so() {
    if !Uid::effective().is_root() {
        return skip("only root can give up its privileges");
    }
    let testbed = example("testbed");
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all"]);
    command.arg(testbed.get_program());
    command.envs(testbed.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("FORKPOOL_WORKERS", "2");
    if !command.status_of_true() {
        return skip("setpriv cannot run the example here");
    }
    let mut server = Server::start(command);
    let line = server.log().iter().find(|line| line.contains("balance: ")).cloned().expect("it says who chooses");
    assert!(line.contains("random, among the free workers; least connections: bpf(2) needs"), "{line}");
    assert_eq!(server.get("/").status, 200);
}

/// Whether a command line that ends in a program could run one.
trait Runnable {
    fn status_of_true(&self) -> bool;
}

impl Runnable for Command {
    fn status_of_true(&self) -> bool {
        let mut test = Command::new(self.get_program());
        test.args(self.get_args().take(4)).arg("test").arg("-x").arg(self.get_args().last().expect("a program"));
        test.status().is_ok_and(|status| status.success())
    }
}

#[test]
fn each_method_says_its_name_and_serves() {
    for (method, says) in [
        ("hash", "by the kernel's hash"),
        ("random", "random, among the free workers"),
        ("cpu", "by the CPU that received the connection"),
        ("client", "by the client's address"),
    ] {
        let mut server = testbed(&[("FORKPOOL_BALANCE", method), ("FORKPOOL_WORKERS", "3")]);
        assert_eq!(server.count(&format!("balance: {says}")), 1, "{method}");
        for _ in 0..30 {
            assert_eq!(server.get("/").status, 200);
        }
    }
}

#[test]
fn pinned_workers_stay_on_one_cpu_each() {
    for variable in [("FORKPOOL_PIN", "yes"), ("FORKPOOL_BALANCE", "cpu")] {
        let server = testbed(&[variable, ("FORKPOOL_WORKERS", "3")]);
        for worker in server.workers() {
            let status = std::fs::read_to_string(format!("/proc/{worker}/status")).expect("it runs");
            let cpus = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).expect("a list").trim();
            assert!(cpus.parse::<usize>().is_ok(), "{worker} may run on {cpus}");
        }
    }
}
