//! `forkpool exec`: runs any program as the worker.

use std::ffi::OsString;
use std::process::Command;
use std::time::Duration;

use forkpool::{Balance, Builder, Error, Readiness, Worker};

pub(super) const HINT: &str = " (try forkpool exec --help)";

/// The program and its arguments.
#[derive(Debug)]
pub(crate) struct Program {
    pub(super) name: OsString,
    pub(super) arguments: Vec<OsString>,
    pub(super) readiness: Readiness,
    pub(super) prefix: bool,
}

impl Program {
    /// Runs in the worker; returns only on failure.
    pub(crate) fn execute(&self, worker: &Worker) -> Error {
        worker.exec(Command::new(&self.name).args(&self.arguments))
    }

    /// Configures the pool to run this program.
    ///
    /// # Errors
    ///
    /// If the settings are invalid, or do not apply to a program.
    pub(crate) fn configure(&self, pool: Builder) -> Result<Builder, Error> {
        let pool = pool.readiness(self.readiness).prefix_output(self.prefix);
        match pool.get(BALANCE)? {
            Some(value) if is_counting(&value) => {
                Err(Error::Config { setting: format!("{BALANCE}={value}"), problem: UNCOUNTED.to_owned() })
            }
            _ => Ok(pool),
        }
    }
}

pub(super) const BALANCE: &str = "balance";
pub(super) const UNCOUNTED: &str = "a program's connections cannot be counted; choose random, hash, cpu or client";

/// Whether a way to balance depends on the number of connections of each worker.
pub(super) fn is_counting(balance: &str) -> bool {
    matches!(balance, "auto" | "least-connections")
}

/// Changes the defaults that differ for a program.
pub(super) fn prepare(pool: Builder) -> Builder {
    pool.balance(Balance::Random)
}

/// Reads `auto`, `listen`, `notify` or `delay:DURATION`.
pub(super) fn readiness(said: &str, value: &str) -> Result<Readiness, String> {
    let delay = || {
        let delay = value.strip_prefix("delay:")?;
        // A bare number has always meant milliseconds here, unlike elsewhere.
        let millis = delay.parse().map(Duration::from_millis);
        millis.or_else(|_| forkpool::duration(delay)).ok().filter(|delay| *delay <= DAY)
    };
    match value {
        "auto" => Ok(Readiness::Auto),
        "listen" => Ok(Readiness::Listen),
        "notify" => Ok(Readiness::Notify),
        _ => delay().map(Readiness::Delay).ok_or_else(|| {
            format!(
                "{said}{}: must be auto, listen, notify or delay:DURATION, as in delay:500ms{HINT}",
                value.escape_debug()
            )
        }),
    }
}

/// The longest delay, as for all times.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
