//! The events of a pool, which its parent reports to the application.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

/// An event of a worker or of the pool, reported to [`Builder::on_event`](crate::Builder::on_event).
///
/// The events of a worker come in the order of its life: `Forked`, `Online`, `Listening`, `Ready`, `Disconnected`,
/// `Exited`. After any of the first four, the last two may follow at once. A message comes after everything that the
/// worker had done before it sent the message.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A process was forked for a slot.
    Forked(Process),
    /// The process has dropped the parent's state and is about to run the application's code.
    Online(Process),
    /// The process has its listening sockets, so connections can wait for it. Node's `listening`.
    #[non_exhaustive]
    Listening {
        /// The process.
        process: Process,
        /// The TCP addresses of its own sockets, with their real ports; empty if all workers share their sockets.
        addresses: &'a [SocketAddr],
        /// The addresses of its own UDP sockets, with their real ports.
        udp: &'a [SocketAddr],
    },
    /// The worker serves.
    Ready(Process),
    /// The worker has sent a message; see [`Worker::send`](crate::Worker::send).
    #[non_exhaustive]
    Message {
        /// The process.
        process: Process,
        /// The content.
        message: &'a [u8],
        /// The file descriptor that came with it ([`Worker::send_with`](crate::Worker::send_with)). It is closed when
        /// the hook returns; to keep it, call `try_clone_to_owned`.
        fd: Option<BorrowedFd<'a>>,
    },
    /// The worker has been busy with one request for the stall timeout and is about to be killed.
    Stalled(Process),
    /// The worker was told to finish, is about to be killed, or has exited by itself. Reported once per process, before
    /// `Exited`, whatever the reason. Node's `disconnect`.
    Disconnected(Process),
    /// The process has exited and was reaped.
    Exited(Exit<'a>),
    /// The slot's worker has failed several times in a row, and is started again after a delay.
    #[non_exhaustive]
    BackingOff {
        /// The slot.
        worker: usize,
        /// The delay.
        delay: Duration,
        /// The number of failures in a row.
        failures: u32,
    },
    /// A slot's worker has failed as many times in a row as [`Builder::give_up`](crate::Builder::give_up) allows. The
    /// pool is about to drain, and [`Builder::run`](crate::Builder::run) will return
    /// [`Error::GaveUp`](crate::Error::GaveUp).
    #[non_exhaustive]
    GaveUp {
        /// The slot.
        worker: usize,
        /// The number of failures in a row.
        failures: u32,
        /// The latest failure.
        reason: &'a str,
    },
    /// Every slot has a ready worker for the first time, or was left empty ([`Respawn::Never`](crate::Respawn::Never)).
    Serving,
    /// A rolling restart has begun.
    RestartBegun,
    /// A rolling restart has replaced every worker.
    RestartDone,
    /// A replacement failed before it was ready. The workers that were not replaced yet stay.
    #[non_exhaustive]
    RestartAborted {
        /// The slot whose replacement failed.
        worker: usize,
        /// How it failed.
        reason: &'a str,
    },
    /// A rolling restart was requested but did not begin, because of an error in what it reads again
    /// ([`Builder::env_file`](crate::Builder::env_file)). Nothing has changed.
    #[non_exhaustive]
    RestartRefused {
        /// The error.
        reason: &'a str,
    },
    /// The number of workers was changed.
    #[non_exhaustive]
    Scaled {
        /// The old number.
        from: usize,
        /// The new number.
        to: usize,
    },
    /// A new binary serves, and this pool drains.
    #[non_exhaustive]
    UpgradeDone {
        /// The process id of the new parent.
        pid: u32,
    },
    /// An upgrade failed. This pool goes on.
    #[non_exhaustive]
    UpgradeFailed {
        /// The reason.
        reason: &'a str,
    },
    /// The pool begins to drain or to stop.
    Stopping,
    /// The interval of [`Builder::tick`](crate::Builder::tick) has passed.
    Tick,
}

/// How a process ended, for [`Event::Exited`] and [`Builder::on_exit`](crate::Builder::on_exit).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exit<'a> {
    /// The process.
    pub process: Process,
    /// The exit status; `None` if it is unknown, because other code in this process has reaped the worker (waitpid(2)).
    pub status: Option<ExitStatus>,
    /// Whether it was ready and had not been told to finish.
    pub was_ready: bool,
    /// Whether it had been told to finish, so that its exit is no failure. Node's `exitedAfterDisconnect`. `false` if
    /// the pool killed it because it stalled or was not ready in time.
    pub was_requested: bool,
    /// The error that the application's code returned, or the message of its panic.
    pub reason: Option<&'a str>,
}

impl Exit<'_> {
    /// The exit code; `None` if a signal killed the process, or its status is unknown.
    pub fn code(&self) -> Option<i32> {
        self.status?.code()
    }

    /// The signal that killed the process, if one did.
    pub fn signal(&self) -> Option<i32> {
        self.status?.signal()
    }
}

/// A process of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct Process {
    /// The slot; see [`Worker::id`](crate::Worker::id).
    pub worker: usize,
    /// How many times the slot has been started.
    pub generation: u64,
    /// Its process id.
    pub pid: u32,
    /// A number from 1 that is unique in the pool's lifetime; see [`Worker::unique_id`](crate::Worker::unique_id).
    pub unique_id: u64,
}

/// Formats the process as the log names it: `worker=0 gen=1 pid=4242`.
impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker={} gen={} pid={}", self.worker, self.generation, self.pid)
    }
}
