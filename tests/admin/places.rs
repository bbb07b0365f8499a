//! Clients of the admin process that keep their connections.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Lines, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use nix::sys::signal::{kill, Signal};

use super::{private, Watched};
use crate::support::{self, connect_unix, fresh_path, until};

#[test]
fn events_are_streamed_until_the_pool_ends() {
    let (mut server, path) = private("admin-events.socket", &[]);
    let mut unfinished = connect_unix(&path);
    unfinished.send("GET / HTTP/1.1\r\nHo");
    let mut stream = UnixStream::connect(&path).expect("it listens");
    stream.write_all(b"GET /events?after=1 HTTP/1.1\r\nHost: a\r\n\r\n").expect("it reads");
    let mut lines = BufReader::new(stream).lines().map(|line| line.expect("text"));
    let mut next = |part: &str| lines.by_ref().find(|line| line.contains(part)).unwrap_or_else(|| panic!("no {part}"));
    // The first is left out.
    assert!(next("\"seq\":").starts_with("{\"seq\":2,"));
    next("listening on http://127.0.0.1:");
    let worker = server.get("/").worker();
    kill(worker, Signal::SIGKILL).expect("it runs");
    let killed = next(&format!("pid={worker} killed by SIGKILL"));
    let about = format!(",\"generation\":1,\"pid\":{worker},\"reason\":\"killed\",");
    assert!(killed.contains("\"level\":\"warn\",\"kind\":\"exited\",") && killed.contains(&about), "{killed}");
    next("gen=2");
    server.signal(Signal::SIGTERM);
    next("stopped after 1 requests");
    // The last chunk: it is a whole answer, and the process has ended by itself.
    let rest: Vec<String> = lines.collect();
    assert_eq!(rest[rest.len() - 2..], ["0", ""]);
    assert_eq!(server.wait().code(), Some(0));
}

/// Clients that hold places for as long as they can, and take new ones for those that they lose.
fn besiege<T>(port: u16, request: &str, during: impl FnOnce() -> T) -> T {
    const CLIENTS: usize = 1000;
    let begin = || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_nonblocking(true).ok()?;
        stream.write_all(request.as_bytes()).ok()?;
        Some(stream)
    };
    let mut clients: Vec<Option<TcpStream>> = (0..CLIENTS).map(|_| begin()).collect();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Relaxed) {
                for client in &mut clients {
                    let waits = |error: std::io::Error| error.kind() == ErrorKind::WouldBlock;
                    let is_lost = |stream: &mut TcpStream| {
                        let is_told = request.is_empty() || stream.write(b"x").map_or_else(waits, |_| true);
                        !is_told || !stream.read(&mut [0; 4096]).map_or_else(waits, |len| len > 0)
                    };
                    if client.as_mut().is_none_or(is_lost) {
                        *client = begin();
                    }
                }
                // As fast as the machine allows is not the point; that none gives up is.
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let result = panic::catch_unwind(AssertUnwindSafe(during));
        is_over.store(true, Relaxed);
        result.unwrap_or_else(|panic| panic::resume_unwind(panic))
    })
}

#[test]
fn idle_clients_do_not_keep_probes_out() {
    let watched = Watched::start(&[]);
    for request in [
        "",
        "GET /healthz HTTP/1.1\r\nHost: ",
        "POST /restart HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n",
        "POST /restart HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n",
        "GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    ] {
        let longest = besiege(watched.admin, request, || {
            // Less than any client is given here to say something: were they in the way, each would take longer. One
            // or the other may do so on a machine that is busy.
            until(&format!("most do not wait for {request:?}"), || {
                let times = (0..50).map(|_| {
                    let began = Instant::now();
                    assert_eq!(watched.ask("/healthz").status, 200, "{request:?}");
                    began.elapsed()
                });
                let mut times: Vec<_> = times.collect();
                times.sort();
                (times[25] < Duration::from_secs(4)).then_some(times[49])
            })
        });
        eprintln!("/healthz beside a thousand clients that send {request:?} and wait: at most {longest:?}");
    }
}

#[test]
fn an_operator_gets_events_whoever_else_does() {
    let path = fresh_path("admin.stream-token");
    fs::write(&path, "let-me-in\n").expect("a writable directory");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
    let watched = Watched::start(&[("FORKPOOL_ADMIN_TOKEN_FILE", path.to_str().expect("UTF-8"))]);
    let stream = |fields: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", watched.admin)).expect("the port is open");
        stream.set_read_timeout(Some(support::DEADLINE)).expect("a socket");
        let request = format!("GET /events HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut lines = BufReader::new(stream).lines();
        assert_eq!(lines.next().expect("an answer").expect("text"), "HTTP/1.1 200 OK");
        lines
    };
    // By the last chunk.
    let ends = |lines: &mut Lines<BufReader<TcpStream>>| {
        assert!(lines.map_while(Result::ok).any(|line| line == "0"), "it is not ended");
    };
    let operator = "Authorization: Bearer let-me-in\r\n";
    let mut others: Vec<_> = (0..64).map(|_| stream("")).collect();
    let mut first = stream(operator);
    ends(&mut others[0]);
    // A newcomer takes the place of one of its kind, and never that of an operator.
    others.extend((0..64).map(|_| stream("")));
    assert_eq!(watched.send("POST", "/scale?workers=3", operator).status, 202);
    assert!(first.by_ref().map_while(Result::ok).any(|line| line.contains("scaled from 2 to 3 workers")));
    let operators: Vec<_> = (0..64).map(|_| stream(operator)).collect();
    ends(&mut first);
    assert_eq!(watched.send("GET", "/events", "").status, 503);
    drop(operators);
    fs::remove_file(&path).expect("it is there");
}
