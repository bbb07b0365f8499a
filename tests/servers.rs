//! Servers of others as the worker: the examples that show one each.

mod support;

use std::collections::BTreeMap;
use std::process::{Child, Stdio};

use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use support::sockets::{tcp_sockets, ESTABLISHED};
use support::{example, is_gone, until, Server};

/// Each server is tested for the same.
macro_rules! servers {
    ($($name:ident)*) => {$(
        mod $name {
            #[test]
            fn serves() {
                super::serves(stringify!($name));
            }

            #[test]
            fn a_rolling_restart_loses_no_connection() {
                super::a_rolling_restart_loses_nothing(stringify!($name), &[]);
            }

            #[test]
            fn a_rolling_restart_loses_no_request_of_a_kept_connection() {
                super::a_rolling_restart_loses_nothing(stringify!($name), &["--keep-alive"]);
            }

            #[test]
            fn a_drain_finishes_what_has_begun() {
                super::a_drain_finishes_what_has_begun(stringify!($name));
            }

            #[test]
            fn a_crashed_worker_is_replaced() {
                super::a_crashed_worker_is_replaced(stringify!($name));
            }
        }
    )*};
}

servers! { actix blocking hyper smol }
#[cfg(feature = "hyper")]
servers! { axum tower }

fn start(name: &str, workers: &str) -> Server {
    let mut command = example(name);
    command.envs([("FORKPOOL_WORKERS", workers), ("RUST_LOG", "info")]);
    Server::start(command)
}

fn serves(name: &str) {
    let mut server = start(name, "2");
    let mut client = server.connect();
    for _ in 0..3 {
        let answer = client.get("/");
        assert_eq!((answer.status, answer.text(), answer.closes()), (200, "hello world\n", false));
        assert!(server.workers().contains(&answer.worker()));
    }
    assert_eq!(client.get("/slow").status, 200);
    client.send("GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    assert!(client.answer().closes());
    assert!(client.is_closed());
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
}

fn a_rolling_restart_loses_nothing(name: &str, options: &[&str]) {
    let mut server = start(name, "2");
    let before = server.workers();
    let load = Load::start(&mut server, options);
    load.until_served(&mut server);
    server.signal(Signal::SIGHUP);
    server.wait_for("rolling restart done");
    // The workers from before still drain.
    until("they are gone", || before.iter().all(|worker| is_gone(*worker)).then_some(()));
    // Those that serve now have had some as well.
    load.until_served(&mut server);
    let report = load.stop();
    assert!(report["total"] > 0, "{report:?}");
    assert_eq!((report["lost"], report["local"]), (0, 0), "{report:?}");
    let is_before = |key: &str| before.iter().any(|worker| key == format!("worker.{worker}"));
    if cfg!(feature = "hyper") && options == ["--keep-alive"] && ["axum", "tower"].contains(&name) {
        // None was closed, so the same connections were answered before and after.
        assert_eq!(report["connections"], CONNECTIONS, "{report:?}");
        server.signal(Signal::SIGTERM);
        assert_eq!(server.wait().code(), Some(0));
        return;
    }
    let answered: Vec<bool> =
        report.keys().filter(|key| key.starts_with("worker.")).map(|key| is_before(key)).collect();
    assert!(answered.contains(&true) && answered.contains(&false), "the load came before, or after: {report:?}");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
}

/// Prints what restarts under load cost each example, and how long it is. That of tonic is in `tower.rs` (`RESTARTS`).
#[test]
#[ignore = "measures"]
fn losses_in_twenty_restarts() {
    let mut names = vec!["actix", "blocking", "hyper", "smol"];
    if cfg!(feature = "hyper") {
        names.extend(["axum", "tower"]);
    }
    println!("| example | lines | lost of, with a connection each | lost of, on kept connections |");
    for name in names {
        let path = format!("{}/examples/{name}.rs", env!("CARGO_MANIFEST_DIR"));
        let source = std::fs::read_to_string(path).expect("it is there");
        let is_code = |line: &&str| !line.trim().is_empty() && !line.trim().starts_with("//");
        let [each, kept] = [&[][..], &["--keep-alive"]].map(|options| {
            let mut server = start(name, "2");
            let load = Load::start(&mut server, options);
            for _ in 0..20 {
                load.until_served(&mut server);
                server.signal(Signal::SIGHUP);
                server.wait_for("rolling restart done");
            }
            let report = load.stop();
            server.signal(Signal::SIGTERM);
            assert_eq!(server.wait().code(), Some(0));
            format!("{} of {}", report["lost"], report["total"])
        });
        println!("| {name} | {} | {each} | {kept} |", source.lines().filter(is_code).count());
    }
}

fn a_drain_finishes_what_has_begun(name: &str) {
    let mut server = start(name, "1");
    let (mut slow, mut busy) = (server.connect(), server.connect());
    // Both are accepted.
    assert!(!slow.get("/").closes() && !busy.get("/").closes());
    slow.send("GET /slow HTTP/1.1\r\nHost: test\r\n\r\n");
    // It came after that one, so that one has begun.
    assert!(!busy.get("/").closes());
    server.signal(Signal::SIGTERM);
    // Whenever its next request comes, it is answered; and at last the client learns that there will be no further one.
    while !busy.get("/").closes() {}
    assert!(busy.is_closed());
    assert_eq!(slow.answer().status, 200);
    assert!(slow.is_closed());
    let (status, log) = server.finish();
    assert_eq!(status.code(), Some(0));
    assert!(log.iter().any(|line| line.contains("exited with code 0")), "{log:?}");
}

fn a_crashed_worker_is_replaced(name: &str) {
    let mut server = start(name, "1");
    let worker = server.get("/").worker();
    kill(worker, Signal::SIGKILL).expect("it runs");
    server.wait_for("killed by SIGKILL");
    server.wait_for("gen=2");
    let answer = server.get("/");
    assert_eq!(answer.status, 200);
    assert_ne!(answer.worker(), worker);
}

/// How many connections it has at a time.
const CONNECTIONS: u64 = 16;

/// The load client, until it is told to stop.
struct Load(Child);

impl Load {
    fn start(server: &mut Server, options: &[&str]) -> Load {
        let mut command = example("load");
        let address = format!("127.0.0.1:{}", server.port());
        command.args([
            &address,
            "--path",
            "/",
            "--connections",
            &CONNECTIONS.to_string(),
            "--until-eof",
            "--by-worker",
        ]);
        let load = command.args(options).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        Load(load.expect("it is built"))
    }

    /// Waits until a worker has accepted a connection, or has had one.
    fn until_served(&self, server: &mut Server) {
        let port = server.port();
        until("a worker has a connection", || {
            let mut sockets = tcp_sockets(Pid::this(), ESTABLISHED).expect("Linux");
            // In a process: what still waits in a queue is in none.
            sockets.any(|it| it.port == port && it.inode != 0).then_some(())
        });
    }

    fn stop(mut self) -> BTreeMap<String, u64> {
        drop(self.0.stdin.take());
        let output = self.0.wait_with_output().expect("a child");
        let line = String::from_utf8(output.stdout).expect("text");
        let pairs = line.split_whitespace().filter_map(|word| word.split_once('='));
        pairs.map(|(key, value)| (key.to_owned(), value.parse().expect("a number"))).collect()
    }
}
