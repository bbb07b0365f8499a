//! What an application may ask of its pool, from the parent's hooks.

use std::cell::RefCell;
use std::fmt;

use crate::event::{Event, Process};
use crate::parent::Parent;
use crate::supervisor::PoolState;

/// The pool, as a hook of [`Builder::on_event`](crate::Builder::on_event) sees it.
///
/// What is asked for is done when the hook has returned.
#[derive(Debug)]
pub struct Handle<'a> {
    parent: &'a Parent,
    commands: RefCell<Vec<Command>>,
}

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Restart,
    Scale(usize),
    Upgrade,
    Stop,
    StopNow,
}

impl<'a> Handle<'a> {
    pub(crate) fn new(parent: &'a Parent) -> Handle<'a> {
        Handle { parent, commands: RefCell::default() }
    }

    pub(crate) fn into_commands(self) -> Vec<Command> {
        self.commands.into_inner()
    }

    /// Replaces every worker, as SIGHUP does: a few at a time, the replacement first. [`Event::RestartDone`] or
    /// [`Event::RestartAborted`] tells the result. Asked for while one runs, that one goes on until every worker that
    /// runs now is replaced.
    pub fn restart(&self) {
        self.ask(Command::Restart);
    }

    /// Has this many workers, 1 to 1024. More start at once; those too many drain.
    pub fn scale(&self, workers: usize) {
        self.ask(Command::Scale(workers));
    }

    /// Starts the program anew with every socket of this pool, as SIGUSR2 does; when the new pool serves, this one
    /// drains and [`Builder::run`](crate::Builder::run) returns. [`Event::UpgradeDone`] or [`Event::UpgradeFailed`]
    /// tells the result.
    pub fn upgrade(&self) {
        self.ask(Command::Upgrade);
    }

    /// Drains the pool, as SIGTERM does. Asked for a second time, kills the workers.
    pub fn stop(&self) {
        self.ask(Command::Stop);
    }

    /// Stops without draining, as SIGINT does.
    pub fn stop_now(&self) {
        self.ask(Command::StopNow);
    }

    /// How the pool is at the moment.
    pub fn status(&self) -> Status {
        self.parent.status()
    }

    fn ask(&self, command: Command) {
        self.commands.borrow_mut().push(command);
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

/// What a worker is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WorkerState {
    /// Forked, and not ready yet.
    Starting,
    /// It serves.
    Ready,
    /// It is ready, and a signal has stopped it.
    Suspended,
    /// It finishes what it has.
    Draining,
    /// It is being ended.
    Ending,
}

/// The application's closure.
pub(crate) struct Hook(Box<HookFn>);

type HookFn = dyn FnMut(&Event<'_>, &Handle<'_>);

impl Hook {
    pub(crate) fn new(hook: impl FnMut(&Event<'_>, &Handle<'_>) + 'static) -> Hook {
        Hook(Box::new(hook))
    }

    pub(crate) fn call(&mut self, event: &Event<'_>, handle: &Handle<'_>) {
        (self.0)(event, handle);
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}
