//! `forkpool exec`: any program as the worker.

use std::ffi::OsString;
use std::process::Command;
use std::time::Duration;

use forkpool::{Balance, Builder, Error, Readiness, Worker};

use super::{on, read, Flags, Variables};

pub(super) const HINT: &str = " (try forkpool exec --help)";

/// What each worker executes.
#[derive(Debug)]
pub(crate) struct Program {
    name: OsString,
    arguments: Vec<OsString>,
    readiness: Readiness,
    prefix: bool,
}

impl Program {
    /// Runs in the worker; returns only when it fails.
    pub(crate) fn execute(&self, worker: &Worker) -> Error {
        worker.exec(Command::new(&self.name).args(&self.arguments))
    }

    /// The pool whose workers execute it.
    ///
    /// # Errors
    ///
    /// When the pool makes no sense, or not for a program.
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

impl Flags {
    /// The program, once the command line has been read; before that everything about it is in pieces.
    pub(super) fn take_program(&mut self, variables: Variables<'_>) -> Result<Program, String> {
        let readiness = match &self.ready {
            Some(value) => parse("--ready ", &value.to_string_lossy())?,
            None => read("ready", variables)
                .map_or(Ok(Readiness::default()), |(variable, value)| parse(&format!("{variable}="), &value))?,
        };
        self.refuse_to_count(variables)?;
        self.refuse_the_servers_own()?;
        let mut words = std::mem::take(&mut self.program).into_iter();
        let name = words.next().filter(|name| !name.is_empty());
        let name = name.ok_or(format!("exec needs a program, as in forkpool exec -- node app.js{HINT}"))?;
        let prefix = self.prefix || on("prefix", variables)?.unwrap_or(false);
        Ok(Program { name, arguments: words.collect(), readiness, prefix })
    }

    /// A flag that a program cannot heed is a mistake. A variable is not: it may be there for other pools, too.
    fn refuse_the_servers_own(&self) -> Result<(), String> {
        let mut settings = self.settings.iter().map(|(setting, _)| setting);
        match settings.find(|setting| !setting.concerns_programs()).map(|setting| setting.name()) {
            None => Ok(()),
            Some("root") => Err(format!("--root serves files and exec a program; leave one out{HINT}")),
            Some("access-log") => {
                Err(format!("--access-log logs what forkpool itself answers, not a program; leave it out{HINT}"))
            }
            Some(name) => Err(format!("--{name} is for forkpool's own server, not for a program; leave it out{HINT}")),
        }
    }

    /// How many connections a program has is not known, and a new one would be given all of them until it had as many as
    /// the others ever had.
    fn refuse_to_count(&self, variables: Variables<'_>) -> Result<(), String> {
        let flag = self.settings.iter().find(|(setting, _)| setting.name() == BALANCE);
        let said = flag.map(|(_, value)| (format!("--{BALANCE} "), value.clone()));
        let said = said.or_else(|| read(BALANCE, variables).map(|(variable, value)| (format!("{variable}="), value)));
        match said {
            Some((said, value)) if is_counting(&value) => Err(format!("{said}{value}: {UNCOUNTED}{HINT}")),
            _ => Ok(()),
        }
    }
}

const BALANCE: &str = "balance";
const UNCOUNTED: &str = "a program's connections cannot be counted; choose random, hash, cpu or client";

/// Whether it goes by the connections that each worker has.
fn is_counting(balance: &str) -> bool {
    matches!(balance, "auto" | "least-connections")
}

/// What is different for a program, unless somebody says otherwise.
pub(super) fn prepare(pool: Builder) -> Builder {
    pool.balance(Balance::Random)
}

/// Reads `listen`, `notify` or `delay:DURATION`.
fn parse(said: &str, value: &str) -> Result<Readiness, String> {
    let delay = || {
        let delay = value.strip_prefix("delay:")?;
        // A bare number has always meant milliseconds here, unlike elsewhere.
        let millis = delay.parse().map(Duration::from_millis);
        millis.or_else(|_| forkpool::duration(delay)).ok().filter(|delay| *delay <= DAY)
    };
    match value {
        "listen" => Ok(Readiness::Listen),
        "notify" => Ok(Readiness::Notify),
        _ => delay().map(Readiness::Delay).ok_or_else(|| {
            format!("{said}{}: must be listen, notify or delay:DURATION, as in delay:500ms{HINT}", value.escape_debug())
        }),
    }
}

/// The longest delay, as for every time.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
