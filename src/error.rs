//! What can go wrong before, while and after a pool runs.

use std::{fmt, io};

/// A `Result` whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a pool could not start, or why it ended other than by being asked to.
///
/// Its text is one line that says what was being done, to what, why it failed and what to do about it; `Debug` prints
/// the same line, so that `fn main() -> forkpool::Result<()>` shows a readable one. The wording is not part of the
/// API.
#[non_exhaustive]
pub enum Error {
    /// A setting does not make sense, alone or together with others.
    Config {
        /// The setting as the user wrote it: a flag's name, a variable's or a method's.
        setting: String,
        /// What is wrong with it and what would be right.
        problem: String,
    },
    /// An address could not be reserved or listened on.
    Bind {
        /// The address as it was configured.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The process has more than one thread; a fork would copy only one of them, with the others' locks held.
    Threads {
        /// How many there are.
        count: usize,
    },
    /// A file the pool needs could not be written, or executed, or a directory that it is to serve not be opened.
    File {
        /// The path.
        path: String,
        /// What was being done to it.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A system call failed that has no reason to.
    System {
        /// What was being done, ending in the call's name.
        call: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// As many workers of a slot in a row as `give-up` allows have failed and never served.
    GaveUp {
        /// The slot whose workers failed.
        worker: usize,
        /// How many.
        failures: u32,
        /// How the last one ended.
        reason: String,
    },
    /// The pool was asked to stop, and again more than a second later: its workers were killed, with requests in
    /// progress.
    Forced {
        /// How many connections were cut, by what the workers have counted.
        connections: u64,
        /// How many of the killed workers do not count theirs: programs, and servers of one's own.
        unknown: usize,
    },
    /// No worker ever became ready: every one of them failed at its first start.
    Boot {
        /// How the last one ended.
        reason: String,
    },
}

impl Error {
    pub(crate) fn config(setting: impl Into<String>, problem: impl Into<String>) -> Error {
        Error::Config { setting: setting.into(), problem: problem.into() }
    }

    pub(crate) fn system(call: &'static str, source: impl Into<io::Error>) -> Error {
        Error::System { call, source: source.into() }
    }

    /// Whether the caller's configuration is to blame, and not the system: the binary exits with 2 and not with 1.
    pub fn is_usage(&self) -> bool {
        matches!(self, Error::Config { .. })
    }

    /// The exit code that the binary gives it: 2 for usage, 3 when the pool gave up, 5 when a forced stop has cut requests,
    /// else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Config { .. } => 2,
            Error::GaveUp { .. } => 3,
            Error::Forced { .. } => 5,
            _ => 1,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Config { setting, problem } => write!(f, "{setting}: {problem}"),
            Error::Bind { address, source } => write!(f, "cannot listen on {address}: {source}{}", bind_remedy(source)),
            Error::Threads { count } => write!(
                f,
                "cannot fork: the process has {count} threads; start the pool before anything that starts a thread"
            ),
            Error::File { path, action, source } => write!(f, "cannot {action} {path}: {source}"),
            Error::System { call, source } => write!(f, "cannot {call}: {source}"),
            Error::GaveUp { worker, failures, reason } => {
                write!(f, "gave up: worker={worker} failed {failures} times in a row (give-up), at last: {reason}")
            }
            Error::Forced { connections, unknown } => {
                f.write_str("forced to stop before the requests in progress were answered: ")?;
                let (workers, more) = match unknown {
                    1 => ("a killed worker".to_owned(), "one more killed worker".to_owned()),
                    _ => (format!("{unknown} killed workers"), format!("{unknown} more killed workers")),
                };
                match (connections, unknown) {
                    (connections, 0) => write!(f, "connections cut: {connections}"),
                    (0, _) => write!(f, "what {workers} had open is not known"),
                    (connections, _) => {
                        write!(f, "connections cut: {connections}, and what {more} had open, which is not known")
                    }
                }
            }
            Error::Boot { reason } => write!(f, "no worker could start: {reason}"),
        }
    }
}

fn bind_remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::AddrInUse => "; another process holds it: stop that one or choose another address",
        io::ErrorKind::PermissionDenied => {
            "; a port below 1024 needs root or CAP_NET_BIND_SERVICE, a Unix socket a writable directory"
        }
        io::ErrorKind::AddrNotAvailable => "; no network interface of this machine has that address",
        _ => "",
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// No `source()`: the cause is part of the line, and a printed chain would say it twice. It is in the variants' fields.
impl std::error::Error for Error {}
