//! Datagrams: each worker has its own socket, and its replacement reads what waits in it.

mod support;

use std::collections::BTreeSet;
use std::net::UdpSocket;

use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use support::{example, until, Server};

fn start(address: &str, workers: usize) -> (Server, u16) {
    let mut command = example("udp_echo");
    command.env_remove("FORKPOOL_LISTEN").env("UDP_ECHO", address);
    command.env("FORKPOOL_WORKERS", workers.to_string());
    let mut server = Server::spawn(command);
    let line = server.wait_for("listening on udp://");
    let port = line.split(' ').find_map(|word| word.rsplit_once(':')?.1.parse().ok()).expect("it names the port");
    (server, port)
}

/// Another socket for each client, so that the kernel may choose another worker.
fn client(port: u16) -> UdpSocket {
    let client = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    client.set_read_timeout(Some(support::DEADLINE)).expect("a socket");
    client.connect(("127.0.0.1", port)).expect("an address");
    client
}

/// Waits for an answer; returns who gave it.
#[track_caller]
fn answer(client: &UdpSocket, expected: &str) -> Pid {
    let mut datagram = [0; 100];
    let len = client.recv(&mut datagram).expect("an answer");
    let text = std::str::from_utf8(&datagram[..len]).expect("text");
    let (pid, echo) = text.split_once(' ').expect("a pid and the text");
    assert_eq!(echo, expected);
    Pid::from_raw(pid.parse().expect("a pid"))
}

#[track_caller]
fn ask(port: u16) -> Pid {
    let client = client(port);
    client.send(b"hello").expect("it is bound");
    answer(&client, "hello")
}

/// Asks until every worker has answered.
#[track_caller]
fn all_answer(server: &Server, port: u16) {
    let mut seen = BTreeSet::new();
    until("all workers have answered", || {
        seen.insert(ask(port));
        server.workers().iter().all(|worker| seen.contains(worker)).then_some(())
    });
}

#[test]
fn datagrams_reach_all_workers() {
    for address in ["127.0.0.1:0", "0.0.0.0:0", ":0"] {
        let (server, port) = start(address, 3);
        assert_eq!(server.workers().len(), 3);
        all_answer(&server, port);
    }
}

#[test]
fn the_replacement_of_a_killed_worker_answers_what_waited_for_it() {
    let (server, port) = start("127.0.0.1:0", 1);
    let client = client(port);
    let before = server.workers()[0];
    // So that nobody is replaced yet.
    server.signal(Signal::SIGSTOP);
    kill(before, Signal::SIGKILL).expect("it runs");
    until("it is dead", || support::is_gone(before).then_some(()));
    for n in 0..20 {
        client.send(format!("{n}").as_bytes()).expect("the socket is there");
    }
    server.signal(Signal::SIGCONT);
    for n in 0..20 {
        assert_ne!(answer(&client, &n.to_string()), before);
    }
}

#[test]
fn rolling_restarts_lose_nothing() {
    let (mut server, port) = start("127.0.0.1:0", 2);
    let clients: Vec<UdpSocket> = (0..8).map(|_| client(port)).collect();
    let old: BTreeSet<Pid> = server.workers().into_iter().collect();
    for restarts in 1..=3 {
        server.signal(Signal::SIGHUP);
        while server.count("rolling restart done") < restarts {
            for client in &clients {
                client.send(b"x").expect("it is bound");
            }
            for client in &clients {
                answer(client, "x");
            }
        }
    }
    let new = until("the old ones are gone", || Some(server.workers()).filter(|workers| workers.len() == 2));
    assert!(new.iter().all(|worker| !old.contains(worker)));
    all_answer(&server, port);
}

#[test]
fn slots_that_are_scaled_away_get_nothing_and_come_back() {
    let (mut server, port) = start("127.0.0.1:0", 2);
    server.signal(Signal::SIGTTOU);
    let last = until("one is left", || match server.workers()[..] {
        [last] => Some(last),
        _ => None,
    });
    // Then its socket is closed.
    server.wait_for("exited with code 0");
    server.signal(Signal::SIGTTIN);
    until("it is back", || (server.workers().len() == 2).then_some(()));
    server.wait_for("worker=1 gen=1");
    assert!(server.workers().contains(&last));
    all_answer(&server, port);
}

#[test]
fn an_upgrade_takes_the_sockets_over() {
    let (mut server, port) = start("127.0.0.1:0", 2);
    let old: BTreeSet<Pid> = server.workers().into_iter().collect();
    let clients: Vec<UdpSocket> = (0..8).map(|_| client(port)).collect();
    server.signal(Signal::SIGUSR2);
    while server.count("stopped after") == 0 {
        for client in &clients {
            client.send(b"x").expect("it is bound");
            answer(client, "x");
        }
    }
    for _ in 0..20 {
        assert!(!old.contains(&ask(port)));
    }
}

#[test]
fn a_second_pool_on_the_address_does_not_start() {
    let (_server, port) = start("127.0.0.1:0", 1);
    let mut command = example("udp_echo");
    command.env_remove("FORKPOOL_LISTEN").env("UDP_ECHO", format!("127.0.0.1:{port}"));
    let (status, log) = Server::spawn(command).finish();
    assert!(!status.success());
    // As `main` prints the error: by its Debug.
    let address = format!("address: \"udp:127.0.0.1:{port}\"");
    assert!(log.iter().any(|line| line.contains(&address) && line.contains("AddrInUse")), "{log:?}");
}

/// Its UDP socket was closed at once and the one that listens was not: it has one of two.
#[test]
fn a_slot_that_comes_back_soon_is_counted_as_before() {
    let mut command = example("udp_echo");
    command.env("UDP_ECHO", "127.0.0.1:0").env("FORKPOOL_WORKERS", "2");
    let mut server = Server::spawn(command);
    server.wait_for("listening on udp://");
    server.signal(Signal::SIGTTOU);
    server.wait_for("exited with code 0");
    server.signal(Signal::SIGTTIN);
    server.wait_for(" ready");
    server.signal(Signal::SIGTERM);
    let (status, log) = server.finish();
    assert_eq!(status.code(), Some(0));
    assert!(!log.iter().any(|line| line.contains("least connections failed")), "{log:?}");
}
