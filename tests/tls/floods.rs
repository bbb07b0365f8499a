//! Many handshakes at once.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use nix::sys::resource::{getrlimit, setrlimit, Resource};
use nix::unistd::Pid;
use rustls::version::TLS13;

use crate::browser::{
    address, admin_address, busy, connect, has_answer, has_ended, hello, metric, testbed, Browser, BOTH,
};
use crate::support::{fresh_path, skip, until};

#[test]
fn a_flood_of_hellos_leaves_others_their_turn() {
    let mut server =
        testbed(&[("FORKPOOL_WORKERS", "1"), ("FORKPOOL_MAX_PIPELINED", "1"), ("FORKPOOL_ADMIN", "127.0.0.1:0")]);
    let (address, admin) = (address(&mut server), admin_address(&mut server));
    let browser = Browser::new(&[&TLS13]);
    let mut kept = browser.connect(address);
    let paths = ["first", "second", "last"].map(|name| fresh_path(&format!("tls.flood.{name}")));
    let [first, second, last] =
        paths.each_ref().map(|path| format!("GET /wait?{} HTTP/1.1\r\nHost: x\r\n\r\n", path.display()));
    // One in each turn.
    let two = "GET /204 HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2);
    kept.send(first + &two + &second + &two + &last);
    server.wait_for("serves /wait");
    // The flood comes during the first.
    let bytes = hello(&browser);
    let mut flood: Vec<TcpStream> = (0..100).map(|_| connect(address, &bytes)).collect();
    fs::write(&paths[0], "").expect("written");
    server.wait_for("serves /wait");
    // Now handshakes wait for their turn.
    // Long enough for the status to tell whether it has been busy since then, or since the end of this one.
    until("it is busy for long", || (busy(admin) >= Duration::from_millis(500)).then_some(()));
    let released = Instant::now();
    fs::write(&paths[1], "").expect("written");
    server.wait_for("serves /wait");
    // Now it is in the last, some turns later.
    let answered = flood.iter().filter(|socket| has_answer(socket)).count();
    assert!((1..30).contains(&answered), "{answered} handshakes came before it");
    until("it was busy all the time, so that new connections avoid it", || {
        let elapsed = released.elapsed();
        (busy(admin) >= elapsed).then_some(())
    });
    fs::write(&paths[2], "").expect("written");
    for status in [200, 204, 204, 200, 204, 204, 200] {
        assert_eq!(kept.answer().status, status);
    }
    // All of them get on.
    for socket in &mut flood {
        socket.read_exact(&mut [0]).expect("an answer");
    }
    paths.iter().for_each(|path| fs::remove_file(path).expect("removed"));
}

#[test]
fn handshakes_that_wait_for_their_clients_make_room_for_others() {
    for version in BOTH {
        let mut server = testbed(&[
            ("FORKPOOL_WORKERS", "1"),
            ("FORKPOOL_TLS_MAX_HANDSHAKES", "4"),
            ("FORKPOOL_HEAD_TIMEOUT", "1h"),
            ("FORKPOOL_ADMIN", "127.0.0.1:0"),
        ]);
        let (address, admin) = (address(&mut server), admin_address(&mut server));
        let browser = Browser::new(&[version]);
        let mut kept = browser.connect(address);
        assert_eq!(kept.get("/").status, 200);
        let bytes = hello(&browser);
        // Nothing, a part of a hello, a whole one, and a client that reads no answer.
        let stuck: Vec<TcpStream> = [0, 7, bytes.len() / 2, bytes.len(), bytes.len(), 0, 1, 3]
            .map(|len| connect(address, &bytes[..len]))
            .into();
        // Four more than may be in progress: those that nobody takes wait in the queue, and so does this client.
        for _ in 0..3 {
            assert_eq!(browser.connect(address).get("/").status, 200);
        }
        server.wait_for("has reached its limit at 4 TLS handshakes in progress");
        assert!(stuck.iter().any(has_ended), "some have made room");
        let labels = "worker=\"0\",reason=\"limit\"";
        until("they are counted", || (metric(admin, "forkpool_tls_failures_total", labels)? >= 5).then_some(()));
        assert_eq!(kept.get("/").status, 200);
    }
}

#[test]
fn parts_of_records_count_towards_the_memory_of_a_worker() {
    let mut server = testbed(&[
        ("FORKPOOL_WORKERS", "1"),
        ("FORKPOOL_MAX_HELD", "64k"),
        ("FORKPOOL_MAX_BODY", "1k"),
        ("FORKPOOL_MAX_OUTPUT", "4k"),
        ("FORKPOOL_HEAD_TIMEOUT", "1h"),
    ]);
    let address = address(&mut server);
    let browser = Browser::new(&[&TLS13]);
    let mut kept = browser.connect(address);
    assert_eq!(kept.get("/").status, 200);
    let part = [&[22, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc][..], &[3; 12 * 1024]].concat();
    let holding: Vec<TcpStream> = (0..10).map(|_| connect(address, &part)).collect();
    // Five fit.
    until("one is closed", || holding.iter().any(has_ended).then_some(()));
    assert_eq!(kept.get("/").status, 200);
    drop(holding);
    // The same with a part of a record of data.
    let mut clients: Vec<_> = (0..10).map(|_| browser.connect(address)).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").status, 200);
        (&client.stream().sock).write_all(&[&[23, 3, 3, 0x40, 0][..], &[3; 12 * 1024]].concat()).expect("sent");
    }
    until("one is closed", || clients.iter().any(|client| has_ended(&client.stream().sock)).then_some(()));
    assert_eq!(kept.get("/").status, 200);
}

/// Of half of them a part of a hello comes, and of the others nothing.
#[test]
fn ten_thousand_handshakes_that_stop_take_bounded_memory_and_leave_others_their_answers() {
    const ALL: usize = 10_000;
    const MOST: usize = 500;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    if hard < ALL as u64 + 1000 {
        return skip("fewer descriptors than clients");
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("it may be raised");
    let mut server = testbed(&[("FORKPOOL_TLS_MAX_HANDSHAKES", &MOST.to_string()), ("FORKPOOL_HEAD_TIMEOUT", "1h")]);
    let address = address(&mut server);
    let workers = server.workers();
    let resident = |worker: Pid| -> usize {
        let status = fs::read_to_string(format!("/proc/{worker}/status")).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    };
    let open = |worker: Pid| fs::read_dir(format!("/proc/{worker}/fd")).expect("it runs").count();
    let browser = Browser::new(&[&TLS13]);
    let mut kept: Vec<_> = (0..8).map(|_| browser.connect(address)).collect();
    kept.iter_mut().for_each(|client| assert_eq!(client.get("/").status, 200));
    let before: Vec<_> = workers.iter().map(|worker| (resident(*worker), open(*worker))).collect();
    let bytes = hello(&browser);
    let half = &bytes[..bytes.len() / 2];
    let mut flood = Vec::with_capacity(ALL);
    for index in 0..ALL {
        flood.push(connect(address, if index % 2 == 0 { b"" } else { half }));
        if index % 100 == 0 {
            kept.iter_mut().for_each(|client| assert_eq!(client.get("/").status, 200));
            for (worker, (_, others)) in workers.iter().zip(&before) {
                // The listeners' queues hold the rest. A connection may be accepted just before one is closed.
                let open = open(*worker);
                assert!(open <= others + MOST + 16, "{open}, and {others} before");
            }
        }
    }
    // Somebody who means it gets through.
    assert_eq!(browser.connect(address).get("/").status, 200);
    for (worker, (before, _)) in workers.iter().zip(&before) {
        let grown = resident(*worker).saturating_sub(*before);
        assert!(grown < MOST * 64, "{grown} kB for {MOST} handshakes");
    }
    assert_eq!(server.workers(), workers, "none was replaced");
    drop(flood);
    assert!(browser.visit(address));
    kept.iter_mut().for_each(|client| assert_eq!(client.get("/").status, 200));
}
