//! What can go wrong before, while and after a pool runs.

use std::error::Error as StdError;
use std::{fmt, io};

/// A `Result` whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a pool could not start, or why it ended without being asked to.
///
/// `Display` says what was being done, and to what; [`source`](std::error::Error::source) is the system's reason, if
/// there is one. To show an error to people, print [`report`](Error::report), which also says what to do about it. The
/// wording is not part of the API.
///
/// ```
/// use std::process::ExitCode;
///
/// use forkpool::{Pool, Response};
///
/// fn main() -> ExitCode {
/// # if true { return ExitCode::SUCCESS; }
///     match Pool::bind(":8000").serve(|_request| Response::text("hello world\n")) {
///         Ok(()) => ExitCode::SUCCESS,
///         Err(error) => {
///             eprintln!("{}", error.report());
///             ExitCode::FAILURE
///         }
///     }
/// }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A setting is invalid, by itself or together with others.
    Config {
        /// The setting as the user wrote it: the name of a flag, a variable or a method.
        setting: String,
        /// What is wrong with it, and what is allowed.
        problem: String,
    },
    /// An address could not be reserved or listened on.
    Bind {
        /// The address as it was configured.
        address: String,
        /// The system's error.
        source: io::Error,
    },
    /// The process has more than one thread. A fork would copy only one of them, with the locks of the others still
    /// held.
    Threads {
        /// The number of threads.
        count: usize,
    },
    /// A file could not be read, written or executed, or a directory could not be opened.
    File {
        /// The path.
        path: String,
        /// The action that failed.
        action: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// A system call failed unexpectedly.
    System {
        /// The action that failed, with the name of the call.
        call: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// A slot's workers failed `give-up` times in a row without ever serving.
    GaveUp {
        /// The slot whose workers failed.
        worker: usize,
        /// The number of failures in a row.
        failures: u32,
        /// How the last one ended.
        reason: String,
    },
    /// A second request to stop, more than a second after the first, killed workers with requests in progress.
    Forced {
        /// The number of connections cut, as counted by the workers.
        connections: u64,
        /// The number of killed workers that do not count their connections: programs, and servers of your own.
        unknown: usize,
    },
    /// No worker ever became ready: all failed at their first start.
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

    /// Returns one line for people: the error, its causes and, if known, what to do about it.
    pub fn report(&self) -> String {
        report(self)
    }

    fn remedy(&self) -> &'static str {
        match self {
            Error::Bind { source, .. } => bind_remedy(source),
            _ => "",
        }
    }
}

/// Puts an error and its causes on one line, with what to do about it if that is known.
pub(crate) fn report(error: &(dyn StdError + 'static)) -> String {
    let mut line = error.to_string();
    let mut remedy = "";
    let mut next = Some(error);
    while let Some(error) = next {
        remedy = error.downcast_ref::<Error>().map_or(remedy, Error::remedy);
        next = error.source();
        // Some errors already print their cause.
        if let Some(cause) = next.map(ToString::to_string).filter(|cause| !line.ends_with(cause)) {
            line = format!("{line}: {cause}");
        }
    }
    line + remedy
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Config { setting, problem } => write!(f, "{setting}: {problem}"),
            Error::Bind { address, .. } => write!(f, "cannot listen on {address}"),
            Error::Threads { count } => write!(
                f,
                "cannot fork: the process has {count} threads; start the pool before anything that starts a thread"
            ),
            Error::File { path, action, .. } => write!(f, "cannot {action} {path}"),
            Error::System { call, .. } => write!(f, "cannot {call}"),
            Error::GaveUp { worker, failures, reason } => {
                write!(f, "gave up: worker={worker} failed {failures} times in a row (give-up); the last one {reason}")
            }
            Error::Forced { connections, unknown } => {
                f.write_str("forced to stop before the requests in progress were answered: ")?;
                let (workers, more) = match unknown {
                    1 => ("a killed worker".to_owned(), "one more killed worker".to_owned()),
                    _ => (format!("{unknown} killed workers"), format!("{unknown} more killed workers")),
                };
                match (connections, unknown) {
                    (connections, 0) => write!(f, "connections cut: {connections}"),
                    (0, _) => write!(f, "the number of connections of {workers} is not known"),
                    (connections, _) => {
                        write!(f, "connections cut: {connections}, and an unknown number of {more}")
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

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Error::Bind { source, .. } | Error::File { source, .. } | Error::System { source, .. } => Some(source),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_tells_one_level_and_its_report_all() {
        let source = io::Error::from_raw_os_error(libc::EADDRINUSE);
        let error = Error::Bind { address: "127.0.0.1:80".to_owned(), source };
        assert_eq!(error.to_string(), "cannot listen on 127.0.0.1:80");
        assert_eq!(
            error.report(),
            "cannot listen on 127.0.0.1:80: Address already in use (os error 98); another process holds it: stop that \
             one or choose another address"
        );
        // An error as it comes from a worker: boxed by a foreign error that prints its cause.
        let outer: Box<dyn StdError> = Box::new(io::Error::other(Error::config("workers", "must be 1 to 1024")));
        assert_eq!(report(&*outer), "workers: must be 1 to 1024");
        assert_eq!(Error::config("root", "is no directory").report(), "root: is no directory");
    }
}
