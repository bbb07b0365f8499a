//! A pool whose processes are all frozen for a while, as by `docker pause`: that time counts for no timeout.

use std::fs;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use crate::support::{example, fresh_path, testbed, until, Server};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

/// How long it stands still: longer than [`TIMEOUT`].
const FROZEN: Duration = Duration::from_secs(9);

/// Every timeout here: far longer than what is done within it, on any machine.
const TIMEOUT: &str = "8s";

/// Stops every process of the pool and lets them go on, by the cgroup freezer where this user may use it, else by
/// SIGSTOP.
fn freeze(server: &Server) {
    let mut pool = server.workers();
    pool.push(server.pid());
    let frozen = Freezer::freeze(&pool);
    if frozen.is_none() {
        eprintln!("no freezer cgroup can be made here: SIGSTOP");
        // The parent first and last, so that it does not see its workers stopped.
        pool.iter().rev().for_each(|pid| kill(*pid, Signal::SIGSTOP).expect("it runs"));
    }
    sleep(FROZEN);
    if frozen.is_none() {
        pool.iter().for_each(|pid| kill(*pid, Signal::SIGCONT).expect("it is there"));
    }
}

/// A cgroup whose processes stand still until it is dropped.
struct Freezer {
    directory: PathBuf,
    is_v2: bool,
}

impl Freezer {
    fn freeze(pool: &[Pid]) -> Option<Freezer> {
        let hierarchies = [("/sys/fs/cgroup/freezer", false), ("/sys/fs/cgroup", true)];
        let exists = |base: &str| fs::exists(format!("{base}/cgroup.procs")).is_ok_and(|exists| exists);
        let (base, is_v2) = hierarchies.into_iter().find(|(base, _)| exists(base))?;
        let directory = PathBuf::from(format!("{base}/forkpool-test-{}", pool.last()?));
        fs::create_dir(&directory).ok()?;
        let freezer = Freezer { directory, is_v2 };
        for pid in pool {
            fs::write(freezer.directory.join("cgroup.procs"), pid.to_string()).ok()?;
        }
        let (file, word, state, expected) = match is_v2 {
            true => ("cgroup.freeze", "1", "cgroup.events", "frozen 1"),
            false => ("freezer.state", "FROZEN", "freezer.state", "FROZEN"),
        };
        fs::write(freezer.directory.join(file), word).ok()?;
        let state = freezer.directory.join(state);
        until("all are frozen", || fs::read_to_string(&state).ok()?.contains(expected).then_some(()));
        Some(freezer)
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        let (file, word) = if self.is_v2 { ("cgroup.freeze", "0") } else { ("freezer.state", "THAWED") };
        let _ = fs::write(self.directory.join(file), word);
        // It can be removed when it is empty, and the test does not wait for that.
        let parent = self.directory.parent().expect("it is in the hierarchy").join("cgroup.procs");
        for pid in fs::read_to_string(self.directory.join("cgroup.procs")).unwrap_or_default().lines() {
            let _ = fs::write(&parent, pid);
        }
        let _ = fs::remove_dir(&self.directory);
    }
}

#[test]
fn a_freeze_does_not_count_for_the_boot_timeout() {
    let marker = fresh_path("slow-start");
    fs::write(&marker, "").expect("a writable directory");
    let mut command = example("testbed");
    command.envs([("FORKPOOL_WORKERS", "2"), ("FORKPOOL_BOOT_TIMEOUT", TIMEOUT)]);
    command.env("TESTBED", format!("start-after:{}", marker.display()));
    let mut server = Server::spawn(command);
    server.wait_for("starting slowly");
    server.wait_for("starting slowly");
    freeze(&server);
    fs::remove_file(&marker).expect("it is there");
    server.wait_for("listening on ");
    assert_eq!((server.count("killed"), server.get("/").status), (0, 200));
}

#[test]
fn a_freeze_does_not_count_for_the_drain_timeout() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "1"), ("FORKPOOL_DRAIN_TIMEOUT", TIMEOUT), ("RUST_LOG", "debug")]);
    let mut client = server.connect();
    client.send("POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n");
    assert_eq!(client.answer().status, 100);
    server.signal(Signal::SIGTERM);
    server.wait_for("draining: SIGTERM");
    freeze(&server);
    // A parent that counted this time would have killed the worker by now.
    server.wait_for("the pool was frozen for ");
    client.send("x");
    assert_eq!(client.answer().status, 200);
    assert_eq!(server.wait().code(), Some(0));
    assert_eq!(server.count("killed"), 0);
}

#[test]
fn a_freeze_does_not_count_for_the_stall_timeout() {
    let mut server = testbed(&[("FORKPOOL_STALL_TIMEOUT", TIMEOUT), ("FORKPOOL_WORKERS", "1")]);
    let mut client = server.connect();
    client.send("GET /sliced?ms=1000 HTTP/1.1\r\nHost: a\r\n\r\n");
    server.wait_for("serves /sliced");
    freeze(&server);
    assert_eq!(client.answer().status, 200);
    assert_eq!(server.count("stall-timeout"), 0);
}

#[test]
fn a_freeze_does_not_count_for_the_timeouts_of_clients() {
    let timeouts = ["HEAD", "BODY", "IDLE"].map(|name| format!("FORKPOOL_{name}_TIMEOUT"));
    let variables: Vec<(&str, &str)> = timeouts.iter().map(|name| (name.as_str(), TIMEOUT)).collect();
    let mut server = testbed(&variables);
    let mut head = server.connect();
    head.send("GET / HTTP/1.1\r\n");
    let mut body = server.connect();
    body.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nx");
    let mut idle = server.connect();
    assert_eq!(idle.get("/").status, 200);
    freeze(&server);
    // They have a turn before anything of these comes.
    for _ in 0..20 {
        assert_eq!(server.get("/").status, 200);
    }
    for (client, rest) in
        [(&mut head, "Host: a\r\n\r\n"), (&mut body, "x"), (&mut idle, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")]
    {
        client.send(rest);
        assert_eq!(client.answer().status, 200, "{rest}");
    }
}
