//! Starts programs as children and talks to them as any client would.
//!
//! Nothing forks inside the test harness, which has threads. Nothing sleeps to synchronise: a test waits for the line
//! in which a program announces something, or, where nothing is announced, asks again until a deadline.
// Each test file uses its own part of this, and none is a library.
#![allow(dead_code, unreachable_pub)]

mod classes;
mod client;
mod load;
mod processes;
mod program;
mod said;
pub mod sockets;

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Once};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{getrlimit, setrlimit, Resource};
use nix::sys::signal::{kill, killpg, Signal};
use nix::unistd::Pid;

#[allow(unused_imports)]
pub(crate) use self::classes::CLASSES;
#[allow(unused_imports)]
pub use self::client::{connect_unix, Answer, Client};
#[allow(unused_imports)]
pub use self::load::{Load, BOTH_MODES};
#[allow(unused_imports)]
pub use self::processes::{children, is_gone};
#[allow(unused_imports)]
pub use self::said::{run, Said};

/// Far beyond what anything here takes, also on a machine that is slow or has much else to do; a test that runs into it
/// has failed.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// An example, built by `cargo test` beside the tests.
pub fn example(name: &str) -> Command {
    let test = std::env::current_exe().expect("the test has a path");
    let profile = test.parent().and_then(Path::parent).expect("the test is in target/PROFILE/deps");
    clean(Command::new(profile.join("examples").join(name)))
}

/// The binary.
pub fn binary() -> Command {
    clean(Command::new(env!("CARGO_BIN_EXE_forkpool")))
}

/// The testbed on a free port, with two workers unless told otherwise.
pub fn testbed(variables: &[(&str, &str)]) -> Server {
    Server::start(testbed_command(variables))
}

/// What [`testbed`] starts.
pub fn testbed_command(variables: &[(&str, &str)]) -> Command {
    let mut command = example("testbed");
    command.env("FORKPOOL_WORKERS", "2").envs(variables.iter().copied());
    command
}

/// Without the variables that would configure it, on a free port.
fn clean(mut command: Command) -> Command {
    static MANY: Once = Once::new();
    MANY.call_once(allow_many_descriptors);
    for (name, _) in std::env::vars() {
        let others = ["PORT", "WEB_CONCURRENCY", "CLUSTER_WORKERS", "RUST_LOG", "RUST_BACKTRACE", "TESTBED"];
        if name.starts_with("FORKPOOL_") || others.contains(&name.as_str()) {
            command.env_remove(name);
        }
    }
    command.env("FORKPOOL_LISTEN", "127.0.0.1:0");
    // For a run of all tests in another sandbox than by default.
    if let Some(sandbox) = std::env::var_os("TESTS_SANDBOX") {
        command.env("FORKPOOL_SANDBOX", sandbox);
    }
    command
}

/// A running program in a process group of its own, which is killed when the test ends, however it ends.
pub struct Server {
    child: Child,
    lines: Receiver<String>,
    log: Vec<String>,
    /// How many lines of the log have been waited for.
    waited: usize,
    port: Option<u16>,
    status: Option<ExitStatus>,
}

impl Server {
    /// Starts a program without waiting for anything.
    pub fn spawn(mut command: Command) -> Server {
        handle_ignored_signals();
        command.stdin(Stdio::null()).process_group(0);
        let (child, lines) = program::spawn(&mut command).unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Server { child, lines, log: Vec::new(), waited: 0, port: None, status: None }
    }

    /// Starts a program and waits until all its workers are ready.
    #[track_caller]
    pub fn start(command: Command) -> Server {
        let mut server = Server::spawn(command);
        server.wait_for("listening on ");
        server
    }

    /// Starts a program that writes no log, and waits until it listens.
    #[track_caller]
    pub fn start_silent(command: Command) -> Server {
        let mut server = Server::spawn(command);
        server.port = Some(until("it listens", || server.workers().into_iter().find_map(sockets::listening_port)));
        server
    }

    /// Waits for a line that contains `part`, behind those that earlier calls have waited for; returns it.
    #[track_caller]
    pub fn wait_for(&mut self, part: &str) -> String {
        self.wait_for_any(&[part])
    }

    /// Waits for the line that says where the admin process listens on 127.0.0.1; returns the port.
    #[track_caller]
    pub fn wait_for_admin(&mut self) -> u16 {
        let line = self.wait_for("admin on http://127.0.0.1:");
        line.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
    }

    /// Waits for a line that contains one of `parts`.
    #[track_caller]
    pub fn wait_for_any(&mut self, parts: &[&str]) -> String {
        let end = Instant::now() + DEADLINE;
        loop {
            while let Some(line) = self.log.get(self.waited) {
                self.waited += 1;
                if parts.iter().any(|part| line.contains(part)) {
                    return line.clone();
                }
            }
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => self.log.push(line),
                Err(_) => panic!("no line with {parts:?}; there were:\n{}", self.log.join("\n")),
            }
        }
    }

    /// Every line so far.
    pub fn log(&mut self) -> &[String] {
        self.log.extend(self.lines.try_iter());
        &self.log
    }

    /// How many lines so far contain `part`.
    pub fn count(&mut self, part: &str) -> usize {
        self.log().iter().filter(|line| line.contains(part)).count()
    }

    /// The TCP addresses that the log names so far.
    pub fn addresses(&mut self) -> Vec<SocketAddr> {
        self.log().iter().filter_map(|line| program::announced(line)).collect()
    }

    /// The port of the first address that the log names.
    #[track_caller]
    pub fn port(&mut self) -> u16 {
        if let Some(port) = self.port {
            return port;
        }
        self.addresses().first().expect("a TCP address is announced").port()
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"))
    }

    /// The pids of the parent's living children.
    pub fn workers(&self) -> Vec<Pid> {
        children(self.pid())
    }

    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("the program runs");
    }

    #[track_caller]
    pub fn connect(&mut self) -> Client<TcpStream> {
        let port = self.port();
        let stream = TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), DEADLINE).expect("the port is open");
        stream.set_read_timeout(Some(DEADLINE)).expect("a socket");
        Client::new(stream)
    }

    /// Makes one request on a connection of its own.
    #[track_caller]
    pub fn get(&mut self, target: &str) -> Answer {
        self.connect().get(target)
    }

    /// Waits until the only worker has handled what clients have sent it until now. A first answer does not show that:
    /// a request that is there when its connection is accepted is answered at once, before those whose events come in
    /// the next turn.
    #[track_caller]
    pub fn catch_up(&mut self) {
        let mut client = self.connect();
        for _ in 0..2 {
            assert_eq!(client.get("/").status, 200);
        }
    }

    /// How the program has ended, if it has.
    pub fn try_wait(&mut self) -> Option<ExitStatus> {
        self.status = self.child.try_wait().expect("a child");
        self.status
    }

    /// Waits for the program to end.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        until("the program ends", || self.try_wait())
    }

    /// Waits for the program to end and returns all that it has said.
    #[track_caller]
    pub fn finish(&mut self) -> (ExitStatus, Vec<String>) {
        let status = self.wait();
        // The pipes end with the last process that holds them.
        self.log.extend(self.lines.iter());
        (status, self.log.clone())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let processes = if self.status.is_none() { self.workers() } else { Vec::new() };
        // The group may be empty already.
        let _ = killpg(self.pid(), Signal::SIGKILL);
        if self.status.is_none() {
            let _ = self.child.wait();
        }
        // They keep a socket with a path from the next pool until they are gone.
        let end = Instant::now() + DEADLINE;
        while processes.iter().any(|pid| !is_gone(*pid)) && Instant::now() < end {
            thread::sleep(Duration::from_millis(1));
        }
        if thread::panicking() {
            eprintln!("{}", self.log().join("\n"));
        }
    }
}

/// Sets how many descriptors a process may have from now on; the hard limit stays. Returns whether that can be done
/// here.
#[track_caller]
pub fn limit_descriptors(pid: Pid, most: usize) -> bool {
    let mut command = Command::new("prlimit");
    let status = command.args([format!("--pid={pid}"), format!("--nofile={most}:")]).status();
    match &status {
        Ok(status) => assert!(status.success(), "{command:?}"),
        Err(error) => skip(&format!("no prlimit(1): {error}")),
    }
    status.is_ok()
}

/// Raises the limit of this process's descriptors as far as it may: some tests have a thousand clients, and others run
/// meanwhile.
fn allow_many_descriptors() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("it is allowed");
}

/// A pool of one worker with a drain time-out of a tenth of a second.
pub fn with_a_short_drain() -> Command {
    testbed_command(&[("FORKPOOL_WORKERS", "1"), ("FORKPOOL_DRAIN_TIMEOUT", "100ms")])
}

/// Kills the parent of a pool [`with_a_short_drain`] while its worker is busy with something long, and waits until that
/// has ended.
#[track_caller]
pub fn ends_with_its_parent_in_time(mut server: Server) {
    server.wait_for("listening on ");
    let worker = server.workers()[0];
    let mut client = server.connect();
    client.send("GET /sliced?ms=600000 HTTP/1.1\r\nHost: a\r\n\r\n");
    server.wait_for("serves /sliced");
    server.signal(Signal::SIGKILL);
    until("the worker is gone", || is_gone(worker).then_some(()));
}

/// Whether a program can be run with these arguments. Says that the test is skipped where it cannot.
pub fn is_there(program: &str, arguments: &[&str]) -> bool {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let is_there = output.is_ok_and(|output| output.status.success());
    if !is_there {
        skip(&format!("there is no {program}"));
    }
    is_there
}

/// A command, run by a shell that does something first.
pub fn after(first: &str, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{first} && exec \"$0\" \"$@\"")]).arg(command.get_program()).args(command.get_args());
    pass_variables(command, &mut shell);
    shell
}

/// The signals that nohup(1) and shells in the background have what they start ignore.
const IGNORED: [Signal; 3] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT];

/// Has what the tests start take the default actions of signals, also where whoever runs the tests has had some
/// ignored: a program under `exec` would ignore them as well. A signal that is handled has its default action after
/// execve(2).
fn handle_ignored_signals() {
    static HANDLED: Once = Once::new();
    HANDLED.call_once(|| {
        let status = fs::read_to_string("/proc/self/status").expect("Linux");
        let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).expect("a set of signals");
        let ignored = u64::from_str_radix(ignored.trim(), 16).expect("a set of signals");
        for signal in IGNORED.into_iter().filter(|signal| ignored & 1 << (*signal as i32 - 1) != 0) {
            signal_hook::flag::register(signal as i32, Arc::default()).expect("it can be handled");
        }
    });
}

/// Gives a command the variables of another one.
pub fn pass_variables(from: &Command, to: &mut Command) {
    for (name, value) in from.get_envs() {
        match value {
            Some(value) => to.env(name, value),
            None => to.env_remove(name),
        };
    }
}

/// Waits until nobody listens on a port of 127.0.0.1. A connection may be to itself now and then, where its own port is
/// the one that is asked for.
#[track_caller]
pub fn until_closed(port: u16) {
    until("the port is closed", || {
        let is_closed = TcpStream::connect(("127.0.0.1", port)).is_err();
        if !is_closed {
            // A worker accepts whoever comes before it closes the port, and may be slower than this test is.
            thread::sleep(Duration::from_millis(20));
        }
        is_closed.then_some(())
    });
}

/// The admin process of a pool: the one child that its status does not name as a worker. `status` asks for that.
#[track_caller]
pub fn admin_process(server: &Server, mut status: impl FnMut() -> String) -> Pid {
    until("one of the parent's children is no worker", || {
        let before = server.workers();
        let status = status();
        let is_worker = |pid: &Pid| status.contains(&format!("\"pid\":{pid},"));
        let others: Vec<Pid> = before.iter().copied().filter(|pid| !is_worker(pid)).collect();
        // Somebody has come or gone meanwhile, or the status is behind.
        (others.len() == 1 && before == server.workers()).then(|| others[0])
    })
}

/// Waits until the admin process knows that the pool serves with all its workers, which it is told after the log has
/// said so. `status` asks it for its status in JSON.
#[track_caller]
pub fn until_known(mut status: impl FnMut() -> String) {
    until("the admin process knows that all serve", || {
        let status = status();
        let wanted: usize = status.split_once("\"wanted\":")?.1.split(',').next()?.parse().ok()?;
        let is_known = status.matches("\"state\":\"ready\"").count() == wanted;
        (is_known && status.contains("\"state\":\"serving\"")).then_some(())
    });
}

/// Asks until there is an answer: for what nobody announces.
#[track_caller]
pub fn until<T>(wanted: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "still waiting until {wanted}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Copies a program that is to be executed. A process of its own writes it: a file that is open here for writing while
/// another test starts a process would be open there as well, and busy (ETXTBSY, execve(2)).
#[track_caller]
pub fn copy_program(from: &Path, to: &Path) {
    let status = Command::new("cp").args([from, to]).status().expect("there is cp(1)");
    assert!(status.success(), "{} cannot be written", to.display());
}

/// A path in a directory that `cargo test` keeps for such things, unused.
pub fn fresh_path(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", std::process::id()));
    let _ = fs::remove_file(&path);
    path
}

/// Says why a test, or a part of it, cannot run here: at once, and at the end of the run (`tests/zz_skips.rs`). With
/// `FORKPOOL_TESTS=all` it fails instead, for a machine that has everything.
#[track_caller]
pub fn skip(reason: &str) {
    assert!(std::env::var("FORKPOOL_TESTS").as_deref() != Ok("all"), "it cannot run here: {reason}");
    let thread = thread::current();
    let line = format!("skipped: {}: {reason}\n", thread.name().unwrap_or("a test"));
    // Not by a macro: what those print of a test that passes, nobody sees.
    let _ = std::io::stderr().write_all(line.as_bytes());
    let file = fs::OpenOptions::new().create(true).append(true).open(skips());
    file.and_then(|mut file| file.write_all(line.as_bytes())).expect("cargo's directory is writable");
}

/// Where the skips of this run are collected. All its test programs have the same parent, which is cargo.
pub fn skips() -> PathBuf {
    let parent = std::os::unix::process::parent_id();
    let stat = fs::read_to_string(format!("/proc/{parent}/stat")).unwrap_or_default();
    // Since when it runs, as pids come again (proc_pid_stat(5), field 22).
    let since = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(19)).unwrap_or("0").to_owned();
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("skips-{parent}-{since}"))
}
