//! What an application may ask its pool to do, from the hooks in the parent.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use log::info;
use nix::sys::signal::Signal;
use nix::unistd::Pid as SystemPid;

use crate::parent::event::{Event, Exit, Process};
use crate::parent::process::Roster;
use crate::parent::supervisor::{Pid, PoolState, Respawn};
use crate::shared::message::MessageError;
use crate::shared::request::{Asker, Request};
use crate::shared::scoreboard::ParentBoard;
use crate::shared::state::WorkerState;
use crate::sys::clock;

pub use crate::parent::target::Target;

/// Controls the pool from a hook of [`Builder::on_event`](crate::Builder::on_event).
///
/// Messages and signals are sent at once. All other commands are carried out when the hook has returned.
#[derive(Debug)]
pub struct Handle<'a> {
    roster: &'a Roster,
    board: &'a ParentBoard,
    restart_aborted: Option<&'a str>,
    requests: RefCell<Vec<Request>>,
}

impl<'a> Handle<'a> {
    pub(super) fn new(roster: &'a Roster, board: &'a ParentBoard, restart_aborted: Option<&'a str>) -> Handle<'a> {
        Handle { roster, board, restart_aborted, requests: RefCell::default() }
    }

    pub(crate) fn into_requests(self) -> Vec<Request> {
        self.requests.into_inner()
    }

    /// Replaces every worker, as SIGHUP does: a few at a time, starting each replacement first. [`Event::RestartDone`]
    /// or [`Event::RestartAborted`] reports the result. During a restart, this extends it to every worker that runs
    /// now.
    pub fn restart(&self) {
        self.ask(Request::Restart);
    }

    /// Changes the number of workers, 1 to 1024. New ones start at once; surplus ones drain.
    pub fn scale(&self, workers: usize) {
        self.ask(Request::Scale(workers));
    }

    /// Starts the program again with all sockets of this pool, as SIGUSR2 does. When the new pool serves, this one
    /// drains and [`Builder::run`](crate::Builder::run) returns. [`Event::UpgradeDone`] or [`Event::UpgradeFailed`]
    /// reports the result.
    pub fn upgrade(&self) {
        self.ask(Request::Upgrade);
    }

    /// Drains the pool, as SIGTERM does. Requests to stop within a second of the first one, from here or by signals,
    /// count as the same request. A later one kills the workers.
    pub fn stop(&self) {
        self.ask(Request::Drain(Asker::Application));
    }

    /// Stops without draining, as SIGINT does.
    pub fn stop_now(&self) {
        self.ask(Request::Quick(Asker::Application));
    }

    /// Sends a message to a worker, which receives it by [`Worker::on_message`](crate::Worker::on_message) or
    /// [`Worker::messages`](crate::Worker::messages). Never blocks.
    ///
    /// Messages arrive in the order in which they were sent, and before the worker ends if it is told to finish later.
    ///
    /// # Errors
    ///
    /// [`MessageError::TooLarge`] beyond [`MESSAGE_MAX`](crate::MESSAGE_MAX), [`MessageError::Full`] while the worker
    /// has not read earlier messages, [`MessageError::Gone`] if there is no such worker.
    pub fn send(&self, target: impl Into<Target>, message: &[u8]) -> Result<(), MessageError> {
        self.send_to(target.into(), message, None)
    }

    /// As [`send`](Handle::send), with a copy of a file descriptor, such as a connection.
    ///
    /// # Errors
    ///
    /// As [`send`](Handle::send).
    pub fn send_with(&self, target: impl Into<Target>, message: &[u8], fd: impl AsFd) -> Result<(), MessageError> {
        self.send_to(target.into(), message, Some(fd.as_fd()))
    }

    /// Sends a message to every worker, except those that were told to finish. Returns the workers that did not get it,
    /// and why.
    #[must_use = "it names the workers that did not get the message"]
    pub fn broadcast(&self, message: &[u8]) -> Vec<(Process, MessageError)> {
        let processes = self.roster.supervisor.slots().staying().map(|pid| self.roster.identify(pid));
        processes.filter_map(|it| Some((it, self.send_to(Target::Process(it), message, None).err()?))).collect()
    }

    /// Sends a signal to a worker: 9 is `SIGKILL`; 15 is `SIGTERM`, which makes it drain. If the worker exits, that
    /// counts as a failure, and its slot gets a new worker.
    ///
    /// # Errors
    ///
    /// If there is no such worker, or no such signal (kill(2)).
    pub fn kill(&self, target: impl Into<Target>, signal: i32) -> io::Result<()> {
        let pid = self.roster.find(target.into());
        let pid = pid.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no such worker"))?;
        let signal = Signal::try_from(signal)?;
        info!("{} sent {signal}: requested by the application", self.roster.tag(pid));
        if let Some(process) = self.roster.get(pid) {
            process.signalled.set(Some(signal as i32));
            if signal == Signal::SIGKILL && process.ends.end_program() {
                return Ok(());
            }
        }
        Ok(nix::sys::signal::kill(SystemPid::from_raw(pid.0), signal)?)
    }

    /// Tells a worker to finish its connections. Its slot gets a new worker at once; to have fewer workers,
    /// [scale](Handle::scale). Does nothing if the worker has gone or was told before.
    pub fn disconnect(&self, target: impl Into<Target>) {
        if let Some(pid) = self.roster.find(target.into()) {
            self.ask(Request::Disconnect(pid.0));
        }
    }

    /// Returns the status of a worker, or `None` if it does not exist or no longer exists (Node's `isDead`). A worker
    /// that [was told to finish](WorkerState::is_leaving) counts as disconnected in Node's terms.
    pub fn worker(&self, target: impl Into<Target>) -> Option<WorkerStatus> {
        self.status_of(self.roster.find(target.into())?)
    }

    /// Returns the status of the pool.
    pub fn status(&self) -> Status {
        let supervisor = &self.roster.supervisor;
        let workers: Vec<_> = supervisor.slots().processes().filter_map(|(_, it)| self.status_of(it.pid?)).collect();
        let mut all = self.board.dead();
        for it in &workers {
            all.requests = all.requests.saturating_add(it.requests.unwrap_or(0));
            all.accepted = all.accepted.saturating_add(it.connections.unwrap_or(0));
        }
        Status {
            state: supervisor.state(),
            restart_aborted: self.restart_aborted.map(str::to_owned),
            wanted: supervisor.slots().wanted(),
            ready: supervisor.slots().ready_workers(),
            requests: all.requests,
            connections: all.accepted,
            workers,
        }
    }

    fn status_of(&self, pid: Pid) -> Option<WorkerStatus> {
        let (_, it) = self.roster.supervisor.slots().process(pid)?;
        let process = self.roster.get(pid)?;
        let counters = self.board.row(process.row).counters(clock::now());
        let is_known = process.ends.program.is_none();
        Some(WorkerStatus {
            process: self.roster.identify(pid),
            state: it.state(),
            requests: is_known.then_some(counters.requests),
            connections: is_known.then_some(counters.accepted),
            open: is_known.then(|| counters.open()),
        })
    }

    fn send_to(&self, target: Target, message: &[u8], fd: Option<BorrowedFd<'_>>) -> Result<(), MessageError> {
        let process = self.roster.find(target).and_then(|pid| self.roster.get(pid));
        process.and_then(|process| process.ends.messages.as_ref()).ok_or(MessageError::Gone)?.send(message, fd)
    }

    fn ask(&self, request: Request) {
        self.requests.borrow_mut().push(request);
    }
}

/// The status of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// The state of the pool.
    pub state: PoolState,
    /// The configured number of workers.
    pub wanted: usize,
    /// The number of slots whose worker serves.
    pub ready: usize,
    /// Every process, by slot and then by start.
    pub workers: Vec<WorkerStatus>,
    /// Why the latest rolling restart was aborted; `None` if it was not.
    pub restart_aborted: Option<String>,
    /// Requests passed to the handler, in living and dead workers. Those of programs are not counted.
    pub requests: u64,
    /// Connections accepted so far, in living and dead workers. Those of programs are not counted.
    pub connections: u64,
}

/// The status of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerStatus {
    /// The process.
    pub process: Process,
    /// The state of the worker.
    pub state: WorkerState,
    /// Requests passed to the handler; `None` if the worker runs a [program](crate::Worker::exec), as for what follows.
    pub requests: Option<u64>,
    /// Connections accepted.
    pub connections: Option<u64>,
    /// Connections open.
    pub open: Option<u64>,
}

/// The application's hooks in the parent.
#[derive(Debug, Default)]
pub(crate) struct Hooks {
    pub(crate) on_event: Option<Hook>,
    pub(crate) on_exit: Option<OnExit>,
}

/// The application's policy for exits that nobody asked for.
pub(crate) struct OnExit(pub(crate) Box<dyn FnMut(&Exit<'_>) -> Respawn>);

impl fmt::Debug for OnExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnExit")
    }
}

/// The application's closure.
pub(crate) struct Hook {
    call: Box<HookFn>,
    /// The interval at which it is called when nothing happens.
    tick: Option<Duration>,
}

type HookFn = dyn FnMut(&Event<'_>, &Handle<'_>);

impl Hook {
    pub(crate) fn new(hook: impl FnMut(&Event<'_>, &Handle<'_>) + 'static) -> Hook {
        Hook { call: Box::new(hook), tick: None }
    }

    pub(crate) fn ticking(self, tick: Option<Duration>) -> Hook {
        Hook { tick, ..self }
    }

    pub(crate) fn tick(&self) -> Option<Duration> {
        self.tick
    }

    pub(crate) fn call(&mut self, event: &Event<'_>, handle: &Handle<'_>) {
        (self.call)(event, handle);
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}
