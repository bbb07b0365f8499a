//! `forkpool exec`: runs any program as the worker.

use std::ffi::OsString;
use std::process::Command;

use forkpool::{Balance, Builder, Error, Worker};

pub(super) const HINT: &str = " (try forkpool exec --help)";

/// The program and its arguments.
#[derive(Debug)]
pub(crate) struct Program {
    pub(super) name: OsString,
    pub(super) arguments: Vec<OsString>,
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
    /// If the settings are invalid, or do not apply to a program, or there is no such program.
    pub(crate) fn configure(&self, pool: Builder) -> Result<Builder, Error> {
        if pool.get("tls-listen")?.is_some() {
            let problem = "forkpool's own server speaks TLS, not a program; unset FORKPOOL_TLS_LISTEN".to_owned();
            return Err(Error::Config { setting: "tls-listen".to_owned(), problem });
        }
        match pool.get(BALANCE)? {
            Some(value) if is_counting(&value) => {
                Err(Error::Config { setting: format!("{BALANCE}={value}"), problem: UNCOUNTED.to_owned() })
            }
            _ => pool.find_program(&self.name).map(|_| pool),
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
    pool.balance(Balance::Random).programs_only()
}
