//! The admin process, beside real pools: it answers whatever the workers do, never counts back, and outlives nobody.

mod support;

#[path = "admin/browser.rs"]
mod browser;
#[path = "admin/commands.rs"]
mod commands;
#[path = "admin/forged.rs"]
mod forged;
#[path = "admin/pages.rs"]
mod pages;
#[path = "admin/places.rs"]
mod places;
#[path = "admin/verbs.rs"]
mod verbs;

use std::collections::BTreeMap;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

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
        support::until_known(|| watched.ask("/status.json").text().to_owned());
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
fn readyz_follows_the_pool_from_its_start_to_its_end() {
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

/// A pool with an admin process on a Unix socket.
fn private(name: &str, variables: &[(&str, &str)]) -> (Server, PathBuf) {
    let path = fresh_path(name);
    let address = format!("unix:{}", path.display());
    (testbed(&[variables, &[("FORKPOOL_ADMIN", &address)]].concat()), path)
}

#[test]
fn a_killed_admin_process_is_replaced_and_shows_earlier_events() {
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

#[test]
fn an_admin_port_that_is_in_use_is_an_error_at_the_start() {
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
fn a_stopped_admin_process_is_replaced() {
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
