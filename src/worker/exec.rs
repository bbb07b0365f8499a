//! Runs another program in a worker, with its sockets.

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
    /// Runs a program, and exits when it exits, with the same code or signal. Returns only if the program cannot be
    /// run.
    ///
    /// This process stays as the program's *keeper*: it passes on the requests of the pool, reports when the program is
    /// [ready](crate::Readiness), and stays until the last process of the program has ended. It confines itself,
    /// whatever the [sandbox](crate::Sandbox) is: it can start no process, change no file and listen nowhere. A logger
    /// should therefore open its files before.
    ///
    /// The program finds the worker's listening sockets open from descriptor 3 on: TCP first, then Unix sockets, each
    /// in the order of the addresses. They are non-blocking: during a restart, a program shares them with its
    /// replacement, which may accept a connection that both have seen. Sockets that were taken from the worker are
    /// missing. A program that does not know about them, and binds one of their TCP addresses itself, gets that socket
    /// as well ([`adopt`](crate::Builder::adopt)). Its environment is that of the command, with these variables
    /// (sd_listen_fds(3)):
    ///
    /// - `LISTEN_FDS`, the number of sockets; `LISTEN_PID`, its process id; `LISTEN_FDNAMES`, the port of each socket,
    ///   or `unix`, separated by colons;
    /// - `FORKPOOL_FD`, the descriptor of the first socket: 3; `FORKPOOL_WORKER_ID`, the slot; `FORKPOOL_UNIQUE_ID`, a
    ///   number unique to this worker in the pool's lifetime;
    /// - `NOTIFY_SOCKET`, for [`Readiness::Auto`](crate::Readiness::Auto) and
    ///   [`Readiness::Notify`](crate::Readiness::Notify).
    ///
    /// No signal is blocked, and each has the action with which the pool was started: ignored if it was ignored then
    /// (as SIGHUP by nohup(1)), else the default. SIGPIPE always has the default. The program leads its own process
    /// group. So a hang-up, Ctrl-C or a signal to the parent's group reaches the parent, which then restarts or stops
    /// its programs in turn. On a terminal the program is in the background: it is stopped if it reads from the
    /// terminal (SIGTTIN), or if it writes to it under `stty tostop` (SIGTTOU).
    ///
    /// A program that is replaced gets no new connections for a quarter of a second before it is asked to finish, as
    /// long as other workers serve and [`balance`](crate::Builder::balance) is not `hash`. Many programs close without
    /// an answer what they have accepted and not read from. In an upgrade the programs of the old pool do so one half
    /// after the other, while the new pool serves. In a pool with one worker, such a program may lose a connection:
    /// nothing can keep it from accepting, and its replacement has the same socket.
    ///
    /// The program is asked to finish by SIGTERM ([`stop_signal`](crate::Builder::stop_signal)), also when the parent
    /// dies, and to exit at once by SIGINT. The same signal goes to every process that it has started, whatever its
    /// group or session. Processes that remain at the end of the drain timeout are killed, and so are those that remain
    /// a second after the program has exited by itself. If this process is killed, so is the program, and the parent
    /// kills the processes that the program has started. Other signals to this process are passed on to the program,
    /// except SIGHUP, SIGUSR1, SIGUSR2, SIGTTIN and SIGTTOU: these are passed on only if the
    /// [application](crate::Handle) sends them.
    ///
    /// For this the parent becomes a subreaper (PR_SET_CHILD_SUBREAPER) with the first program. When a keeper was
    /// killed, a child of the parent that is no worker and has its own process group counts as a process of that
    /// program. Other processes that hooks start should therefore stay in the parent's group.
    ///
    /// The pool does not see what the program is doing: it detects no stalls and counts no connections, so
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
    /// Says why the program could not be executed: it does not exist, is not executable, or this worker has another
    /// thread. You may try another program then. The worker's listeners are gone.
    pub fn exec(&self, command: &mut Command) -> Error {
        match self.try_exec(command) {
            Ok(()) => sys::process::exit(0),
            Err(error) => error,
        }
    }

    /// Returns `Ok` if the worker should finish instead.
    fn try_exec(&self, command: &mut Command) -> Result<()> {
        if let Some(count) = sys::process::threads().filter(|count| *count > 1) {
            let source =
                io::Error::other(format!("the worker has {count} threads, and exec would change their descriptors"));
            return Err(Error::system("become a program", source));
        }
        if self.sandbox() != Sandbox::Off {
            set_no_new_privs().map_err(|errno| Error::system("give up new privileges with prctl(2)", errno))?;
        }
        let sockets = Sockets { tcp: self.take_listeners(), unix: self.take_unix_listeners() };
        sockets.describe(command).map_err(|source| Error::system("name a socket with getsockname(2)", source))?;
        // The service manager's variables are for the parent.
        for variable in ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"] {
            command.env_remove(variable);
        }
        if let Some(address) = &self.keeper_options().notify_socket {
            command.env("NOTIFY_SOCKET", address);
        }
        // A signal from here on stays pending for the keeper, so that none is lost.
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

/// The sockets of the program.
struct Sockets {
    tcp: Vec<TcpListener>,
    unix: Vec<UnixListener>,
}

impl Sockets {
    /// Describes the sockets to the program.
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
