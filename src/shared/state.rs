//! PURE. What a worker may be doing, as the parent says it to the application and to the admin process.
#![forbid(unsafe_code)]

use std::fmt;

/// What a worker is doing.
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
    /// About to be ended.
    Ending,
}

impl WorkerState {
    /// Whether the worker was told to finish, or is about to be ended. Node's `isConnected` is the opposite.
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

/// In a word, as the status has it: `ready`.
impl fmt::Display for WorkerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why a slot's worker was started anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// It exited by itself.
    Exited,
    /// Somebody else's signal has killed it.
    Killed,
    Stalled,
    /// It was never ready.
    Boot,
    /// It was replaced, by a rolling restart or because it was asked to leave.
    Restart,
    /// It had reached its own limits.
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
