//! A worker runs another program, with its sockets. Runs in the worker.

use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::Command;

use nix::sys::prctl::set_no_new_privs;

use crate::error::{Error, Result};
use crate::shared::config::Sandbox;
use crate::shared::signals;
use crate::sys;
use crate::worker::keeper;
use crate::worker::Worker;

impl Worker {
    /// Runs a program, and ends when it ends, by the same code or signal. It returns only when the program cannot be run.
    ///
    /// This process stays, as the program's *keeper*: it passes on what the pool asks, reports when the program is
    /// [ready](crate::Readiness), and is there until the last process of it has ended.
    ///
    /// The program finds the worker's listening sockets open from descriptor 3 on: TCP first, then Unix sockets, each in
    /// the order of the addresses. They do not block: during a restart a program shares them with its successor, which
    /// may accept what both have seen. Those that were given away are missing. A program that knows nothing of them, and
    /// binds one of their addresses itself, gets that socket as well ([`adopt`](crate::Builder::adopt)). Its environment
    /// is the command's, and says (sd_listen_fds(3)):
    ///
    /// - `LISTEN_FDS`, how many sockets there are; `LISTEN_PID`, its process id; `LISTEN_FDNAMES`, for each socket its
    ///   port, or `unix`, with colons between;
    /// - `FORKPOOL_FD`, the first socket's descriptor: 3; `FORKPOOL_WORKER_ID`, the slot; `FORKPOOL_UNIQUE_ID`, a number
    ///   that no other worker of the pool ever has;
    /// - `NOTIFY_SOCKET`, for [`Readiness::Auto`](crate::Readiness::Auto) and [`Readiness::Notify`](crate::Readiness::Notify).
    ///
    /// No signal is blocked, and each has the action with which the pool's process was started: ignored, where that was
    /// so then (as SIGHUP by nohup(1)), else the default; SIGPIPE always has the default. The program leads a process group of
    /// its own: a hang-up, Ctrl-C or a signal to the parent's group reaches the parent, which then restarts or stops
    /// its programs in turn. On a terminal it is therefore in the background: reading from it stops the program
    /// (SIGTTIN), and so does writing where `stty tostop` is set (SIGTTOU).
    ///
    /// The program is asked to finish by SIGTERM ([`stop_signal`](crate::Builder::stop_signal)), also when the parent dies, and to end at once by SIGINT; and so is every
    /// process that it has started, whatever its group or session. Those that are there at the end of the drain time-out
    /// are killed, and so are those that are there a second after the program has ended by itself. If this process is
    /// killed, so is the program, and the parent kills what that has started. Other signals to this process reach the
    /// program, but for SIGHUP, SIGUSR1, SIGUSR2, SIGTTIN and SIGTTOU, which do only if the [application](crate::Handle)
    /// sends them.
    ///
    /// For that the parent becomes a subreaper (PR_SET_CHILD_SUBREAPER) with the first program. When a keeper was killed, a
    /// child of the parent's that is in a process group of its own, and that no worker is, counts as left by its program:
    /// other processes that hooks start had better stay in the parent's group.
    ///
    /// The pool does not see what the program is busy with: it cannot stall, its connections do not count, and so
    /// [`balance`](crate::Builder::balance) should be `random`.
    ///
    /// ```no_run
    /// use std::process::Command;
    ///
    /// fn main() -> forkpool::Result<()> {
    ///     forkpool::Pool::bind(":8000").balance(forkpool::Balance::Random).run(|worker| {
    ///         let mut node = Command::new("node");
    ///         node.arg("app.js").env("NODE_ENV", "production");
    ///         Err(worker.exec(&mut node))
    ///     })
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// The error returned says why the program could not be executed: it does not exist, is not executable, or this
    /// worker runs another thread. Another program may be tried then. The worker's listeners are gone then.
    pub fn exec(&self, command: &mut Command) -> Error {
        match self.try_exec(command) {
            Ok(()) => sys::process::exit(0),
            Err(error) => error,
        }
    }

    /// Returns `Ok` when the worker is to finish instead.
    fn try_exec(&self, command: &mut Command) -> Result<()> {
        if let Some(count) = sys::process::threads().filter(|count| *count > 1) {
            let source = io::Error::other(format!("the worker has {count} threads, whose descriptors would change"));
            return Err(Error::system("become a program", source));
        }
        if self.sandbox() != Sandbox::Off {
            set_no_new_privs().map_err(|errno| Error::system("give up new privileges with prctl(2)", errno))?;
        }
        let sockets = Sockets { tcp: self.take_listeners(), unix: self.take_unix_listeners() };
        sockets.describe(command).map_err(|source| Error::system("name a socket with getsockname(2)", source))?;
        // Those of the service manager are for the parent.
        for variable in ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"] {
            command.env_remove(variable);
        }
        if let Some(address) = self.notify_socket() {
            command.env("NOTIFY_SOCKET", address);
        }
        // A signal that comes from here on waits for the keeper, so that none is lost in between.
        let blocked = signals::block_all();
        let _masked = blocked.map_err(|source| Error::system("block signals with sigprocmask(2)", source))?;
        if self.is_over().map_err(|source| Error::system("look at the lifeline with poll(2)", source))? {
            return Ok(());
        }
        let told = self.lifeline().executes();
        told.map_err(|source| Error::system("tell the parent of the program; is it gone?", source))?;
        keeper::start(self, command, sockets.into_fds())?.run()
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
        command.env("LISTEN_FDS", names.len().to_string());
        command.env("LISTEN_FDNAMES", names.join(":"));
        command.env("FORKPOOL_FD", sys::process::FIRST_PASSED.to_string());
        Ok(())
    }

    fn into_fds(self) -> Vec<OwnedFd> {
        self.tcp.into_iter().map(OwnedFd::from).chain(self.unix.into_iter().map(OwnedFd::from)).collect()
    }
}
