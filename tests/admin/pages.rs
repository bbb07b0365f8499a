//! What each page says, to whom it is shown, and what it counts.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Instant;

use super::{metrics, number, Watched};
use crate::support::{fresh_path, skip, testbed, until};

#[test]
fn every_page_is_there_and_says_what_it_is() {
    let mut watched = Watched::start(&[]);
    for _ in 0..10 {
        watched.server.get("/");
    }
    until("it knows that they are ready", || (watched.ask("/readyz").status == 200).then_some(()));
    for (target, content_type, part) in [
        ("/", "text/html; charset=utf-8", "<!doctype html>"),
        ("/status.json", "application/json", "\"requests\":10,"),
        ("/history.json", "application/json", "\"failed\":0,\"open\":"),
        ("/status.txt", "text/plain; charset=utf-8", "2 of 2 workers serve"),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8", "forkpool_ready 1\n"),
        ("/healthz", "text/plain; charset=utf-8", "ok\n"),
        ("/readyz", "text/plain; charset=utf-8", "ready\n"),
    ] {
        let answer = watched.ask(target);
        assert_eq!((answer.status, answer.field("content-type")), (200, Some(content_type)), "{target}");
        assert_eq!(answer.field("cache-control"), Some("no-store"), "{target}");
        assert!(answer.text().contains(part), "{target}: {}", answer.text());
    }
    let policy = watched.ask("/");
    let policy = policy.field("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none';") && policy.contains("frame-ancestors 'none'"), "{policy}");
    for (method, target, status) in [
        ("GET", "/nothing", 404),
        ("POST", "/status.json", 405),
        ("DELETE", "/", 405),
        ("GET", "/restart", 405),
        ("GET", "/events?after=x", 400),
    ] {
        assert_eq!(watched.send(method, target, "").status, status, "{method} {target}");
    }
    // A response is counted after it was sent, and its client may be faster.
    let samples = until("the last response is counted", || {
        let samples = metrics(watched.ask("/metrics").text());
        (samples["forkpool_request_duration_seconds_count"] == 10.0).then_some(samples)
    });
    let requests = ["0", "1"].map(|slot| samples[&format!("forkpool_requests_total{{worker=\"{slot}\"}}")]);
    assert_eq!(requests.iter().sum::<f64>(), 10.0);
    assert_eq!(samples["forkpool_workers{state=\"ready\"}"], 2.0);
    // An outside judge, where there is one.
    let judge = "import sys; from prometheus_client.parser import text_string_to_metric_families as parse; \
                 print(len(list(parse(sys.stdin.read()))))";
    if Command::new("python3").args(["-c", "import prometheus_client"]).output().is_ok_and(|it| it.status.success()) {
        let mut python = Command::new("python3");
        python.args(["-c", judge]).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut python = python.spawn().expect("it ran before");
        python.stdin.take().expect("piped").write_all(&watched.ask("/metrics").body).expect("it reads");
        assert!(python.wait_with_output().expect("it ends").status.success());
    } else {
        skip("the parser of Prometheus's own world: no Python module prometheus_client here");
    }
}

#[test]
fn over_tcp_it_is_asked_for_by_address_or_by_a_name_that_is_allowed() {
    let watched = Watched::start(&[("FORKPOOL_ADMIN_HOST", "pool.example, other.example")]);
    for (host, status) in [
        ("127.0.0.1:9000", 200),
        ("[::1]", 200),
        ("localhost", 200),
        ("localhost.:9000", 200),
        ("pool.example", 200),
        ("pool.example.", 200),
        ("POOL.example:9000", 200),
        ("other.example", 200),
        ("rebound.example", 421),
        ("pool.example.rebound.example", 421),
        ("127.0.0.1.example:9000", 421),
    ] {
        for (target, expected) in [
            ("/", status),
            ("/status.json", status),
            ("/status.txt", status),
            ("/metrics", 200),
            ("/healthz", 200),
            ("/readyz", 200),
            // An absolute target counts, and not the field (RFC 9112 section 3.2.2).
            ("http://localhost/status.json", 200),
            ("http://rebound.example/status.json", 421),
        ] {
            let mut client = watched.connect();
            client.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            assert_eq!(client.answer().status, expected, "{host} {target}");
        }
        for (method, target) in [("GET", "/events?after=x"), ("POST", "/restart")] {
            let mut client = watched.connect();
            client.send(format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            assert_eq!(client.answer().status == 421, status == 421, "{host} {method} {target}");
        }
    }
}

#[test]
fn an_address_that_others_reach_is_warned_of_unless_there_is_a_token() {
    let path = fresh_path("admin.outside-token");
    fs::write(&path, "let-me-in\n").expect("a writable directory");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
    let token = ("FORKPOOL_ADMIN_TOKEN_FILE", path.to_str().expect("UTF-8"));
    let socket = format!("unix:{}", fresh_path("admin.outside-socket").display());
    for (address, token, warns) in [
        ("0.0.0.0:0", None, true),
        (":0", None, true),
        (":0", Some(token), false),
        ("127.0.0.1:0", None, false),
        (socket.as_str(), None, false),
    ] {
        let mut server = testbed(&[&[("FORKPOOL_ADMIN", address)][..], token.as_slice()].concat());
        assert_eq!(server.count(" has no token: anyone who can connect can read the status") > 0, warns, "{address}");
    }
    fs::remove_file(&path).expect("it is there");
}

#[test]
fn latencies_are_those_of_the_responses() {
    let mut watched = Watched::start(&[("FORKPOOL_WORKERS", "1")]);
    let began = Instant::now();
    watched.server.get("/slow?ms=300");
    let others_began = Instant::now();
    let mut client = watched.server.connect();
    // Pipelined, and one whose body comes later.
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3));
    (0..3).for_each(|_| assert_eq!(client.answer().status, 200));
    client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.answer_to_head().status, 100);
    client.send("hi");
    assert_eq!(client.answer().status, 200);
    let latency = until("all five are counted", || {
        let status = watched.ask("/status.json");
        let (_, latency) = status.text().split_once("\"latency\":").expect("it is there");
        (number(latency, "count") == 5.0).then(|| latency.to_owned())
    });
    // A worker takes the time after it has sent a response, and its client may have read that before.
    let (longest, others) = (began.elapsed().as_secs_f64(), others_began.elapsed().as_secs_f64());
    let sum = number(&latency, "sum");
    assert!((0.3..longest + 4.0 * others + 0.01).contains(&sum), "{sum} of {longest} and {others}");
    // Within the width of the histogram's buckets, whatever the pace of this machine is.
    assert!(number(&latency, "p50") <= others * 1.3 + 0.001 && number(&latency, "p99") > 0.26, "{others}: {latency}");
}

#[test]
fn the_status_shows_how_many_connections_wait() {
    let mut watched = Watched::start(&[("FORKPOOL_WORKERS", "1")]);
    let mut busy = watched.server.connect();
    busy.send("GET /slow?ms=60000 HTTP/1.1\r\nHost: a\r\n\r\n");
    until("the worker is busy", || watched.ask("/status.json").text().contains("\"requests\":1,").then_some(()));
    let waiting = [0; 5].map(|_| watched.server.connect());
    until("all five wait", || watched.ask("/status.json").text().contains("\"queue\":5,").then_some(()));
    let samples = metrics(watched.ask("/metrics").text());
    assert_eq!(samples["forkpool_accept_queue_length{worker=\"0\"}"], 5.0);
    drop(waiting);
}

#[test]
fn connections_of_another_server_are_not_shown_as_open_for_ever() {
    let mut watched = Watched::spawn_example("blocking", &[("FORKPOOL_WORKERS", "1")]);
    watched.server.wait_for("listening on ");
    for _ in 0..3 {
        let mut client = watched.server.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert!(client.answer().closes());
    }
    // The last may be about to be closed.
    until("none is shown as open", || {
        let samples = metrics(watched.ask("/metrics").text());
        (samples["forkpool_connections_open{worker=\"0\"}"] == 0.0).then_some(())
    });
}
