//! Requests to the parent: from a signal, the application, or a client of the admin process.

use std::fmt;

use log::LevelFilter;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Drain the workers, then stop.
    Drain(Asker),
    /// Stop now.
    Quick(Asker),
    /// Rolling restart.
    Restart,
    /// Change to this number of workers.
    Scale(usize),
    /// Add a worker.
    More,
    /// Remove a worker.
    Less,
    /// Start an upgrade.
    Upgrade,
    /// Reopen the access log.
    Reopen,
    /// One or more workers have exited.
    Reap,
    /// Tell the worker with this pid to finish, and replace it.
    Disconnect(i32),
    /// Set the level of the log.
    Log(LevelFilter),
}

/// Who made a request, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    Signal(&'static str),
    Application,
    AdminClient,
}

impl fmt::Display for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Asker::Signal(name) => name,
            Asker::Application => "requested by the application",
            Asker::AdminClient => "requested by an admin client",
        })
    }
}
