//! Service managers: which notifications they get, which sockets they pass, and when their watchdog is notified.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Command;

use crate::support::{children, connect_unix, example, fresh_path, skip, until, Client, Server};
use nix::fcntl::{fcntl, FcntlArg};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

/// The other end of NOTIFY_SOCKET (sd_notify(3)).
struct Manager {
    path: PathBuf,
    socket: UnixDatagram,
    told: Vec<String>,
}

impl Manager {
    fn new(name: &str) -> Manager {
        let path = fresh_path(name);
        let socket = UnixDatagram::bind(&path).expect("a writable directory");
        socket.set_nonblocking(true).expect("a socket");
        Manager { path, socket, told: Vec::new() }
    }

    fn testbed(&self) -> Command {
        let mut command = example("testbed");
        command.env("NOTIFY_SOCKET", &self.path).env("FORKPOOL_WORKERS", "2");
        command
    }

    fn receive(&mut self) {
        let mut message = [0; 4096];
        while let Ok(len) = self.socket.recv(&mut message) {
            self.told.push(String::from_utf8_lossy(&message[..len]).into_owned());
        }
    }

    /// Forgets what it was told until now.
    fn forget(&mut self) {
        self.receive();
        self.told.clear();
    }

    /// Waits until it is told something, and forgets what came before.
    #[track_caller]
    fn wait_for(&mut self, part: &str) -> String {
        until(part, || {
            self.receive();
            let index = self.told.iter().position(|message| message.lines().any(|line| line.starts_with(part)))?;
            Some(self.told.drain(..=index).next_back().expect("it is there"))
        })
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[test]
fn the_service_manager_is_notified() {
    let mut manager = Manager::new("notify");
    let mut server = Server::start(manager.testbed());
    manager.wait_for("STATUS=2 of 2 workers ready");
    manager.wait_for("READY=1");
    server.signal(Signal::SIGHUP);
    let reloading = manager.wait_for("RELOADING=1");
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    manager.wait_for("READY=1");
    server.signal(Signal::SIGTTIN);
    manager.wait_for("STATUS=3 of 3 workers ready");
    server.signal(Signal::SIGTERM);
    manager.wait_for("STOPPING=1");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn the_service_manager_follows_an_upgrade() {
    let mut manager = Manager::new("notify-upgrade");
    let mut command = manager.testbed();
    command.env("WATCHDOG_USEC", "100000");
    let mut server = Server::start(command);
    server.signal(Signal::SIGUSR2);
    let line = server.wait_for("upgrade done: pid=");
    let new = line.rsplit("pid=").next().and_then(|rest| rest.split(' ').next()).expect("a pid");
    let told = manager.wait_for("MAINPID=");
    assert!(told.contains(&format!("MAINPID={new}\n")) && told.contains("READY=1"), "{told}");
    assert_eq!(server.wait().code(), Some(0));
    // The watchdog goes on to hear from the new one.
    manager.forget();
    manager.wait_for("WATCHDOG=1");
    let new = nix::unistd::Pid::from_raw(new.parse().expect("a number"));
    assert_eq!(children(new).len(), 2);
    kill(new, Signal::SIGINT).expect("it runs");
}

/// The queue of its socket holds about ten messages (`net.unix.max_dgram_qlen`).
#[test]
fn a_busy_service_manager_is_notified_in_the_end() {
    let mut manager = Manager::new("notify-busy");
    let mut server = Server::start(manager.testbed());
    const RESTARTS: usize = 8;
    for _ in 0..RESTARTS {
        server.signal(Signal::SIGHUP);
        server.wait_for("rolling restart done");
    }
    for _ in 0..RESTARTS {
        manager.wait_for("RELOADING=1");
        manager.wait_for("READY=1");
    }
    server.signal(Signal::SIGTERM);
    manager.wait_for("STOPPING=1");
    assert_eq!(server.wait().code(), Some(0));
}

/// A process that waits to write to a socket is interrupted by any signal that it handles.
#[test]
#[cfg(target_arch = "x86_64")]
fn the_last_words_are_not_lost_to_a_signal() {
    let mut manager = Manager::new("notify-last");
    let mut server = Server::start(manager.testbed());
    let other = UnixDatagram::unbound().expect("a socket");
    other.set_nonblocking(true).expect("a socket");
    while other.send_to(b"its queue is full", &manager.path).is_ok() {}
    server.signal(Signal::SIGTERM);
    // sendto(2) is number 44 here.
    let call = format!("/proc/{}/syscall", server.pid());
    until("it waits for its reader", || std::fs::read_to_string(&call).ok()?.starts_with("44 ").then_some(()));
    server.signal(Signal::SIGUSR1);
    manager.wait_for("STOPPING=1");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn the_watchdog_is_notified_only_while_a_worker_answers() {
    let mut manager = Manager::new("watchdog");
    let mut command = manager.testbed();
    command.envs([("WATCHDOG_USEC", "100000"), ("FORKPOOL_STALL_TIMEOUT", "8s"), ("FORKPOOL_WORKERS", "1")]);
    let mut server = Server::start(command);
    for _ in 0..3 {
        manager.wait_for("WATCHDOG=1");
    }
    let mut client = server.connect();
    client.send("GET /slow?ms=60000 HTTP/1.1\r\nHost: a\r\n\r\n");
    for _ in 0..2 {
        // Before it is killed.
        server.wait_for("no worker responds");
    }
    // It is replaced, and all is well again.
    server.wait_for("(stall-timeout)");
    server.wait_for(" ready");
    manager.forget();
    manager.wait_for("WATCHDOG=1");
}

/// Starts a program with listening sockets from descriptor 3 on, as sd_listen_fds(3) has it.
fn with_sockets(command: &Command, sockets: &[&dyn AsFd]) -> Command {
    let mut script = String::new();
    for (number, socket) in (3..).zip(sockets) {
        // Above those that the shell moves them to, and open in the shell.
        let copy = fcntl(socket.as_fd(), FcntlArg::F_DUPFD(100)).expect("a free descriptor");
        script.push_str(&format!("exec {number}<&{copy} {copy}<&-\n"));
    }
    script.push_str("export LISTEN_PID=$$\nexec \"$0\"");
    // The plain shell has descriptors of one digit only.
    let mut shell = Command::new("bash");
    shell.arg("-c").arg(script).arg(command.get_program());
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.env("LISTEN_FDS", sockets.len().to_string());
    shell
}

fn has_bash() -> bool {
    let found = Command::new("bash").arg("-c").arg("true").status().is_ok();
    if !found {
        skip("there is no bash to pass descriptors with");
    }
    found
}

#[test]
fn the_service_manager_may_pass_sockets() {
    if !has_bash() {
        return;
    }
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let path = fresh_path("given.socket");
    let unix = UnixListener::bind(&path).expect("a writable directory");
    let address = tcp.local_addr().expect("it is bound");
    let mut command = example("testbed");
    command.env("FORKPOOL_WORKERS", "2").env("LISTEN_FDNAMES", "web:local");
    let mut server = Server::spawn(with_sockets(&command, &[&tcp, &unix]));
    let line = server.wait_for("listening on http://");
    assert!(line.contains(&format!("{address} (given as web) with 2 workers")), "{line}");
    server.wait_for("(given as local)");
    // Whatever else was configured is not listened on.
    assert_eq!(server.count("listening on"), 2);
    for _ in 0..20 {
        assert_eq!(Client::new(TcpStream::connect(address).expect("it listens")).get("/").status, 200);
        assert_eq!(connect_unix(&path).get("/").status, 200);
    }
    // They are handed on, like any others.
    server.signal(Signal::SIGUSR2);
    server.wait_for("upgrade done");
    server.wait_for("another pool has taken over");
    assert_eq!(Client::new(TcpStream::connect(address).expect("it listens")).get("/").status, 200);
    let _ = std::fs::remove_file(path);
}

/// Nobody can make it anew but the manager.
#[test]
fn a_worker_in_the_sandbox_cannot_end_a_given_socket() {
    if !nix::unistd::getuid().is_root() {
        return skip("only root can run workers as another user");
    }
    if !has_bash() {
        return;
    }
    let path = fresh_path("hostile.socket");
    let unix = UnixListener::bind(&path).expect("a writable directory");
    let mut command = example("hostile");
    command.envs([("FORKPOOL_WORKERS", "2"), ("FORKPOOL_USER", "nobody"), ("FORKPOOL_SANDBOX", "strict")]);
    command.env("FORKPOOL_DRAIN_TIMEOUT", "1s");
    let mut server = Server::spawn(with_sockets(&command, &[&unix]));
    if server.wait_for_any(&["listening on unix:", "no worker could start"]).contains("no worker") {
        return skip("this kernel has not got all of the strict sandbox");
    }
    let mut client = connect_unix(&path);
    client.send("GET /attack?replace HTTP/1.1\r\nHost: a\r\n\r\n");
    // Its connection is among what the attacker replaces.
    let _ = client.try_answer(false);
    server.signal(Signal::SIGHUP);
    server.wait_for("rolling restart done");
    for _ in 0..20 {
        assert_eq!(connect_unix(&path).get("/").status, 200);
    }
    let _ = std::fs::remove_file(path);
}

#[test]
fn a_given_socket_that_does_not_listen_is_refused() {
    if !has_bash() {
        return;
    }
    let datagram = UnixDatagram::unbound().expect("a socket");
    let mut server = Server::spawn(with_sockets(&example("testbed"), &[&datagram]));
    let (status, log) = server.finish();
    assert_eq!(status.code(), Some(1));
    let last = log.last().expect("it says why");
    assert!(last.contains("given socket unknown: it is no listening stream socket"), "{last}");
}

#[test]
fn sockets_for_another_process_are_not_taken() {
    let mut command = example("testbed");
    command.env("LISTEN_FDS", "1").env("LISTEN_PID", "1").env("FORKPOOL_WORKERS", "1");
    let mut server = Server::start(command);
    assert_eq!(server.get("/").status, 200);
}

#[test]
fn lines_for_the_systemd_journal_begin_with_their_priority() {
    let (ours, theirs) = UnixStream::pair().expect("a socket pair");
    let file = File::from(OwnedFd::from(theirs));
    let stream = file.metadata().expect("a socket");
    let mut command = crate::support::binary();
    command.args(["--workers", "1"]).env("FORKPOOL_LISTEN", "127.0.0.1:0");
    command.env("JOURNAL_STREAM", format!("{}:{}", stream.dev(), stream.ino())).stderr(file);
    let mut pool = command.spawn().expect("it starts");
    // Else its end of the stream would stay open here.
    drop(command);
    let pid = Pid::from_raw(i32::try_from(pool.id()).expect("a pid"));
    let mut lines = BufReader::new(ours).lines().map(|line| line.expect("text"));
    let mut next = |part: &str| lines.by_ref().find(|line| line.contains(part)).unwrap_or_else(|| panic!("no {part}"));
    assert!(next(" ready").starts_with("<6>worker=0 gen=1 pid="));
    let worker = children(pid)[0];
    kill(worker, Signal::SIGKILL).expect("it runs");
    assert!(next("killed by SIGKILL").starts_with("<4>worker=0 gen=1 pid="));
    kill(pid, Signal::SIGTERM).expect("it runs");
    assert!(pool.wait().expect("it ends").success());
}
