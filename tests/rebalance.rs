//! Kept connections move from workers with many of them, or with much to do, to others, and none is closed.

mod support;

use std::collections::BTreeMap;
use std::net::TcpStream;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use support::{testbed, until, Client, Server};

type Clients = [Client<TcpStream>];

/// A pool with two workers, whose 20 connections were made to the first.
fn scaled_up() -> (Server, Vec<Client<TcpStream>>) {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "1")]);
    let mut clients: Vec<_> = (0..20).map(|_| server.connect()).collect();
    ask(&mut clients, "/");
    server.signal(Signal::SIGTTIN);
    (server, clients)
}

/// Makes a request on each at the same time. Returns how many each worker has answered.
#[track_caller]
fn ask(clients: &mut Clients, path: &str) -> BTreeMap<Pid, usize> {
    for client in clients.iter_mut() {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    }
    let mut workers = BTreeMap::new();
    for client in clients.iter_mut() {
        let answer = client.answer();
        assert!(answer.status == 200 && !answer.closes(), "{answer:?}");
        *workers.entry(answer.worker()).or_default() += 1;
    }
    workers
}

#[test]
fn a_new_worker_gets_as_many_as_the_others() {
    let (server, mut clients) = scaled_up();
    until("each has its half", || ask(&mut clients, "/").values().all(|count| *count <= 11).then_some(()));
    server.signal(Signal::SIGTTIN);
    until("each has its third", || ask(&mut clients, "/").values().all(|count| *count <= 8).then_some(()));
}

#[test]
fn an_idle_worker_gets_a_part_of_the_busy_ones() {
    let (_server, mut clients) = scaled_up();
    until("each has its half", || ask(&mut clients, "/").values().all(|count| *count <= 11).then_some(()));
    let mut by_worker: BTreeMap<Pid, Vec<Client<TcpStream>>> = BTreeMap::new();
    for mut client in clients {
        by_worker.entry(client.get("/").worker()).or_default().push(client);
    }
    let mut halves = by_worker.into_iter();
    let (Some((busy, mut clients)), Some((idle, _kept))) = (halves.next(), halves.next()) else {
        panic!("two workers")
    };
    let is_shared = |workers: BTreeMap<Pid, usize>| workers.contains_key(&busy) && workers.get(&idle) >= Some(&3);
    until("the other one answers for some of them", || is_shared(ask(&mut clients, "/burn?ms=10")).then_some(()));
}
