//! The whole server over real sockets, in this process. The tests play the client and the parent.

mod handover;

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{mpsc, Arc};
use std::thread;
use std::time::Duration;

use mio::{Events, Poll, Token};
use nix::unistd::{sysconf, SysconfVar};
use socket2::{Domain, Socket, Type};

use super::adoption::{Adopter, Adoptions};
use super::answer::response::Response;
use super::event_loop::Server;
use super::http::{CommonFields, Request};
use super::resources::Resources;
use super::station::Station;
use crate::shared::channel::{self, ParentEnd, WorkerEnd};
use crate::shared::config::Config;
use crate::shared::handover::Receiver;
use crate::shared::scoreboard::{ParentBoard, RowPage};
use crate::sys::{clock, epoll, fds};

/// The ends of the channels between a worker and its parent.
struct Bed {
    parent: ParentEnd,
    lifeline: WorkerEnd,
    board: ParentBoard,
    page: RowPage,
    config: Config,
    quit: AtomicBool,
    max_requests: Cell<u64>,
    adoptions: Arc<Adoptions>,
    handover: RefCell<Option<Receiver>>,
}

impl Bed {
    fn new() -> Bed {
        let (parent, lifeline) = channel::channel(0, false).expect("a socket pair");
        let board = ParentBoard::new(1).expect("memory");
        let page = board.lend(1, 0, clock::now()).expect("a row");
        Bed {
            parent,
            lifeline,
            board,
            page,
            config: Config::default(),
            quit: AtomicBool::new(false),
            max_requests: Cell::new(0),
            adoptions: Arc::default(),
            handover: RefCell::default(),
        }
    }

    /// A client whose connection was passed to the server.
    fn client(&self) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        let (stream, _) = listener.accept().expect("it has connected");
        Adopter(Arc::clone(&self.adoptions)).adopt(stream).expect("a connection");
        client
    }

    /// Serves until `handler`, or something before it, has closed the parent's end and the connections have ended.
    fn serve(&self, listeners: Vec<TcpListener>, handler: impl FnMut(&Request<'_>) -> Response) {
        let shutdown = self.lifeline.stream().try_clone().expect("a descriptor");
        let resources = Resources {
            shutdown,
            listeners,
            shared_listeners: Vec::new(),
            unix_listeners: Vec::new(),
            handover: self.handover.take(),
            inbox: None,
            common: CommonFields::new(),
            streams: Box::new(|_| false),
            log: None,
            tls: None,
        };
        let station = Station {
            id: 0,
            tag: "worker=0".to_owned(),
            lifeline: &self.lifeline,
            page: &self.page,
            config: &self.config.server,
            drain_timeout: self.config.lifecycle.drain_timeout,
            quit: &self.quit,
            max_requests: &self.max_requests,
            adoptions: Arc::clone(&self.adoptions),
            woken: Cell::default(),
        };
        let mut server = Server::new(station, resources, handler).expect("an epoll instance");
        server.run().expect("it serves");
    }
}

/// Waits until so many connections are in the queue. The kernel may be behind with what ends a handshake, of which the
/// client knows.
fn until_queued(listener: &TcpListener, count: u32) {
    while fds::waiting(listener).expect("a listener") < count {
        thread::yield_now();
    }
}

fn all_of(mut client: TcpStream) -> String {
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("the server closes");
    answer
}

#[test]
fn a_request_that_has_come_is_answered_though_the_lifeline_has_ended() {
    let bed = Bed::new();
    let mut client = bed.client();
    client.write_all(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    bed.parent.close();
    bed.serve(Vec::new(), |request| Response::text(request.path().to_owned()));
    let answer = all_of(client);
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n/a"), "{answer}");
    assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
    let counters = bed.board.row(1).counters(clock::now());
    assert_eq!((counters.requests, counters.accepted, counters.closed), (1, 1, 1));
}

#[test]
fn a_drain_that_begins_between_two_requests_loses_neither() {
    let bed = Bed::new();
    let mut client = bed.client();
    client.write_all(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    let served = Cell::new(0);
    bed.serve(Vec::new(), |request| {
        served.set(served.get() + 1);
        if served.get() == 2 {
            bed.parent.close();
        }
        Response::text(request.path().to_owned())
    });
    let answer = all_of(client);
    assert_eq!((answer.matches("HTTP/1.1 200 ").count(), served.get()), (2, 2), "{answer}");
}

#[test]
fn what_waits_in_the_queue_is_served_when_the_pool_stops() {
    let bed = Bed::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a socket");
    let mut client = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    client.write_all(b"GET /queued HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    until_queued(&listener, 1);
    bed.parent.close();
    bed.serve(vec![listener], |request| Response::text(request.path().to_owned()));
    assert!(all_of(client).ends_with("\r\n\r\n/queued"));
}

#[test]
fn a_connection_is_served_whose_wake_up_a_killed_process_has_taken_along() {
    let bed = Bed::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a socket");
    let address = listener.local_addr().expect("bound");
    // It is registered before the server, so the kernel wakes it first.
    let (mut killed, its_copy) = (Poll::new().expect("epoll"), listener.try_clone().expect("a descriptor"));
    epoll::watch_exclusively(&killed, &its_copy, Token(0)).expect("a socket");
    let (woken, is_woken) = mpsc::channel();
    let waits = thread::spawn(move || {
        killed.poll(&mut Events::with_capacity(1), Some(Duration::from_secs(60))).expect("it waits");
        woken.send(()).expect("somebody waits for it");
    });
    let (given_up, has_given_up) = (bed.lifeline.stream().try_clone().expect("a socket"), mpsc::channel::<bool>());
    let mut first = bed.client();
    first.write_all(b"GET /first HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    let mut reader = None;
    bed.serve(vec![listener], |request| {
        if request.path() == "/first" {
            let mut second = TcpStream::connect(address).expect("it listens");
            second.write_all(b"GET /second HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
            is_woken.recv().expect("a connection has come");
            bed.parent.look().expect("there is room");
            let (given_up, is_over) = (given_up.try_clone().expect("a socket"), has_given_up.0.clone());
            reader = Some(thread::spawn(move || {
                second.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
                let is_served = second.read(&mut [0]).is_ok_and(|len| len > 0);
                is_over.send(is_served).expect("the test waits");
                given_up.shutdown(Shutdown::Both).expect("a socket");
            }));
        }
        Response::text("")
    });
    assert!(has_given_up.1.recv().expect("the client has read"), "the second connection was not served");
    waits.join().expect("it was woken");
    reader.expect("there was a first request").join().expect("it has read");
}

#[test]
fn a_panic_is_an_answer_of_500_and_counted() {
    let bed = Bed::new();
    let mut client = bed.client();
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    bed.parent.close();
    bed.serve(Vec::new(), |_| panic!("as the test wants it"));
    assert!(all_of(client).starts_with("HTTP/1.1 500 "));
    assert_eq!(bed.board.row(1).counters(clock::now()).panics, 1);
}

#[test]
fn a_flood_of_connections_does_not_keep_a_worker_from_leaving() {
    const BACKLOG: u16 = 256;
    const CLIENTS: u16 = 8;
    let bed = Bed::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a socket");
    socket2::SockRef::from(&listener).listen(BACKLOG.into()).expect("a socket");
    let address = socket2::SockAddr::from(listener.local_addr().expect("bound"));
    let waiting = [0; 10].map(|_| TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens"));
    until_queued(&listener, 10);
    bed.parent.close();
    let connected = AtomicU64::new(0);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) && connected.fetch_add(1, Ordering::Relaxed) < 200_000 {
                    let client = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a descriptor");
                    client.set_nonblocking(true).expect("a socket");
                    client.set_linger(Some(Duration::ZERO)).expect("a socket");
                    // One that cannot wait in the queue does not wait here either.
                    let _ = client.connect(&address);
                }
            });
        }
        // So the clients are faster.
        let thread = nix::unistd::gettid().to_string();
        let _ = Command::new("renice").args(["-n", "10", "-p", &thread]).output();
        bed.serve(vec![listener], |_| Response::new(204));
        is_over.store(true, Ordering::Relaxed);
    });
    let accepted = bed.board.row(1).counters(clock::now()).accepted;
    // Those that waited, and as many more. The kernel lets a queue have one more than its backlog and checks without a
    // lock whether it is full, so each processor that takes segments of clients may add one.
    let processors = sysconf(SysconfVar::_NPROCESSORS_ONLN).ok().flatten().and_then(|count| u64::try_from(count).ok());
    let most = 2 * (u64::from(BACKLOG) + 1 + processors.unwrap_or(0).max(CLIENTS.into())) + 64;
    assert!((waiting.len() as u64..=most).contains(&accepted), "{accepted} of {}", connected.into_inner());
}
