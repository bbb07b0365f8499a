//! The pool stops: gracefully, quickly, or by force.

use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::{self, is_gone, testbed, until, Server};
use nix::sys::signal::{kill, Signal};

/// Longer than what asks for a stop counts as one request.
const LATER: Duration = Duration::from_millis(1200);

/// A pool that stops closes idle connections, and those with an unfinished head, a little later than this. Where a test
/// comes to speak later, since this machine is busy, it tries again.
const IDLE: Duration = Duration::from_millis(600);

/// Asks again for a stop until that counts as another request. Time in which the parent did not run does not count, as
/// on a machine that is busy.
#[track_caller]
fn signal_again(server: &mut Server, signal: Signal) {
    let forces = "killing all workers";
    while {
        sleep(LATER);
        server.signal(signal);
        !server.wait_for_any(&["stopping already", forces]).contains(forces)
    } {}
}

/// Starts a request of which the worker has read the head.
fn begin_slow(server: &mut Server, millis: u64) -> support::Client<TcpStream> {
    let mut client = server.connect();
    let fields = "Host: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n";
    client.send(format!("POST /slow?ms={millis} HTTP/1.1\r\n{fields}\r\n"));
    assert_eq!(client.answer().status, 100);
    client
}

/// Waits until the workers have let go of the port.
fn wait_until_closed(server: &mut Server) {
    support::until_closed(server.port());
}

#[test]
fn sigterm_and_sigquit_let_requests_finish() {
    for signal in [Signal::SIGTERM, Signal::SIGQUIT] {
        let mut server = testbed(&[("FORKPOOL_WORKERS", "1"), ("FORKPOOL_DRAIN_TIMEOUT", "1h")]);
        let mut client = begin_slow(&mut server, 1);
        server.signal(signal);
        server.wait_for(&format!("draining: {signal}"));
        wait_until_closed(&mut server);
        client.send("x");
        let answer = client.answer();
        assert_eq!((answer.status, answer.closes()), (200, true), "{signal}");
        assert!(client.is_closed());
        let (status, log) = server.finish();
        assert_eq!(status.code(), Some(0), "{signal}");
        assert!(log.iter().any(|line| line.contains("exited with code 0, 1 requests on")), "{log:?}");
        assert!(log.iter().any(|line| line.contains("stopped")), "{log:?}");
    }
}

#[test]
fn an_idle_connection_gets_one_more_response_in_a_drain() {
    until("the client asks in time", || {
        let mut server = testbed(&[("FORKPOOL_WORKERS", "1")]);
        let mut client = server.connect();
        assert!(!client.get("/").closes());
        let begun = Instant::now();
        server.signal(Signal::SIGTERM);
        wait_until_closed(&mut server);
        let asked = client.try_get("/");
        let is_late = begun.elapsed() > IDLE;
        match asked {
            Ok(answer) => assert_eq!((answer.status, answer.closes()), (200, true)),
            Err(error) => assert!(is_late, "{error}"),
        }
        assert_eq!(server.wait().code(), Some(0));
        (!is_late).then_some(())
    });
}

#[test]
fn idle_connections_do_not_hold_the_drain_up() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "1"), ("FORKPOOL_DRAIN_TIMEOUT", "1h")]);
    let mut idle: Vec<_> = (0..10).map(|_| server.connect()).collect();
    for client in &mut idle {
        assert_eq!(client.get("/").status, 200);
    }
    server.signal(Signal::SIGTERM);
    let (status, log) = server.finish();
    assert_eq!(status.code(), Some(0));
    // By itself, and not at the timeout.
    assert!(log.iter().any(|line| line.contains("exited with code 0, 10 requests")), "{log:?}");
    for client in &mut idle {
        assert!(client.is_closed());
    }
}

#[test]
fn idle_connections_are_gone_soon_after_the_signal() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "1"), ("FORKPOOL_DRAIN_TIMEOUT", "600s")]);
    let mut kept = server.connect();
    assert_eq!(kept.get("/").status, 200);
    let mut silent = server.connect();
    let mut slow = begin_slow(&mut server, 1);
    server.signal(Signal::SIGTERM);
    // Each waits for less than half of the drain timeout, which is longer than anything here may take.
    assert!(kept.is_closed());
    assert!(silent.is_closed());
    // What is in progress is waited for.
    slow.send("x");
    assert_eq!(slow.answer().status, 200);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn an_unfinished_head_does_not_hold_the_drain_up() {
    let variables = [("FORKPOOL_WORKERS", "1"), ("FORKPOOL_DRAIN_TIMEOUT", "600s"), ("FORKPOOL_HEAD_TIMEOUT", "600s")];
    until("a client completes its head in time", || {
        let mut server = testbed(&variables);
        let mut unfinished = server.connect();
        unfinished.send("GET / HTTP/1.1\r\nHo");
        let mut second = server.connect();
        assert_eq!(second.get("/").status, 200);
        second.send("GET / HTTP/1.1\r\n");
        let mut completed = server.connect();
        completed.send("GET / HTTP/1.1\r\nHost: ");
        assert_eq!(server.get("/").status, 200);
        let begun = Instant::now();
        server.signal(Signal::SIGTERM);
        wait_until_closed(&mut server);
        // It may be refused, and closed, by then.
        let _ = std::io::Write::write_all(&mut completed.stream(), b"a\r\n\r\n");
        let is_late = begun.elapsed() > IDLE;
        if !is_late {
            let answer = completed.answer();
            assert_eq!((answer.status, answer.closes()), (200, true));
        }
        // Each waits for less than the timeouts, which are longer than anything here may take.
        for client in [&mut unfinished, &mut second] {
            let answer = client.answer();
            assert_eq!((answer.status, answer.closes()), (408, true));
        }
        assert_eq!(server.wait().code(), Some(0));
        (!is_late).then_some(())
    });
}

#[test]
fn a_connection_that_becomes_idle_while_the_pool_drains_does_not_hold_it_up() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "1"), ("FORKPOOL_DRAIN_TIMEOUT", "600s")]);
    let mut client = server.connect();
    // An answer whose head is sent before the signal, and says nothing of an end.
    client.send("GET /begun HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = client.answer_to_head();
    assert_eq!((answer.status, answer.closes()), (200, false));
    let mut ending = server.connect();
    ending.send("POST /now HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n");
    assert_eq!(ending.answer().status, 100);
    server.signal(Signal::SIGTERM);
    wait_until_closed(&mut server);
    ending.send("x");
    assert_eq!(ending.answer().status, 200);
    assert!(client.rest().ends_with(b"\r\n0\r\n\r\n"), "the whole answer, and the end");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn what_waits_in_the_queue_is_served_before_the_end() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "1"), ("FORKPOOL_DRAIN_TIMEOUT", "1h")]);
    let worker = server.workers()[0];
    kill(worker, Signal::SIGSTOP).expect("it runs");
    let mut waiting: Vec<_> = (0..50).map(|_| server.connect()).collect();
    for client in &mut waiting {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    server.signal(Signal::SIGTERM);
    server.wait_for("draining: SIGTERM");
    // The pool lets it run again as well, and it may have ended by now.
    let _ = kill(worker, Signal::SIGCONT);
    for client in &mut waiting {
        assert_eq!(client.answer().status, 200);
    }
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn what_waits_for_a_worker_that_is_full_is_served_before_the_end() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "1"), ("FORKPOOL_MAX_CONNECTIONS", "1")]);
    let mut first = begin_slow(&mut server, 1);
    let mut waiting = [(); 3].map(|()| server.connect());
    for client in &mut waiting {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    server.signal(Signal::SIGTERM);
    wait_until_closed(&mut server);
    first.send("x");
    for client in waiting.iter_mut().chain([&mut first]) {
        assert_eq!(client.answer().status, 200);
    }
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn the_drain_ends_at_its_timeout() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "1"), ("FORKPOOL_DRAIN_TIMEOUT", "200ms")]);
    let mut client = begin_slow(&mut server, 60_000);
    client.send("x");
    server.signal(Signal::SIGTERM);
    server.wait_for("killed: still running 200ms after it was told to finish (drain-timeout)");
    let _ = client.try_answer(false);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn sigint_is_quick() {
    // Once more where this machine has not let the workers end within the second that they have for it.
    until("they end in time", || {
        let mut server = testbed(&[]);
        // An idle connection would hold a drain up.
        let mut client = server.connect();
        assert_eq!(client.get("/").status, 200);
        let begun = Instant::now();
        server.signal(Signal::SIGINT);
        let (status, log) = server.finish();
        assert_eq!(status.code(), Some(0));
        assert!(log.iter().any(|line| line.contains("stopping: SIGINT")), "{log:?}");
        assert!(client.is_closed());
        let are_killed = log.iter().any(|line| line.contains("killed"));
        assert!(!are_killed || begun.elapsed() >= Duration::from_secs(1), "{log:?}");
        (!are_killed).then_some(())
    });
}

#[test]
fn sigint_stops_at_once() {
    // What it would wait for is longer than any test waits.
    let mut server = testbed(&[("FORKPOOL_WORKERS", "1"), ("FORKPOOL_DRAIN_TIMEOUT", "1h")]);
    let mut client = begin_slow(&mut server, 600_000);
    client.send("x");
    server.signal(Signal::SIGINT);
    let (status, _) = server.finish();
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_second_signal_forces() {
    for second in [Signal::SIGTERM, Signal::SIGINT] {
        let mut server = testbed(&[("FORKPOOL_WORKERS", "1"), ("FORKPOOL_DRAIN_TIMEOUT", "1h")]);
        let mut client = begin_slow(&mut server, 600_000);
        client.send("x");
        server.signal(Signal::SIGTERM);
        server.wait_for("draining: SIGTERM");
        signal_again(&mut server, second);
        let _ = client.try_answer(false);
        let (status, log) = server.finish();
        assert_eq!(status.code(), Some(5));
        let last = log.last().expect("it says what that has cost");
        assert!(last.contains("before the requests in progress were answered: connections cut: 1"), "{last}");
    }
}

#[test]
fn repeated_signals_within_a_second_count_once() {
    for lame_duck in ["0", "300ms"] {
        // Again where this test, or the pool, was so late that the two were a second apart.
        let (mut server, mut client) = until("two come within a second", || {
            let mut server = testbed(&[("FORKPOOL_WORKERS", "2"), ("FORKPOOL_LAME_DUCK", lame_duck)]);
            let client = begin_slow(&mut server, 1);
            let begun = Instant::now();
            server.signal(Signal::SIGTERM);
            // Two that nobody has looked at yet are one.
            server.wait_for_any(&["draining", "lame duck"]);
            server.signal(Signal::SIGTERM);
            let line = server.wait_for_any(&["stopping already: SIGTERM", "killing all workers"]);
            let is_once = line.contains("stopping already");
            assert!(is_once || begun.elapsed() > Duration::from_millis(900), "{line}");
            is_once.then_some((server, client))
        });
        client.send("x");
        assert_eq!(client.answer().status, 200);
        assert_eq!(server.wait().code(), Some(0));
    }
}

#[test]
fn a_forced_stop_of_an_idle_pool_succeeds() {
    let mut server = testbed(&[("FORKPOOL_LAME_DUCK", "1h")]);
    server.signal(Signal::SIGTERM);
    server.wait_for("lame duck");
    signal_again(&mut server, Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn unknown_losses_of_another_server_are_not_shown_as_zero() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "1"), ("FORKPOOL_DRAIN_TIMEOUT", "1h"), ("TESTBED", "plain")]);
    let mut client = server.connect();
    client.send("GET /wait?/nonexistent/never HTTP/1.1\r\nHost: a\r\n\r\n");
    server.wait_for("serves /wait");
    server.signal(Signal::SIGTERM);
    server.wait_for("draining: SIGTERM");
    signal_again(&mut server, Signal::SIGTERM);
    let (status, log) = server.finish();
    assert_eq!(status.code(), Some(5));
    assert!(
        log.iter().any(|line| line.contains("the number of connections of a killed worker is not known")),
        "{log:?}"
    );
}

#[test]
fn a_sigterm_to_one_worker_drains_and_replaces_it() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "1")]);
    let worker = server.workers()[0];
    kill(worker, Signal::SIGTERM).expect("it runs");
    server.wait_for("exited with code 0, 0 requests");
    server.wait_for(" ready");
    assert!(is_gone(worker));
    assert_eq!(server.get("/").status, 200);
}

#[test]
fn a_sigterm_to_the_process_group_drains_the_pool() {
    // As a terminal or a service manager does.
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut server = testbed(&[]);
        nix::sys::signal::killpg(server.pid(), signal).expect("the group lives");
        let (status, log) = server.finish();
        assert_eq!(status.code(), Some(0), "{signal}: {log:?}");
        assert!(!log.iter().any(|line| line.contains("gen=2")), "{signal}: {log:?}");
    }
}
