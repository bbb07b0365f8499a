//! Logs that nobody reads: pipes, FIFOs, terminals. Nobody waits for their readers.

mod support;

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::fcntl::{fcntl, FcntlArg, OFlag};
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::{kill, killpg, Signal};
use nix::sys::stat::Mode;
use nix::sys::termios::{tcflow, FlowArg};
use nix::unistd::{mkfifo, pipe2, Pid, Uid};
use support::{binary, children, connect_unix, fresh_path, skip, until, Client, Server};

/// A pool whose standard error somebody else holds.
struct Pool {
    child: Child,
    port: u16,
}

/// A log that is read only when somebody waits for something in it.
struct Log {
    read: File,
    text: String,
}

impl Log {
    fn new(read: OwnedFd) -> Log {
        let flags = OFlag::from_bits_retain(fcntl(&read, FcntlArg::F_GETFL).expect("a descriptor"));
        fcntl(&read, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).expect("a descriptor");
        Log { read: read.into(), text: String::new() }
    }

    /// Waits for a line with this part, and forgets what comes before.
    #[track_caller]
    fn wait_for(&mut self, part: &str) -> String {
        until(part, || {
            let mut bytes = [0; 4096];
            while let Ok(len @ 1..) = self.read.read(&mut bytes) {
                self.text.push_str(&String::from_utf8_lossy(&bytes[..len]));
            }
            let whole = self.text.rfind('\n').map_or(0, |end| end + 1);
            let line = self.text[..whole].lines().find(|line| line.contains(part))?.to_owned();
            self.text.drain(..self.text.find(&line).map_or(0, |at| at + line.len()));
            Some(line)
        })
    }
}

impl Pool {
    /// Starts one and reads its log until it listens.
    #[track_caller]
    fn start(mut command: Command, stderr: OwnedFd, log: &mut Log) -> Pool {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).process_group(0);
        let child = command.spawn().expect("it is built");
        // A copy would keep the pipe open.
        drop(command);
        let line = log.wait_for("listening on ");
        let port = line.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next()?.trim().parse().ok());
        Pool { child, port: port.expect("it names its port") }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"))
    }

    fn connect(&self) -> Client<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("the port is open");
        stream.set_read_timeout(Some(support::DEADLINE)).expect("a socket");
        Client::new(stream)
    }

    /// Kills one of so many children, which the parent logs, and sees it replaced. A second one that is there already
    /// replaces nobody: the parent may not even have seen the death.
    fn replaces_a_child(&self, count: usize) {
        let all = || Some(children(self.pid())).filter(|all| all.len() == count);
        let killed = until("all are there", all)[0];
        kill(killed, Signal::SIGKILL).expect("it runs");
        until("it is replaced", || all().filter(|all| !all.contains(&killed)));
        assert_eq!(self.connect().get("/").status, 200);
    }

    fn ends(&mut self) {
        kill(self.pid(), Signal::SIGTERM).expect("it runs");
        let status = until("it ends", || self.child.try_wait().expect("a child"));
        assert_eq!(status.code(), Some(0));
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // It may be over.
        let _ = killpg(self.pid(), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

/// Fills a pipe, in an open file description of its own: the flags of the pool's stay as they are.
fn fill(pipe: &impl AsRawFd) {
    let path = format!("/proc/self/fd/{}", pipe.as_raw_fd());
    let mut file = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(path).expect("a pipe");
    for part in [&[b'-'; 4096][..], b"-"] {
        while file.write(part).is_ok() {}
    }
    file.write_all(b"\n").expect_err("it is full");
}

/// What can be read at once.
fn read_all(reader: &mut impl Read) -> String {
    let mut text = String::new();
    let ended = reader.read_to_string(&mut text);
    assert!(ended.is_ok() || ended.is_err_and(|error| error.kind() == ErrorKind::WouldBlock));
    text
}

fn single() -> Command {
    let mut command = binary();
    command.args(["--workers", "1", "--drain-timeout", "2s"]);
    command
}

/// `others` runs the pool as somebody who may not open the pipe.
fn nobody_reads_the_log(others: bool) {
    let (read, write) = pipe2(OFlag::O_CLOEXEC).expect("descriptors");
    let (full, admin) = (write.try_clone().expect("a descriptor"), fresh_path(&format!("stalled-{others}.admin")));
    let mut command = single();
    if others {
        command.uid(65534);
        command.args(["--admin", "127.0.0.1:0"]);
    } else {
        command.args(["--admin", &format!("unix:{}", admin.display())]);
    }
    let mut log = Log::new(read);
    let mut pool = Pool::start(command, write, &mut log);
    fill(&full);
    for _ in 0..2 {
        pool.replaces_a_child(2);
    }
    if !others {
        let status = || {
            let answer = connect_unix(&admin).get("/metrics");
            let count = answer.text().lines().find_map(|line| {
                line.strip_prefix("forkpool_log_lines_lost_total{process=\"parent\"} ")?.parse::<u64>().ok()
            });
            count.filter(|count| *count > 0)
        };
        until("the loss is told", status);
        let text = connect_unix(&admin).get("/status.txt");
        assert!(text.text().contains(" log lines lost"), "{}", text.text());
    }
    drop(full);
    let line = log.wait_for(" log lines lost");
    assert!(line.contains(" WARN "), "{line}");
    pool.ends();
}

#[test]
fn a_parent_goes_on_when_nobody_reads_its_log() {
    nobody_reads_the_log(false);
}

#[test]
fn a_parent_goes_on_when_nobody_reads_a_pipe_that_it_may_not_open() {
    if !Uid::effective().is_root() {
        return skip("only root can make a pipe that another user may not open");
    }
    let is_reachable = Command::new(binary().get_program()).arg("--version").uid(65534).stdout(Stdio::null()).status();
    if !is_reachable.is_ok_and(|status| status.success()) {
        return skip("the binary is where nobody may not execute it");
    }
    nobody_reads_the_log(true);
}

#[test]
fn a_pool_ends_although_nobody_reads_its_log() {
    let (read, write) = pipe2(OFlag::O_CLOEXEC).expect("descriptors");
    let full = write.try_clone().expect("a descriptor");
    let mut log = Log::new(read);
    let mut pool = Pool::start(single(), write, &mut log);
    fill(&full);
    pool.ends();
}

#[test]
fn a_worker_goes_on_when_nobody_reads_its_log() {
    let (read, write) = pipe2(OFlag::O_CLOEXEC).expect("descriptors");
    let (full, admin) = (write.try_clone().expect("a descriptor"), fresh_path("worker.admin"));
    let mut command = single();
    // What it cannot write there, it tells in the log.
    command.args(["--access-log", "/dev/full", "--admin", &format!("unix:{}", admin.display())]);
    let mut log = Log::new(read);
    let mut pool = Pool::start(command, write, &mut log);
    fill(&full);
    let mut client = pool.connect();
    until("the worker has lost lines of both", || {
        assert_eq!(client.get("/").status, 200);
        let answer = connect_unix(&admin).get("/status.json");
        let worker = answer.text().split("\"workers\":").nth(1).expect("there are workers");
        let lost = worker.split("\"log_lines_lost\":").nth(1).and_then(|rest| rest.split([',', '}']).next());
        (lost.and_then(|lost| lost.parse().ok()) > Some(1)).then_some(())
    });
    pool.ends();
}

#[test]
fn a_parent_goes_on_when_its_terminal_is_stopped() {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let terminal = posix_openpt(flags).expect("a pseudo-terminal");
    grantpt(&terminal).and_then(|()| unlockpt(&terminal)).expect("it is ours");
    let name = ptsname_r(&terminal).expect("it has a name");
    let slave = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open(name).expect("a terminal");
    let mut log = Log::new(terminal.into());
    let mut pool = Pool::start(single(), slave.try_clone().expect("a descriptor").into(), &mut log);
    // Ctrl-S
    tcflow(&slave, FlowArg::TCOOFF).expect("a terminal");
    for _ in 0..2 {
        pool.replaces_a_child(1);
    }
    tcflow(&slave, FlowArg::TCOON).expect("a terminal");
    log.wait_for(" log lines lost");
    pool.ends();
}

/// Asks for so much that no pipe holds the lines of it.
fn ask_much(server: &mut Server) {
    let mut client = server.connect();
    for _ in 0..3000 {
        assert_eq!(client.get("/a-path-that-makes-the-line-of-the-access-log-a-little-longer").status, 200);
    }
}

fn is_whole(line: &str) -> bool {
    line.starts_with("127.0.0.1 - - [") && line.ends_with('"')
}

/// What [`ask_much`] leaves in a log that is read again.
fn lost_and_written(server: &mut Server, read: &mut impl Read) {
    let line = server.wait_for("lines of the access log: nobody reads it");
    assert!(line.contains("worker=0 ") && line.contains(" lost "), "{line}");
    let before = read_all(read);
    assert!(before.lines().all(is_whole), "{before}");
    assert_eq!(server.get("/after").status, 200);
    let after = until("it is written again", || {
        let text = read_all(read);
        text.contains("GET /after ").then_some(text)
    });
    assert!(after.lines().all(is_whole), "{after}");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
}

fn reader(path: &Path) -> File {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).expect("a FIFO")
}

#[test]
fn requests_are_answered_when_nobody_reads_the_access_logs_fifo() {
    let path = fresh_path("stalled.fifo");
    mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).expect("a file system with FIFOs");
    let mut read = reader(&path);
    let mut command = single();
    command.args(["--access-log-format", "combined", "--access-log"]).arg(&path);
    let mut server = Server::start(command);
    ask_much(&mut server);
    lost_and_written(&mut server, &mut read);
    fs::remove_file(&path).expect("it is there");
}

#[test]
fn an_access_log_s_fifo_needs_a_reader_at_the_start() {
    let path = fresh_path("unread.fifo");
    mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).expect("a file system with FIFOs");
    let mut command = single();
    command.arg("--access-log").arg(&path);
    let mut server = Server::spawn(command);
    let expected =
        format!("cannot open the access log {}: it is a FIFO that nobody reads; start its reader", path.display());
    server.wait_for(&expected);
    assert_eq!(server.wait().code(), Some(1));
    fs::remove_file(&path).expect("it is there");
}

#[test]
fn requests_are_answered_when_nobody_reads_the_access_log_on_stdout() {
    // A FIFO, opened by a shell as any redirection: blocking.
    let path = fresh_path("stdout.fifo");
    mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).expect("a file system with FIFOs");
    let mut read = reader(&path);
    let pool = single();
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" \"$@\" > \"$FIFO\""]).arg(pool.get_program()).args(pool.get_args());
    command.args(["--access-log-format", "combined", "--access-log", "-"]).env("FIFO", &path);
    command.envs(pool.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut server = Server::start(command);
    ask_much(&mut server);
    lost_and_written(&mut server, &mut read);
    fs::remove_file(&path).expect("it is there");
}
