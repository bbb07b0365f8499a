//! What an application may ask of its pool, from the parent's hooks.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use crate::parent::event::{Event, Exit, Process};
use crate::parent::supervisor::{PoolState, Respawn};
use crate::parent::Parent;
use crate::shared::message::MessageError;
use crate::shared::request::{Asker, Request};
use crate::shared::state::WorkerState;

/// The pool, as a hook of [`Builder::on_event`](crate::Builder::on_event) sees it.
///
/// Messages and signals are sent at once; what else is asked for is done when the hook has returned.
#[derive(Debug)]
pub struct Handle<'a> {
    parent: &'a Parent,
    requests: RefCell<Vec<Request>>,
}

/// Which worker: that of a slot, by its number, or exactly one process.
///
/// The worker of a slot is the process that serves it, or the one that is being started if none does; one that was told
/// to leave is not meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Target {
    /// The worker of that slot.
    Slot(usize),
    /// That process, also when it was told to leave.
    Process(Process),
}

impl From<usize> for Target {
    fn from(slot: usize) -> Target {
        Target::Slot(slot)
    }
}

impl From<Process> for Target {
    fn from(process: Process) -> Target {
        Target::Process(process)
    }
}

impl<'a> Handle<'a> {
    pub(crate) fn new(parent: &'a Parent) -> Handle<'a> {
        Handle { parent, requests: RefCell::default() }
    }

    pub(crate) fn into_requests(self) -> Vec<Request> {
        self.requests.into_inner()
    }

    /// Replaces every worker, as SIGHUP does: a few at a time, the replacement first. [`Event::RestartDone`] or
    /// [`Event::RestartAborted`] tells the result. Asked for while one runs, that one goes on until every worker that
    /// runs now is replaced.
    pub fn restart(&self) {
        self.ask(Request::Restart);
    }

    /// Has this many workers, 1 to 1024. More start at once; those too many drain.
    pub fn scale(&self, workers: usize) {
        self.ask(Request::Scale(workers));
    }

    /// Starts the program anew with every socket of this pool, as SIGUSR2 does; when the new pool serves, this one
    /// drains and [`Builder::run`](crate::Builder::run) returns. [`Event::UpgradeDone`] or [`Event::UpgradeFailed`]
    /// tells the result.
    pub fn upgrade(&self) {
        self.ask(Request::Upgrade);
    }

    /// Drains the pool, as SIGTERM does. What is asked within a second of the first time, here or by signals, is the same
    /// request; later, it kills the workers.
    pub fn stop(&self) {
        self.ask(Request::Drain(Asker::Application));
    }

    /// Stops without draining, as SIGINT does.
    pub fn stop_now(&self) {
        self.ask(Request::Quick(Asker::Application));
    }

    /// Sends a worker a message, which it gets by [`Worker::on_message`](crate::Worker::on_message) or
    /// [`Worker::messages`](crate::Worker::messages): in the order in which they were sent, and before it ends when it
    /// is told to finish later. It never waits.
    ///
    /// # Errors
    ///
    /// [`MessageError::TooLarge`] beyond [`MESSAGE_MAX`](crate::MESSAGE_MAX), [`MessageError::Full`] while the worker is
    /// behind with reading, [`MessageError::Gone`] when there is no such worker.
    pub fn send(&self, target: impl Into<Target>, message: &[u8]) -> Result<(), MessageError> {
        self.parent.send(target.into(), message, None)
    }

    /// As [`send`](Handle::send), with a copy of a file descriptor: a connection, for example.
    ///
    /// # Errors
    ///
    /// As [`send`](Handle::send).
    pub fn send_with(&self, target: impl Into<Target>, message: &[u8], fd: impl AsFd) -> Result<(), MessageError> {
        self.parent.send(target.into(), message, Some(fd.as_fd()))
    }

    /// Sends every worker a message, but for those that were told to leave. Returns those that did not get it, and why.
    #[must_use = "it names the workers that did not get the message"]
    pub fn broadcast(&self, message: &[u8]) -> Vec<(Process, MessageError)> {
        self.parent.broadcast(message)
    }

    /// Sends a worker a signal: `SIGKILL` is 9, `SIGTERM` 15, which has it drain. An exit of that is not one that was
    /// asked for; the slot's worker is replaced as after any other.
    ///
    /// # Errors
    ///
    /// When there is no such worker, or no such signal (kill(2)).
    pub fn kill(&self, target: impl Into<Target>, signal: i32) -> io::Result<()> {
        self.parent.kill_by_request(target.into(), signal)
    }

    /// Tells a worker to finish what it has. Its slot gets a new worker at once; to have fewer,
    /// [scale](Handle::scale). One that is gone or was told before is left alone.
    pub fn disconnect(&self, target: impl Into<Target>) {
        if let Some(pid) = self.parent.find(target.into()) {
            self.ask(Request::Disconnect(pid.0));
        }
    }

    /// How a worker is at the moment; `None` when there is none, or no longer: Node's `isDead`. One that is
    /// [told to leave](WorkerState::is_leaving) is no longer connected, in Node's word.
    pub fn worker(&self, target: impl Into<Target>) -> Option<WorkerStatus> {
        self.parent.worker_status(self.parent.find(target.into())?)
    }

    /// How the pool is at the moment.
    pub fn status(&self) -> Status {
        self.parent.status()
    }

    fn ask(&self, request: Request) {
        self.requests.borrow_mut().push(request);
    }
}

/// How a pool is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// What the pool is doing.
    pub state: PoolState,
    /// How many workers there should be.
    pub wanted: usize,
    /// How many slots have a worker that serves.
    pub ready: usize,
    /// Every process, by slot and then in the order of their start.
    pub workers: Vec<WorkerStatus>,
    /// Why the latest rolling restart was aborted; `None` after one that was not.
    pub restart_aborted: Option<String>,
    /// Requests that were ever given to the handler, by living and dead workers.
    pub requests: u64,
    /// Connections that were ever accepted.
    pub connections: u64,
}

/// How a worker is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerStatus {
    /// Which process.
    pub process: Process,
    /// What it is doing.
    pub state: WorkerState,
    /// Requests given to the handler.
    pub requests: u64,
    /// Connections accepted.
    pub connections: u64,
    /// Connections open.
    pub open: u64,
}

/// What the application wants to be asked and told, in the parent.
#[derive(Debug, Default)]
pub(crate) struct Hooks {
    pub(crate) on_event: Option<Hook>,
    pub(crate) on_exit: Option<OnExit>,
}

/// The application's policy for exits that nobody has asked for.
pub(crate) struct OnExit(pub(crate) Box<dyn FnMut(&Exit<'_>) -> Respawn>);

impl fmt::Debug for OnExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnExit")
    }
}

/// The application's closure.
pub(crate) struct Hook {
    call: Box<HookFn>,
    /// How often it is called though nothing happens.
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
