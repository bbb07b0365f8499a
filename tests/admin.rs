//! The admin process, beside real pools: it answers whatever the workers do, never counts back, and outlives nobody.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Lines, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use nix::sys::resource::{getrlimit, setrlimit, Resource};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use support::{connect_unix, example, fresh_path, is_gone, testbed, until, Answer, Client, Load, Server, BOTH_MODES};

/// A pool with an admin process on a free port, once that listens.
struct Watched {
    server: Server,
    admin: u16,
}

impl Watched {
    #[track_caller]
    fn spawn(variables: &[(&str, &str)]) -> Watched {
        Watched::spawn_example("testbed", variables)
    }

    #[track_caller]
    fn spawn_example(name: &str, variables: &[(&str, &str)]) -> Watched {
        let mut command = example(name);
        command.env("FORKPOOL_WORKERS", "2").env("FORKPOOL_ADMIN", "127.0.0.1:0").env("RUST_LOG", "debug");
        command.envs(variables.iter().copied());
        let mut server = Server::spawn(command);
        let admin = server.wait_for_admin();
        Watched { server, admin }
    }

    #[track_caller]
    fn start(variables: &[(&str, &str)]) -> Watched {
        let mut watched = Watched::spawn(variables);
        watched.server.wait_for("listening on ");
        watched
    }

    #[track_caller]
    fn connect(&self) -> Client<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.admin)).expect("the port is open");
        stream.set_read_timeout(Some(support::DEADLINE)).expect("a socket");
        Client::new(stream)
    }

    #[track_caller]
    fn ask(&self, target: &str) -> Answer {
        self.connect().get(target)
    }

    #[track_caller]
    fn send(&self, method: &str, target: &str, fields: &str) -> Answer {
        let mut client = self.connect();
        client.send(format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"));
        client.answer()
    }

    /// The process itself, which is the parent's child and no worker.
    #[track_caller]
    fn pid(&self) -> Pid {
        support::admin_process(&self.server, || self.ask("/status.json").text().to_owned())
    }
}

/// The samples of a text in Prometheus' format, by name and labels; fails the test where it is not that format.
#[track_caller]
fn metrics(text: &str) -> BTreeMap<String, f64> {
    let (mut samples, mut types) = (BTreeMap::new(), BTreeMap::new());
    let (mut family, mut helped) = (String::new(), String::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a help");
            assert!(!help.is_empty() && !types.contains_key(name), "{line}");
            helped = name.to_owned();
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            assert!(name == helped && ["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(kind != "counter" || name.ends_with("_total"), "{line}");
            types.insert(name.to_owned(), kind.to_owned());
            family = name.to_owned();
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect("a value");
        let name = series.split('{').next().expect("a name");
        let suffix = name.strip_prefix(family.as_str()).unwrap_or_else(|| panic!("{line} is not of {family}"));
        let suffixes: &[&str] = if types[&family] == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        assert!(suffixes.contains(&suffix), "{line}");
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{line}");
        if let Some(labels) = series.strip_prefix(name).filter(|labels| !labels.is_empty()) {
            let labels = labels.strip_prefix('{').and_then(|it| it.strip_suffix('}')).expect("braces");
            for label in labels.split("\",") {
                let (label, value) = label.split_once("=\"").expect("a label");
                assert!(label.bytes().all(|byte| byte.is_ascii_lowercase()), "{line}");
                assert!(!value.trim_end_matches('"').contains(['"', '\n']), "{line}");
            }
        }
        let value: f64 = value.parse().expect("a number");
        assert!(value >= 0.0 && samples.insert(series.to_owned(), value).is_none(), "{line}");
    }
    assert!(text.ends_with('\n'));
    histogram_is_cumulative(&samples);
    samples
}

#[track_caller]
fn histogram_is_cumulative(samples: &BTreeMap<String, f64>) {
    let buckets = samples.iter().filter_map(|(series, count)| {
        let le = series.strip_prefix("forkpool_request_duration_seconds_bucket{le=\"")?.strip_suffix("\"}")?;
        Some((if le == "+Inf" { f64::INFINITY } else { le.parse().expect("a bound") }, *count))
    });
    let mut buckets: Vec<(f64, f64)> = buckets.collect();
    buckets.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    assert!(buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{buckets:?}");
    assert_eq!(buckets.last(), Some(&(f64::INFINITY, samples["forkpool_request_duration_seconds_count"])));
}

/// The number behind the first `"name":` of a JSON text.
#[track_caller]
fn number(json: &str, name: &str) -> f64 {
    let (_, rest) = json.split_once(&format!("\"{name}\":")).expect(name);
    rest.split([',', '}']).next().and_then(|number| number.parse().ok()).expect("a number")
}

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
    let samples = metrics(watched.ask("/metrics").text());
    let requests = ["0", "1"].map(|slot| samples[&format!("forkpool_requests_total{{worker=\"{slot}\"}}")]);
    assert_eq!(requests.iter().sum::<f64>(), 10.0);
    assert_eq!(samples["forkpool_request_duration_seconds_count"], 10.0);
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
fn times_are_what_answers_took() {
    let mut watched = Watched::start(&[("FORKPOOL_WORKERS", "1")]);
    let began = Instant::now();
    watched.server.get("/slow?ms=300");
    let longest = began.elapsed().as_secs_f64();
    let others_began = Instant::now();
    let mut client = watched.server.connect();
    // Pipelined, and one whose body comes later.
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3));
    (0..3).for_each(|_| assert_eq!(client.answer().status, 200));
    client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.answer_to_head().status, 100);
    client.send("hi");
    assert_eq!(client.answer().status, 200);
    let others = others_began.elapsed().as_secs_f64();
    let latency = until("all five are counted", || {
        let status = watched.ask("/status.json");
        let (_, latency) = status.text().split_once("\"latency\":").expect("it is there");
        (number(latency, "count") == 5.0).then(|| latency.to_owned())
    });
    let sum = number(&latency, "sum");
    assert!((0.3..longest + 4.0 * others + 0.01).contains(&sum), "{sum} of {longest} and {others}");
    // Within the width of the histogram's buckets, whatever the pace of this machine is.
    assert!(number(&latency, "p50") <= others * 1.3 + 0.001 && number(&latency, "p99") > 0.26, "{others}: {latency}");
}

#[test]
fn it_answers_while_every_worker_is_busy() {
    let mut watched = Watched::start(&[("FORKPOOL_NEIGHBOURS", "0"), ("FORKPOOL_BALANCE", "hash")]);
    let mut busy = Vec::new();
    until("all are busy", || {
        let mut client = watched.server.connect();
        client.send("GET /burn?ms=600000 HTTP/1.1\r\nHost: a\r\n\r\n");
        busy.push(client);
        let status = watched.ask("/status.json");
        let idle = status.text().matches("\"busy\":0.000").count();
        (idle == 0).then_some(())
    });
    assert_eq!(watched.ask("/readyz").status, 200);
    let mut client = watched.connect();
    let mut times: Vec<Duration> = (0..200)
        .map(|_| {
            let began = Instant::now();
            assert_eq!(client.get("/status.json").status, 200);
            began.elapsed()
        })
        .collect();
    times.sort();
    eprintln!("answers while every worker spins: p50 {:?}, p99 {:?}, longest {:?}", times[100], times[198], times[199]);
}

#[test]
fn it_tells_how_many_connections_wait_for_a_worker() {
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
fn connections_that_a_server_of_others_does_not_count_are_not_open_for_good() {
    let mut watched = Watched::spawn_example("blocking", &[("FORKPOOL_WORKERS", "1")]);
    watched.server.wait_for("listening on ");
    for _ in 0..3 {
        let mut client = watched.server.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert!(client.answer().closes());
    }
    assert_eq!(metrics(watched.ask("/metrics").text())["forkpool_connections_open{worker=\"0\"}"], 0.0);
}

#[test]
fn it_answers_while_every_worker_fails() {
    let marker = fresh_path("admin.fail");
    let fixture = format!("fail-while:{}", marker.display());
    let mut watched = Watched::start(&[("TESTBED", &fixture)]);
    fs::write(&marker, "").expect("a writable directory");
    let admin = watched.pid();
    for pid in watched.server.workers().into_iter().filter(|pid| *pid != admin) {
        kill(pid, Signal::SIGKILL).expect("it runs");
    }
    watched.server.wait_for("backing off");
    watched.server.wait_for("backing off");
    let down = until("none serves", || Some(watched.ask("/readyz")).filter(|answer| answer.status == 503));
    assert_eq!(down.text(), "no worker serves\n");
    assert_eq!(watched.ask("/healthz").status, 200);
    until("one backs off", || watched.ask("/status.txt").text().contains("backoff").then_some(()));
    until("both are counted as killed, and failed starts too", || {
        let samples = metrics(watched.ask("/metrics").text());
        let restarts = |reason| {
            let of =
                |slot| samples[&format!("forkpool_worker_restarts_total{{worker=\"{slot}\",reason=\"{reason}\"}}")];
            of(0) + of(1)
        };
        (restarts("killed") == 2.0 && restarts("boot") >= 2.0).then_some(())
    });
    fs::remove_file(&marker).expect("it is there");
    until("they serve again", || (watched.ask("/readyz").status == 200).then_some(()));
}

#[test]
fn no_counter_goes_back_when_workers_are_killed_under_load() {
    for mode in BOTH_MODES {
        let mut watched = Watched::start(&[]);
        let port = watched.server.port();
        let admin = watched.pid();
        let load = Load::begin(port, mode);
        let served = |samples: &BTreeMap<String, f64>| {
            let requests = samples.iter().filter(|(series, _)| series.starts_with("forkpool_requests_total{"));
            requests.map(|(_, count)| count).sum::<f64>()
        };
        let mut before = until("the load is served", || {
            let samples = metrics(watched.ask("/metrics").text());
            (served(&samples) > 0.0).then_some(samples)
        });
        let mut client = watched.connect();
        for wanted in 1..=8 {
            // It may be gone already, or not ready yet: the next look finds another.
            let mut strike = true;
            until("a worker that was killed is counted", || {
                let victim = watched.server.workers().into_iter().find(|pid| *pid != admin);
                if let (true, Some(pid)) = (strike, victim) {
                    strike = kill(pid, Signal::SIGKILL).is_err();
                }
                let answer = client.get("/metrics");
                let samples = metrics(answer.text());
                for (series, value) in &before {
                    let name = series.split('{').next().expect("a name");
                    let is_counter = ["_total", "_bucket", "_count", "_sum"].iter().any(|end| name.ends_with(end));
                    let now = samples.get(series);
                    assert!(!is_counter || now.is_some_and(|now| now >= value), "{series}: {value}, then {now:?}");
                }
                before = samples;
                // For whichever reason: one may be killed before it is ready.
                let restarts =
                    before.iter().filter(|(series, _)| series.starts_with("forkpool_worker_restarts_total{"));
                (restarts.map(|(_, count)| count).sum::<f64>() >= f64::from(wanted)).then_some(())
            });
        }
        // Those killed lose what they had.
        load.finish();
    }
}

#[test]
fn it_is_ready_from_the_boot_to_the_end() {
    let marker = fresh_path("admin.boot");
    fs::write(&marker, "").expect("a writable directory");
    let fixture = format!("fail-while:{}", marker.display());
    // The first fails, and the pool waits for the second.
    let variables = [("TESTBED", "hang"), ("FORKPOOL_BOOT_TIMEOUT", "0")];
    let watched = Watched::spawn(&variables);
    let answer = watched.ask("/readyz");
    assert_eq!((answer.status, answer.text()), (503, "the pool is starting\n"));
    assert_eq!(watched.ask("/healthz").status, 200);
    drop(watched);
    fs::remove_file(&marker).expect("it is there");

    let mut watched = Watched::start(&[("TESTBED", &fixture), ("FORKPOOL_LAME_DUCK", "600s")]);
    until("it is ready", || (watched.ask("/readyz").status == 200).then_some(()));
    watched.server.signal(Signal::SIGTERM);
    watched.server.wait_for("lame duck");
    let answer = until("it knows", || Some(watched.ask("/readyz")).filter(|answer| answer.status == 503));
    assert!(answer.text().contains("lame duck"), "{}", answer.text());
    assert_eq!(watched.server.get("/").status, 200);
    drop(watched);

    let mut watched = Watched::start(&[("FORKPOOL_WORKERS", "1")]);
    let mut client = watched.server.connect();
    client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.answer_to_head().status, 100);
    watched.server.signal(Signal::SIGTERM);
    let answer = until("it knows", || Some(watched.ask("/readyz")).filter(|answer| answer.status == 503));
    assert_eq!(answer.text(), "the pool drains\n");
    assert!(watched.ask("/status.json").text().starts_with("{\"pool\":{\"state\":\"draining\",\"ready\":false"));
    client.send("hi");
    assert_eq!(client.answer().status, 200);
    assert_eq!(watched.server.wait().code(), Some(0));
    support::until_closed(watched.admin);
}

#[test]
fn over_tcp_commands_need_the_token() {
    let path = fresh_path("admin.token");
    fs::write(&path, "let-me-in\n").expect("a writable directory");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
    let without = Watched::start(&[]);
    let answer = without.send("POST", "/restart", "Authorization: Bearer let-me-in\r\n");
    assert!(answer.status == 403 && answer.text().contains("read-only over TCP"), "{}", answer.text());
    drop(without);
    let mut watched = Watched::start(&[("FORKPOOL_ADMIN_TOKEN_FILE", path.to_str().expect("UTF-8"))]);
    for fields in [
        "",
        "Authorization: Bearer let-me-im\r\n",
        "Authorization: Bearer let-me-in-\r\n",
        "Authorization: Bearer\r\n",
        "Authorization: Basic let-me-in\r\n",
    ] {
        let answer = watched.send("POST", "/restart", fields);
        assert_eq!((answer.status, answer.text().contains("missing or wrong")), (403, true), "{fields}");
    }
    let right = "Authorization: bearer let-me-in\r\n";
    for (target, status) in [("/scale?workers=0", 400), ("/scale", 400), ("/log?level=loud", 400)] {
        assert_eq!(watched.send("POST", target, right).status, status, "{target}");
    }
    let answer = watched.send("POST", "/scale?workers=3", right);
    assert_eq!((answer.status, number(answer.text(), "after") > 0.0), (202, true));
    assert!(answer.text().starts_with("{\"accepted\":\"scale\","), "{}", answer.text());
    watched.server.wait_for("scaled from 2 to 3");
    watched.server.wait_for("worker=2 gen=1");
    // Where the kernel counts connections, a row for each worker is there from the start.
    if watched.server.count("balance: least connections, among the workers that are free") == 1 {
        assert_eq!(watched.send("POST", "/scale?workers=65", right).status, 202);
        watched.server.wait_for("still 3 workers: there can be 1 to 64 while the kernel counts their connections");
    }
    assert_eq!(watched.send("POST", "/restart", right).status, 202);
    watched.server.wait_for("rolling restart done");
    until("each has been replaced once, and all have left", || {
        let samples = metrics(watched.ask("/metrics").text());
        let restarts =
            |slot| samples[&format!("forkpool_worker_restarts_total{{worker=\"{slot}\",reason=\"restart\"}}")];
        let have_left = samples["forkpool_workers{state=\"draining\"}"] == 0.0;
        (have_left && (0..3).all(|slot| restarts(slot) == 1.0)).then_some(())
    });
    assert_eq!(watched.send("POST", "/log?level=warn", right).status, 202);
    until("it is said", || watched.ask("/status.txt").text().contains("log level: WARN").then_some(()));
    assert_eq!(watched.send("POST", "/stop", right).status, 202);
    assert_eq!(watched.server.wait().code(), Some(0));
    fs::remove_file(&path).expect("it is there");
}

#[test]
fn a_token_that_everybody_can_read_is_refused() {
    let path = fresh_path("admin.open-token");
    for (content, mode, problem) in [
        ("secret", 0o644, "every user may use"),
        ("two words", 0o600, "must hold one word"),
        ("", 0o600, "must hold one word"),
    ] {
        fs::write(&path, content).expect("a writable directory");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("it is ours");
        let mut command = example("testbed");
        command.env("FORKPOOL_ADMIN", "127.0.0.1:0").env("FORKPOOL_ADMIN_TOKEN_FILE", &path);
        let (status, log) = Server::spawn(command).finish();
        assert!(!status.success() && log.iter().any(|line| line.contains(problem)), "{log:?}");
    }
    fs::remove_file(&path).expect("it is there");
}

/// A pool with an admin process on a Unix socket.
fn private(name: &str, variables: &[(&str, &str)]) -> (Server, PathBuf) {
    let path = fresh_path(name);
    let address = format!("unix:{}", path.display());
    (testbed(&[variables, &[("FORKPOOL_ADMIN", &address)]].concat()), path)
}

#[track_caller]
fn post(path: &Path, target: &str) -> Answer {
    let mut client = connect_unix(path);
    client.send(format!("POST {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
    client.answer()
}

#[test]
fn a_unix_socket_is_for_its_owner_who_may_do_everything() {
    // Left by one that was killed.
    let path = fresh_path("admin.socket");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a writable directory"));
    // A program that another test starts has a copy until it is executed.
    until("nobody listens on it", || UnixStream::connect(&path).is_err().then_some(()));
    let address = format!("unix:{}", path.display());
    let mut server = testbed(&[("FORKPOOL_ADMIN", &address)]);
    let mode = fs::metadata(&path).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(post(&path, "/scale?workers=1").status, 202);
    server.wait_for("scaled from 2 to 1");
    assert_eq!(post(&path, "/stop").status, 202);
    assert_eq!(server.wait().code(), Some(0));
    assert!(!path.exists());
}

#[test]
fn events_are_told_as_they_happen_and_end_with_the_pool() {
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
    assert!(next(&format!("pid={worker} killed by SIGKILL")).contains("\"level\":\"warn\""));
    next("gen=2");
    server.signal(Signal::SIGTERM);
    next("stopped after 1 requests");
    // The last chunk, so that it is a whole answer.
    let rest: Vec<String> = lines.collect();
    assert_eq!(rest[rest.len() - 2..], ["0", ""]);
    assert_eq!(server.wait().code(), Some(0));
    assert_eq!(server.count("after it was asked to finish"), 0, "it has ended by itself");
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
fn clients_that_only_hold_places_keep_no_probe_out() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("it is allowed");
    let watched = Watched::start(&[]);
    for request in [
        "",
        "GET /healthz HTTP/1.1\r\nHost: ",
        "POST /restart HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n",
        "POST /restart HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n",
        "GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    ] {
        let longest = besiege(watched.admin, request, || {
            let times = (0..50).map(|_| {
                let began = Instant::now();
                assert_eq!(watched.ask("/healthz").status, 200, "{request:?}");
                began.elapsed()
            });
            let mut times: Vec<_> = times.collect();
            times.sort();
            // Less than any client is given here to say something: were they in the way, each would take longer. One
            // or the other may do so on a machine that is busy.
            assert!(times[25] < Duration::from_secs(4), "{request:?}: {times:?}");
            times[49]
        });
        eprintln!("/healthz beside a thousand clients that send {request:?} and wait: at most {longest:?}");
    }
}

#[test]
fn an_operator_is_told_events_whoever_else_is() {
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

#[test]
fn one_that_is_killed_is_back_and_knows_what_was() {
    let mut watched = Watched::start(&[]);
    for _ in 0..5 {
        watched.server.get("/");
    }
    kill(watched.server.get("/").worker(), Signal::SIGKILL).expect("it runs");
    watched.server.wait_for(" gen=2 ");
    let before = until("the death is known", || {
        let status = watched.ask("/status.json");
        status.text().contains("\"killed\":1").then_some(status)
    });
    for _ in 0..4 {
        let pid = watched.pid();
        kill(pid, Signal::SIGKILL).expect("it runs");
        watched.server.wait_for(&format!("admin pid={pid} killed by SIGKILL"));
        // Nobody is refused meanwhile: the parent holds the socket.
        let after = watched.ask("/status.json");
        for name in ["requests", "connections", "killed"] {
            assert_eq!(number(before.text(), name), number(after.text(), name), "{name}");
        }
        assert!(after.text().contains(" killed by SIGKILL (not by this pool"), "{}", after.text());
        assert!(is_gone(pid));
    }
    assert_eq!(watched.server.count(" gen=3 "), 0, "the workers stay");
}

/// Has somebody else send bytes as the admin process, over its link to the parent, so often.
#[track_caller]
fn forge(admin: Pid, message: &str, times: u32) -> bool {
    const FORGE: &str = "
import ctypes, os, socket, sys
libc, pid = ctypes.CDLL(None, use_errno=True), int(sys.argv[1])
pidfd = os.pidfd_open(pid)
for number in map(int, os.listdir(f'/proc/{pid}/fd')):
    if not os.readlink(f'/proc/{pid}/fd/{number}').startswith('socket:'):
        continue
    copy = libc.syscall(438, pidfd, number, 0)
    if copy < 0:
        sys.exit(3)
    link = socket.socket(fileno=copy)
    if link.type == socket.SOCK_SEQPACKET:
        link.setblocking(False)
        for _ in range(int(sys.argv[3])):
            try:
                link.send(b'm' + bytes.fromhex(sys.argv[2]))
            except BlockingIOError:
                pass
        sys.exit(0)
sys.exit(4)
";
    let mut python = Command::new("python3");
    python.args(["-c", FORGE, &admin.to_string(), message, &times.to_string()]);
    match python.status().ok().and_then(|status| status.code()) {
        Some(0) => true,
        // No pidfd_getfd(2), or no right to use it.
        None | Some(3) => {
            support::skip("nobody can reach into the admin process");
            false
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_that_says_what_is_no_command_is_replaced() {
    let mut watched = Watched::start(&[]);
    for message in ["", "00", "ff0000000000000000", "0001000000000000ff"] {
        let admin = watched.pid();
        if !forge(admin, message, 1) {
            return;
        }
        watched.server.wait_for(&format!("admin pid={admin} killed: it sent what is no command"));
        watched.server.wait_for(&format!("admin pid={admin} killed by SIGKILL"));
        assert_eq!(watched.ask("/healthz").status, 200);
    }
    assert_eq!(watched.server.get("/").status, 200);
    watched.server.signal(Signal::SIGTERM);
    assert_eq!(watched.server.wait().code(), Some(0));
}

#[test]
fn a_flood_of_commands_keeps_the_parent_from_nothing() {
    let mut watched = Watched::start(&[]);
    let admin = watched.pid();
    let began = Instant::now();
    // The level of the log, which is a line each time.
    if !forge(admin, "040300000000000000", 200_000) {
        return;
    }
    let worker = watched.server.get("/").worker();
    kill(worker, Signal::SIGKILL).expect("it runs");
    watched.server.wait_for(&format!("pid={worker} killed by SIGKILL"));
    watched.server.wait_for(" gen=2 ");
    until("the next second's have been obeyed", || (watched.server.count("log level: INFO") > 16).then_some(()));
    // All that are here by now were obeyed since then.
    let (lines, seconds) = (watched.server.count("log level: INFO"), began.elapsed().as_secs() as usize);
    assert!(lines <= 16 * (seconds + 2), "{lines} commands in {seconds} s");
    watched.server.signal(Signal::SIGTERM);
    assert_eq!(watched.server.wait().code(), Some(0));
}

#[test]
fn a_port_that_is_taken_is_said_at_the_start() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let mut command = example("testbed");
    command.env("FORKPOOL_ADMIN", &address);
    let (status, log) = Server::spawn(command).finish();
    let problem = format!("cannot listen on {address} (admin): Address already in use");
    assert!(!status.success() && log.iter().any(|line| line.contains(&problem)), "{log:?}");
}

#[test]
fn an_upgrade_keeps_the_address() {
    let pid_file = fresh_path("admin.pid");
    let mut watched = Watched::start(&[("FORKPOOL_PID_FILE", pid_file.to_str().expect("UTF-8"))]);
    watched.server.get("/");
    let old = watched.server.pid();
    watched.server.signal(Signal::SIGUSR2);
    watched.server.wait_for("upgrade done: pid=");
    assert_eq!(watched.server.wait().code(), Some(0));
    let new = fs::read_to_string(&pid_file).expect("the new one's");
    let answer = watched.ask("/status.json");
    assert_eq!(number(answer.text(), "pid").to_string(), new.trim());
    assert_ne!(new.trim(), old.to_string());
    let new = Pid::from_raw(new.trim().parse().expect("a pid"));
    kill(new, Signal::SIGTERM).expect("it runs");
    until("it is gone", || is_gone(new).then_some(()));
    support::until_closed(watched.admin);
}

#[test]
fn it_ends_with_a_killed_parent_and_frees_the_port() {
    let mut watched = Watched::start(&[]);
    let (admin, processes) = (watched.admin, watched.server.workers());
    assert_eq!(processes.len(), 3);
    let mut kept = watched.connect();
    assert_eq!(kept.get("/healthz").status, 200);
    watched.server.signal(Signal::SIGKILL);
    watched.server.wait();
    until("all are gone", || processes.iter().all(|pid| is_gone(*pid)).then_some(()));
    TcpListener::bind(("127.0.0.1", admin)).expect("the port is free");
}

#[test]
fn one_that_a_signal_has_stopped_is_replaced() {
    let mut watched = Watched::start(&[]);
    let pid = watched.pid();
    kill(pid, Signal::SIGSTOP).expect("it runs");
    watched.server.wait_for("killed: it was stopped by a signal");
    assert_eq!(watched.ask("/status.json").status, 200);
    assert_ne!(watched.pid(), pid);
}

#[test]
fn an_idle_pool_stays_idle() {
    // While the stall watch looks, the parent looks at the clock, too.
    let mut watched = Watched::start(&[("FORKPOOL_STALL_TIMEOUT", "1s")]);
    watched.server.get("/");
    watched.ask("/status.json");
    let processes: Vec<Pid> = watched.server.workers().into_iter().chain([watched.server.pid()]).collect();
    let switches = || -> Vec<String> {
        let of = |pid: &Pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
            status.lines().find(|line| line.starts_with("voluntary_ctxt")).expect("a line").to_owned()
        };
        processes.iter().map(of).collect()
    };
    // The stall watch looks a last time a while after the last request.
    let mut before = switches();
    until("a whole second without a wake-up", || {
        std::thread::sleep(Duration::from_secs(1));
        let now = switches();
        let is_idle = now == before;
        before = now;
        is_idle.then_some(())
    });
}

#[test]
fn it_runs_as_the_workers_do_and_its_socket_belongs_to_the_pool() {
    if !nix::unistd::Uid::effective().is_root() {
        return support::skip("only root can run workers as somebody else");
    }
    let (server, path) = private("admin-user.socket", &[("FORKPOOL_USER", "nobody")]);
    let nobody = nix::unistd::User::from_name("nobody").expect("a user database").expect("nobody").uid;
    assert_eq!(connect_unix(&path).get("/healthz").status, 200);
    assert_eq!(server.workers().len(), 3);
    for pid in server.workers() {
        let owner = fs::metadata(format!("/proc/{pid}")).expect("it runs");
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&owner), nobody.as_raw(), "{pid}");
    }
    let socket = fs::metadata(&path).expect("it is there");
    assert_eq!((std::os::unix::fs::MetadataExt::uid(&socket), socket.permissions().mode() & 0o777), (0, 0o600));
}
