//! The memory that clients can make a worker use has a limit, and is given back.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::{testbed, until, Client, Server};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

const MIB: usize = 1 << 20;

/// A testbed with one worker that may hold so many MiB.
fn holding(mib: usize) -> Server {
    testbed(&[("FORKPOOL_WORKERS", "1"), ("FORKPOOL_MAX_HELD", &format!("{mib}MiB"))])
}

/// KiB of memory that are the process's own. What /proc/PID/status says of it is behind by up to some hundred KiB for
/// each processor.
fn memory(pid: Pid) -> usize {
    let pages = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("it runs");
    let line = pages.lines().find(|line| line.starts_with("Anonymous:")).expect("a line");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

/// A connection on which a megabyte of a body has been sent, as far as the server takes it.
fn upload(server: &mut Server, target: &str) -> Client<TcpStream> {
    let client = server.connect();
    client.stream().set_nonblocking(true).expect("a socket");
    let mut request = format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {MIB}\r\n\r\n").into_bytes();
    request.resize(request.len() + MIB - 1, b'x');
    let (mut sent, mut in_vain) = (0, 0);
    // The rest is left to whoever was refused already.
    while sent < request.len() && in_vain < 2 {
        match std::io::Write::write(&mut client.stream(), &request[sent..]) {
            Ok(len) => (sent, in_vain) = (sent + len, 0),
            // The worker has looked at this connection by the time that this returns.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                server.catch_up();
                in_vain += 1;
            }
            Err(_) => break,
        }
    }
    client.stream().set_nonblocking(false).expect("a socket");
    client
}

fn body_is_refused(server: &mut Server) -> bool {
    let mut client = server.connect();
    client.send("POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    let answer = client.answer();
    match answer.status {
        100 => false,
        503 => {
            assert_eq!(answer.field("retry-after"), Some("1"));
            assert!(answer.closes());
            true
        }
        status => panic!("{status}"),
    }
}

#[test]
fn at_the_limit_new_bodies_are_refused_until_slow_clients_have_gone() {
    let variables = [("FORKPOOL_WORKERS", "1"), ("FORKPOOL_MAX_HELD", "8MiB"), ("FORKPOOL_ADMIN", "127.0.0.1:0")];
    let mut server = testbed(&variables);
    let mut stalled: Vec<_> = (0..16).map(|_| upload(&mut server, "/echo")).collect();
    until("the worker holds all that it may", || body_is_refused(&mut server).then_some(()));
    until("a head is refused", || {
        let mut beginning = server.connect();
        beginning.send("GET / HTTP/1.1\r\n");
        let status = beginning.answer().status;
        if status == 408 {
            // There was room meanwhile, as a slow client has gone.
            stalled.push(upload(&mut server, "/echo"));
            return None;
        }
        assert_eq!(status, 503);
        Some(())
    });
    let line = server.log().iter().find(|line| line.contains("admin on ")).expect("it is announced").clone();
    let port: u16 = line.rsplit(':').next().and_then(|port| port.parse().ok()).expect("it ends in a port");
    let mut admin = Client::new(TcpStream::connect(("127.0.0.1", port)).expect("the admin process listens"));
    let status = admin.get("/status.json").text().to_owned();
    assert!(status.contains("\"max_held\":8388608") && !status.contains("\"held\":0,"), "{status}");
    // What comes whole has to be held nowhere.
    assert_eq!(server.get("/").status, 200);
    let mut statuses: Vec<u16> = Vec::new();
    until("a slow client has had to go", || {
        if !body_is_refused(&mut server) {
            stalled.push(upload(&mut server, "/echo"));
        }
        stalled.retain_mut(|client| {
            client.stream().set_read_timeout(Some(Duration::from_millis(1))).expect("a socket");
            // An answer is sent whole.
            let answer = client.try_answer(false).map(|answer| statuses.push(answer.status));
            answer.is_err()
        });
        statuses.contains(&408).then_some(())
    });
    assert!(!stalled.is_empty(), "not all had to go: {statuses:?}");
    until("there is room", || (!body_is_refused(&mut server)).then_some(()));
}

#[test]
fn a_body_that_waits_for_memory_goes_on_when_there_is_some() {
    let mut server = holding(2);
    let mut waiting = server.connect();
    waiting.send("POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 500000\r\n\r\n");
    assert_eq!(waiting.answer().status, 100);
    let mut first = upload(&mut server, "/echo");
    let _second = upload(&mut server, "/echo");
    until("the worker holds all that it may", || body_is_refused(&mut server).then_some(()));
    waiting.send(vec![b'x'; 500_000]);
    // Its memory is there, so it need not wait, and makes room.
    first.send("x");
    assert_eq!(first.answer().status, 200);
    assert_eq!(waiting.answer().status, 200);
}

/// Sends bodies on many connections, a piece on each in turn, as far as the server takes them, until all have their
/// answers. Returns these, and the longest time between two pieces of a body.
fn upload_side_by_side(server: &mut Server, count: usize, piece: usize) -> (Vec<u16>, Duration) {
    let fields = format!("Host: a\r\nExpect: 100-continue\r\nContent-Length: {MIB}\r\n");
    let body = vec![b'x'; MIB];
    let mut clients: Vec<_> = (0..count).map(|_| (server.connect(), 0)).collect();
    for (client, _) in &mut clients {
        client.send(format!("POST /slow?ms=0 HTTP/1.1\r\n{fields}\r\n"));
        assert_eq!(client.answer().status, 100);
        client.stream().set_nonblocking(true).expect("a socket");
    }
    let is_whole = |sent: &usize| *sent == body.len();
    let (mut longest, mut latest) = (Duration::ZERO, Instant::now());
    until("all has been sent", || {
        longest = longest.max(latest.elapsed());
        latest = Instant::now();
        for (client, sent) in &mut clients {
            let piece = &body[*sent..body.len().min(*sent + piece)];
            // Who is refused has an answer to show for it.
            *sent += std::io::Write::write(&mut client.stream(), piece).unwrap_or(0);
        }
        clients.iter_mut().all(|(client, sent)| is_whole(sent) || client.stream().peek(&mut [0]).is_ok()).then_some(())
    });
    let statuses = clients.iter_mut().map(|(client, _)| {
        client.stream().set_nonblocking(false).expect("a socket");
        client.answer().status
    });
    (statuses.collect(), longest.max(latest.elapsed()))
}

#[test]
fn bodies_that_wait_for_each_others_memory_all_complete() {
    let mut server = holding(8);
    for piece in [10_000, 64 * 1024, 130_000, 200_000, 300_000, 400_000] {
        // A client that pauses for long loses its turn, so once more where this machine has not let them keep their
        // pace.
        until("they keep their pace", || {
            let (statuses, longest) = upload_side_by_side(&mut server, 40, piece);
            let are_whole = statuses.iter().all(|status| *status == 200);
            assert!(are_whole || longest > Duration::from_millis(300), "pieces of {piece}: {statuses:?}, {longest:?}");
            are_whole.then_some(())
        });
    }
}

#[test]
fn an_incomplete_body_does_not_delay_a_stop() {
    let mut server = holding(8);
    let mut clients: Vec<_> = (0..24).map(|_| upload(&mut server, "/echo")).collect();
    server.signal(Signal::SIGTERM);
    let mut statuses: Vec<u16> = Vec::new();
    for client in &mut clients {
        statuses.extend(client.try_answer(false).map(|answer| answer.status));
    }
    assert!(statuses.contains(&408), "{statuses:?}");
    let (status, log) = server.finish();
    assert_eq!(status.code(), Some(0), "{log:?}");
    assert!(!log.iter().any(|line| line.contains("SIGKILL")), "{log:?}");
}

#[test]
fn memory_is_bounded_and_comes_back() {
    for target in ["/plain", "/echo"] {
        let mut server = holding(16);
        let worker = server.workers()[0];
        assert_eq!(server.get("/").status, 200);
        let before = memory(worker);
        let mut clients: Vec<_> = (0..120).map(|_| upload(&mut server, target)).collect();
        if target == "/echo" {
            // They get their answers, and do not read them.
            for client in &mut clients {
                let _ = std::io::Write::write_all(&mut client.stream(), b"x");
            }
        }
        assert_eq!(server.get("/").status, 200);
        let held = memory(worker).saturating_sub(before);
        assert!(held < 24 * 1024, "{target}: {held} KiB");
        drop(clients);
        until("what was held is given back", || {
            server.get("/");
            (memory(worker) < before + 2 * 1024).then_some(())
        });
    }
}
