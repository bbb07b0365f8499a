//! PURE. The states of a worker, as the application and the admin process see them.
#![forbid(unsafe_code)]

use std::fmt;

/// The state of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WorkerState {
    /// Forked, and not ready yet.
    Starting,
    /// Serving.
    Ready,
    /// Ready, but stopped by a signal.
    Suspended,
    /// Finishing its connections.
    Draining,
    /// About to be killed.
    Ending,
}

impl WorkerState {
    /// Whether the worker was told to finish, or is about to be killed. The opposite of Node's `isConnected`.
    pub fn is_leaving(self) -> bool {
        matches!(self, WorkerState::Draining | WorkerState::Ending)
    }

    pub(crate) const ALL: [WorkerState; 5] =
        [WorkerState::Starting, WorkerState::Ready, WorkerState::Suspended, WorkerState::Draining, WorkerState::Ending];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            WorkerState::Starting => "starting",
            WorkerState::Ready => "ready",
            WorkerState::Suspended => "suspended",
            WorkerState::Draining => "draining",
            WorkerState::Ending => "ending",
        }
    }
}

/// The state as one word, such as `ready`.
impl fmt::Display for WorkerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why the worker of a slot was replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// It exited by itself.
    Exited,
    /// A signal from outside of the pool killed it.
    Killed,
    Stalled,
    /// It was never ready.
    Boot,
    /// It was replaced, by a rolling restart or because it asked to leave.
    Restart,
    /// It reached its own limits.
    Recycled,
}

impl Reason {
    pub(crate) const ALL: [Reason; 6] =
        [Reason::Exited, Reason::Killed, Reason::Stalled, Reason::Boot, Reason::Restart, Reason::Recycled];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Reason::Exited => "exited",
            Reason::Killed => "killed",
            Reason::Stalled => "stalled",
            Reason::Boot => "boot",
            Reason::Restart => "restart",
            Reason::Recycled => "recycled",
        }
    }
}
