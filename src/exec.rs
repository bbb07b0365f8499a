//! A worker becomes another program, with its sockets. Runs in the worker.

use std::env;
use std::fs::{self, Permissions};
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::PathBuf;
use std::process::{self, Command};
use std::time::Duration;

use nix::fcntl::{fcntl, FcntlArg, OFlag};
use nix::sys::prctl::set_no_new_privs;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::unistd::{dup2_stderr, dup2_stdout, pipe2, setpgid, Pid};

use crate::channel::Sign;
use crate::error::Error;
use crate::sandbox::Sandbox;
use crate::worker::Worker;
use crate::{log_writer, signals, sys};

/// When a program that a worker executes counts as ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Readiness {
    /// Once it is executed: its sockets listen already, so what comes waits until it accepts.
    #[default]
    Listen,
    /// When it, or another process of its user, sends `READY=1` to the socket that `NOTIFY_SOCKET` names
    /// (sd_notify(3)).
    Notify,
    /// So long after it is executed.
    Delay(Duration),
}

impl Worker {
    /// Replaces this worker by a program, as execve(2) does; the process, and so the slot, stays. It returns only when
    /// that fails.
    ///
    /// The program finds the worker's listening sockets open from descriptor 3 on: TCP first, then Unix sockets, each in
    /// the order of the addresses. They do not block: during a restart a program shares them with its successor, which
    /// may accept what both have seen. Those that were given away are missing. Its environment is the command's, and
    /// says (sd_listen_fds(3)):
    ///
    /// - `LISTEN_FDS`, how many sockets there are; `LISTEN_PID`, its process id; `LISTEN_FDNAMES`, for each socket its
    ///   port, or `unix`, with colons between;
    /// - `FORKPOOL_FD`, the first socket's descriptor: 3; `FORKPOOL_WORKER_ID`, the slot; `FORKPOOL_UNIQUE_ID`, a number
    ///   that no other worker of the pool ever has;
    /// - `NOTIFY_SOCKET`, for [`Readiness::Notify`] only.
    ///
    /// No signal is blocked, and each has the action with which the pool's process was started: ignored, where that was
    /// so then (as SIGHUP by nohup(1)), else the default; SIGPIPE always has the default. The program leads a process group of
    /// its own: a hang-up, Ctrl-C or a signal to the parent's group reaches the parent, which then restarts or stops
    /// its programs in turn. On a terminal it is therefore in the background: reading from it stops the program
    /// (SIGTTIN), and so does writing where `stty tostop` is set (SIGTTOU).
    ///
    /// The program is asked to finish by SIGTERM, also when the parent dies, and to end at once by SIGINT. The pool does
    /// not see what it is busy with: it cannot stall, its connections do not count, and so
    /// [`balance`](crate::Builder::balance) should be `random`.
    ///
    /// ```no_run
    /// use std::process::Command;
    ///
    /// fn main() -> forkpool::Result<()> {
    ///     forkpool::Pool::bind(":8000").balance("random").run(|worker| {
    ///         let mut node = Command::new("node");
    ///         node.arg("app.js").env("NODE_ENV", "production");
    ///         Err(worker.exec(&mut node, forkpool::Readiness::Listen))
    ///     })
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// The error returned says why the program could not be executed: it does not exist, is not executable, or this
    /// worker runs another thread. The worker's listeners are gone then.
    pub fn exec(&self, command: &mut Command, readiness: Readiness) -> Error {
        let Err(source) = self.try_exec(command, readiness) else { sys::process::exit(0) };
        Error::File { path: command.get_program().to_string_lossy().into_owned(), action: "execute", source }
    }

    /// Has every line that this process writes to stdout and stderr begin with `worker=ID pid=PID `: what the worker
    /// writes from now on, or the program that it becomes by [`exec`](Worker::exec).
    ///
    /// The two are pipes to the parent then, which passes on line by line; one of more than 64 KiB comes in parts. When
    /// nobody reads the parent's output, writers wait. Once the parent has died, writing fails (EPIPE).
    ///
    /// # Errors
    ///
    /// When no descriptor is free, or the parent is gone.
    pub fn prefix_output(&self) -> io::Result<()> {
        let (stdout, to_stdout) = pipe2(OFlag::O_CLOEXEC)?;
        let (stderr, to_stderr) = pipe2(OFlag::O_CLOEXEC)?;
        // This end's flag is not that of the other one.
        for pipe in [&stdout, &stderr] {
            fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        self.lifeline().output([stdout.as_fd(), stderr.as_fd()])?;
        dup2_stdout(to_stdout)?;
        dup2_stderr(to_stderr)?;
        log_writer::reopen();
        Ok(())
    }

    /// Returns `Ok` when the worker is to finish instead.
    fn try_exec(&self, command: &mut Command, readiness: Readiness) -> io::Result<()> {
        if sys::process::threads().is_some_and(|count| count > 1) {
            return Err(io::Error::other("the worker runs another thread, whose descriptors would change"));
        }
        if self.sandbox() != Sandbox::Off {
            set_no_new_privs()?;
        }
        let sockets = Sockets { tcp: self.listeners(), unix: self.unix_listeners() };
        sockets.describe(command)?;
        // Those of the service manager are for the parent.
        for variable in ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"] {
            command.env_remove(variable);
        }
        let sign = match readiness {
            Readiness::Listen => Sign::Execution,
            Readiness::Delay(delay) => Sign::Timer(timer(delay)?),
            Readiness::Notify => {
                let (socket, path) = notified()?;
                command.env("NOTIFY_SOCKET", path);
                Sign::Notification(socket)
            }
        };
        // A signal that comes from here on waits for its default action, so that none is lost between this worker and
        // the program.
        let _masked = signals::block_all()?;
        if self.is_over()? {
            return Ok(());
        }
        self.lifeline().executes(&sign)?;
        // What a terminal or an operator sends to the parent's process group is the parent's to act on.
        setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
        sys::signal::as_started()?;
        Err(sys::process::execute(command, &sockets.fds()))
    }
}

/// What the program listens on.
struct Sockets {
    tcp: Vec<TcpListener>,
    unix: Vec<UnixListener>,
}

impl Sockets {
    /// Tells the program which there are.
    fn describe(&self, command: &mut Command) -> io::Result<()> {
        let mut names = Vec::new();
        for listener in &self.tcp {
            names.push(listener.local_addr()?.port().to_string());
        }
        names.extend(self.unix.iter().map(|_| "unix".to_owned()));
        command.env("LISTEN_PID", process::id().to_string());
        command.env("LISTEN_FDS", names.len().to_string());
        command.env("LISTEN_FDNAMES", names.join(":"));
        command.env("FORKPOOL_FD", sys::process::FIRST_PASSED.to_string());
        Ok(())
    }

    fn fds(&self) -> Vec<BorrowedFd<'_>> {
        self.tcp.iter().map(AsFd::as_fd).chain(self.unix.iter().map(AsFd::as_fd)).collect()
    }
}

/// A socket for the notifications of this process and of others of its user, and where it is.
///
/// It has a path, since not every implementation of sd_notify(3) knows abstract addresses, which moreover everybody can
/// send to.
fn notified() -> io::Result<(UnixDatagram, PathBuf)> {
    let path = notify_path(process::id());
    // A pool that was killed may have left it.
    let _ = fs::remove_file(&path);
    let socket = UnixDatagram::bind(&path)?;
    fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    socket.set_nonblocking(true)?;
    Ok((socket, path))
}

/// Where the program of a process sends notifications. The worker makes it and the parent removes it, which therefore
/// does not ask the worker for the path.
pub(crate) fn notify_path(pid: u32) -> PathBuf {
    env::temp_dir().join(format!("forkpool-{pid}.notify"))
}

/// A timer that becomes readable after `delay`.
fn timer(delay: Duration) -> io::Result<OwnedFd> {
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
    // Zero would disarm it.
    let delay = TimeSpec::from_duration(delay.max(Duration::from_nanos(1)));
    timer.set(Expiration::OneShot(delay), TimerSetTimeFlags::empty())?;
    Ok(timer.into())
}
