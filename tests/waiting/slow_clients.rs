//! Timeouts close the connections of slow clients only, and of no client whose request has come in time.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::sockets::{tcp_sockets_of, ESTABLISHED};
use crate::support::{self, testbed, until, Client, Server};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// More than the events of one turn.
const MANY: usize = 600;

/// Blocks the only worker for so long; `None` if the client was too slow for that.
fn block(server: &mut Server, time: Duration) -> Option<Client<TcpStream>> {
    let mut client = server.connect();
    // Its first answer says that it has been accepted.
    assert_eq!(client.try_get("/").ok()?.status, 200);
    let request = format!("GET /slow?ms={} HTTP/1.1\r\nHost: a\r\n\r\n", time.as_millis());
    client.stream().write_all(request.as_bytes()).ok()?;
    Some(client)
}

/// A client that sends pieces of a body until it is answered; returns the status that it gets, and its longest pause.
fn upload(server: &mut Server, pieces: usize, size: usize, pause: Duration) -> (u16, Duration) {
    let mut client = server.connect();
    client.send(format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", pieces * size));
    let mut longest = Duration::ZERO;
    for _ in 0..pieces {
        let begun = Instant::now();
        if client.stream().write_all(&vec![b'x'; size]).is_err() {
            break;
        }
        // So slow it is; nothing waits for it.
        thread::sleep(pause);
        longest = longest.max(begun.elapsed());
        if is_readable(&client) {
            break;
        }
    }
    (client.answer().status, longest)
}

fn is_readable(client: &Client<TcpStream>) -> bool {
    client.stream().set_nonblocking(true).expect("a socket");
    let is_readable = client.stream().peek(&mut [0]).is_ok();
    client.stream().set_nonblocking(false).expect("a socket");
    is_readable
}

/// The same, of a client that is in time. Once more where this machine has not let it be.
#[track_caller]
fn is_answered(server: &mut Server, pieces: usize, size: usize, pause: Duration) {
    until("a client keeps its pace", || match upload(server, pieces, size, pause) {
        (200, _) => Some(()),
        (status, longest) => {
            // With two such pauses there is hardly more than a piece in a second.
            assert!(longest > Duration::from_millis(450), "{status}, and it has paused for {longest:?} at most");
            None
        }
    });
}

#[test]
fn a_body_must_arrive_at_a_minimum_rate() {
    let limits = [("FORKPOOL_WORKERS", "1"), ("FORKPOOL_BODY_TIMEOUT", "1s"), ("FORKPOOL_MIN_RATE", "1000")];
    let mut server = testbed(&limits);
    // It never pauses for long, and holds its place all the same.
    assert_eq!(upload(&mut server, 100, 1, Duration::from_millis(100)).0, 408);
    // Neither does this one, which is as fast as asked for over the timeout.
    is_answered(&mut server, 8, 1000, Duration::from_millis(300));
    // Nor does one that has no body to speak of.
    is_answered(&mut server, 3, 1, Duration::from_millis(100));
}

#[track_caller]
fn all_are_answered(clients: impl Iterator<Item = Client<TcpStream>>) {
    for mut client in clients {
        assert_eq!(client.answer().status, 200);
    }
}

/// So many clients, each of which has begun; `None` if one of them was too slow for that.
fn begun(server: &mut Server, is_first_answered: bool, begin: &str) -> Option<Vec<Client<TcpStream>>> {
    let mut clients: Vec<_> = (0..MANY).map(|_| server.connect()).collect();
    for client in &mut clients {
        if is_first_answered {
            client.stream().write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").ok()?;
        }
        client.stream().write_all(begin.as_bytes()).ok()?;
    }
    for client in clients.iter_mut().filter(|_| is_first_answered) {
        assert_eq!(client.try_answer(false).ok()?.status, 200);
    }
    Some(clients)
}

#[test]
fn a_request_that_came_in_time_is_answered_however_late_it_is_seen() {
    // What this machine can do easily, and more each time that it has not done it.
    let mut timeout = Duration::from_millis(500);
    for (variable, is_first_answered, begin, end) in [
        ("FORKPOOL_IDLE_TIMEOUT", true, "", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("FORKPOOL_HEAD_TIMEOUT", false, "GET / HTTP/1.1\r\n", "Host: a\r\n\r\n"),
        ("FORKPOOL_BODY_TIMEOUT", false, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nx", "x"),
    ] {
        until("all come in time", || {
            let value = format!("{}ms", timeout.as_millis());
            let mut server = testbed(&[("FORKPOOL_WORKERS", "1"), (variable, &value)]);
            let begin_at = Instant::now();
            let clients = begun(&mut server, is_first_answered, begin).and_then(|clients| {
                let blocking = block(&mut server, timeout + timeout / 2)?;
                let are_sent = clients.iter().all(|client| client.stream().write_all(end.as_bytes()).is_ok());
                are_sent.then(|| clients.into_iter().chain([blocking]))
            });
            if begin_at.elapsed() < timeout / 2 {
                let clients = clients.unwrap_or_else(|| panic!("{variable}: a connection was closed too early"));
                all_are_answered(clients);
                return Some(());
            }
            timeout *= 2;
            None
        });
    }
}

/// A client with a small buffer, so that what it does not read waits in the server's kernel, and with small packets, so
/// that each of its reads is told there; it asks for a file that fits in neither.
fn ask_for_much(server: &mut Server) -> socket2::Socket {
    let address: std::net::SocketAddr = ([127, 0, 0, 1], server.port()).into();
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(32 * 1024).expect("a socket");
    socket.set_tcp_mss(1460).expect("a socket");
    socket.connect(&address.into()).expect("it listens");
    socket.send(b"GET /much HTTP/1.1\r\nHost: a\r\n\r\n").expect("it reads");
    socket
}

/// More than the kernel takes.
const MUCH: usize = 64 << 20;

/// Serves a file of that size with this write timeout, and minimum rate.
fn serving_much(name: &str, rate: &str) -> (Server, std::path::PathBuf) {
    let directory = support::fresh_path(name);
    std::fs::create_dir(&directory).expect("writable");
    std::fs::write(directory.join("much"), vec![b'x'; MUCH]).expect("writable");
    let mut command = support::binary();
    command.args(["--workers", "1", "--write-timeout", "2s", "--min-rate", rate, "--root"]).arg(&directory);
    (Server::start(command), directory)
}

/// Reads slowly for three times the write timeout, then as fast as it can; returns how much came, and the longest that
/// it has paused. So much at once that the kernel has room again each time: that may be only once a whole buffer of 64
/// KiB was read.
fn read_slowly(mut socket: &socket2::Socket) -> (usize, Duration) {
    let mut buffer = vec![0; 64 * 1024];
    let (mut total, mut longest, mut latest) = (0, Duration::ZERO, Instant::now());
    for turn in 0.. {
        let is_slow = turn < 24;
        if is_slow {
            // So slow it is; nothing waits for it.
            thread::sleep(Duration::from_millis(250));
        }
        longest = longest.max(latest.elapsed());
        latest = Instant::now();
        match socket.read(if is_slow { &mut buffer[..32768] } else { &mut buffer }) {
            Ok(0) | Err(_) => break,
            Ok(len) => total += len,
        }
        if total >= MUCH {
            break;
        }
    }
    (total, longest)
}

/// How many connections a process has that are open from both sides.
fn sockets(pid: Pid) -> usize {
    tcp_sockets_of(pid, ESTABLISHED).expect("it runs").count()
}

#[test]
fn reading_from_the_kernel_s_buffer_counts_as_progress() {
    let (mut server, directory) = serving_much("much-slow", "500");
    let worker = server.workers()[0];
    // Once more where this machine has not let it keep its pace.
    let mut silent = until("a slow client keeps its pace", || {
        let silent = ask_for_much(&mut server);
        let slow = ask_for_much(&mut server);
        let (total, longest) = read_slowly(&slow);
        // Its progress may be told only at every third read, and all three must come within the timeout.
        assert!(total >= MUCH || longest > Duration::from_millis(500), "{total}, and it has paused for {longest:?}");
        (total >= MUCH).then_some(silent)
    });
    // One that takes nothing is closed, and still gets what is on its way: its length tells that this is not all.
    until("it is closed", || (sockets(worker) == 0).then_some(()));
    let mut all = Vec::new();
    silent.read_to_end(&mut all).expect("no reset");
    assert!(!all.is_empty() && all.len() < MUCH, "{}", all.len());
    std::fs::remove_dir_all(directory).expect("ours");
}

#[test]
fn a_response_must_be_read_at_a_minimum_rate() {
    let (mut server, directory) = serving_much("much-rate", "1000000");
    let slow = ask_for_much(&mut server);
    assert!(read_slowly(&slow).0 < MUCH, "it was closed");
    std::fs::remove_dir_all(directory).expect("ours");
}

/// A client that writes twelve pieces of a body before it reads, at this pace, and meanwhile has the server do
/// something. Once more where this machine has not let it keep its pace: a long pause is not waited for.
#[track_caller]
fn writes_then_reads(server: &mut Server, pause: Duration, meanwhile: impl Fn(&mut Server)) -> u16 {
    until("it keeps its pace", || {
        let mut client = server.connect();
        client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 12000\r\n\r\n");
        let (mut longest, mut latest) = (Duration::ZERO, Instant::now());
        meanwhile(server);
        let written = (0..12).try_for_each(|_| {
            longest = longest.max(latest.elapsed());
            latest = Instant::now();
            client.stream().write_all(&[b'x'; 1000])?;
            // So slow it is; nothing waits for it.
            thread::sleep(pause);
            std::io::Result::Ok(())
        });
        longest = longest.max(latest.elapsed());
        match written.and_then(|()| client.try_answer(false)) {
            Ok(answer) => Some(answer.status),
            Err(error) => {
                assert!(longest > pause * 2, "{error}, and it has paused for {longest:?} at most");
                None
            }
        }
    })
}

#[test]
fn a_client_that_writes_its_whole_body_first_reads_the_refusal() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "1"), ("FORKPOOL_MAX_BODY", "1k")]);
    // Longer than any single pause is waited for.
    assert_eq!(writes_then_reads(&mut server, Duration::from_millis(600), |_| ()), 413);
}

#[test]
fn a_client_that_writes_its_whole_body_first_reads_the_refusal_during_a_restart() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "1"), ("FORKPOOL_MAX_BODY", "1k")]);
    // Longer in all than any single pause is waited for.
    let status = writes_then_reads(&mut server, Duration::from_millis(400), |server| {
        server.signal(Signal::SIGHUP);
        server.wait_for("rolling restart done");
    });
    assert_eq!(status, 413);
}

#[test]
fn a_client_that_never_stops_sending_is_closed() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "1"), ("FORKPOOL_MAX_BODY", "1k")]);
    let mut client = server.connect();
    client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999999\r\n\r\n");
    let piece = vec![b'x'; 1 << 20];
    let sent = (0..4096).take_while(|_| client.stream().write_all(&piece).is_ok()).count();
    assert!(sent < 4096, "as much as it likes");
}
