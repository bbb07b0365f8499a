//! What the parent is asked for: by a signal, by the application, or by a client of the admin process.

use std::fmt;

use log::LevelFilter;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Let the workers finish, then stop.
    Drain(Asker),
    /// Stop now.
    Quick(Asker),
    /// Rolling restart.
    Restart,
    /// Have this many workers.
    Scale(usize),
    /// One worker more.
    More,
    /// One worker less.
    Less,
    /// Have a new binary take over.
    Upgrade,
    /// Reopen the access log.
    Reopen,
    /// Some workers, one or many, have exited.
    Reap,
    /// Tell the worker of this pid to finish; its slot gets another one.
    Disconnect(i32),
    /// Say no less in the log than this.
    Log(LevelFilter),
}

/// Who asks, as the log has it.
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
