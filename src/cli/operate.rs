//! The verbs that show and control a running pool through its admin process.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use super::client::{Client, Failure};
use super::output::print;
use super::table::Sort;
use super::top;

/// Exit code of a restart that was aborted, of an upgrade that failed, and of scaling whose new workers fail. The pool
/// goes on.
const ABORTED: u8 = 4;

/// What to do with the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    Status,
    Top,
    Restart,
    Scale,
    Stop,
    Upgrade,
}

/// A task and its options.
#[derive(Debug)]
pub(crate) struct Call {
    pub(super) task: Task,
    /// The admin address: `unix:PATH` or `HOST:PORT`.
    pub(super) address: String,
    pub(super) token_file: Option<String>,
    pub(super) json: bool,
    /// Report only whether the pool is ready.
    pub(super) ready: bool,
    /// Whether to wait for the outcome.
    pub(super) waits: bool,
    pub(super) interval: Duration,
    pub(super) sort: Sort,
    pub(super) workers: u64,
}

impl Call {
    /// Carries out the task, and returns the exit code.
    ///
    /// # Errors
    ///
    /// One line that says what went wrong.
    pub(crate) fn run(self) -> Result<u8, String> {
        let client = Client { token: self.token()?, address: self.address.clone() };
        let done = match self.task {
            Task::Status if self.ready => client.fetch("GET", "/readyz").map(|(status, why)| {
                print(&why);
                u8::from(status != 200)
            }),
            Task::Status => client.ask("GET", if self.json { "/status.json" } else { "/status.txt" }).map(|status| {
                print(status.trim_end());
                print("\n");
                0
            }),
            Task::Top => return top::run(&client, self.interval, self.sort),
            Task::Restart | Task::Scale | Task::Stop | Task::Upgrade => self.command(&client),
        };
        done.map_err(Failure::text)
    }

    /// Reads the token, which only commands over TCP need.
    fn token(&self) -> Result<Option<String>, String> {
        let needs = !matches!(self.task, Task::Status | Task::Top) && !self.address.starts_with("unix:");
        let Some(path) = self.token_file.as_ref().filter(|_| needs) else { return Ok(None) };
        let token = fs::read_to_string(path).map_err(|error| format!("cannot read the token in {path}: {error}"))?;
        match token.trim() {
            token if !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Ok(Some(token.to_owned()))
            }
            _ => Err(format!("{path} must hold one word: the token of the pool")),
        }
    }

    fn command(&self, client: &Client) -> Result<u8, Failure> {
        let target = match self.task {
            Task::Restart => "/restart".to_owned(),
            Task::Stop => "/stop".to_owned(),
            Task::Upgrade => "/upgrade".to_owned(),
            _ => format!("/scale?workers={}", self.workers),
        };
        let pid = |status: &Value| status["pool"]["pid"].as_u64();
        let before = pid(&client.status()?);
        let accepted = client.object("POST", &target)?;
        if !self.waits {
            return Ok(0);
        }
        let seq = accepted["after"].as_u64().unwrap_or(0);
        // What is said before is about another restart.
        let mut has_begun = self.task != Task::Restart;
        let found = client.follow(seq, &mut |event| {
            if let Some(text) = event {
                has_begun |= begins_restart(text);
                if !has_begun {
                    return None;
                }
                print(&format!("{text}\n"));
                return self.outcome(text);
            }
            // No event says that all workers serve, and the old pool may end before it can report an upgrade.
            let asks = matches!(self.task, Task::Scale | Task::Upgrade);
            let status = asks.then(|| client.status().ok())??;
            let serves = |name| status["pool"][name].as_u64() == Some(self.workers);
            if self.task == Task::Scale {
                return (serves("wanted") && serves("serving")).then_some(0);
            }
            let new = pid(&status).filter(|pid| Some(*pid) != before)?;
            print(&format!("upgrade done: pid={new} serves\n"));
            Some(0)
        })?;
        match (found, self.task) {
            (Some(code), _) => Ok(code),
            (None, Task::Stop) => Ok(0),
            (None, _) => Err(Failure::Gone(format!("the pool at {} has ended", client.address))),
        }
    }

    /// Returns the exit code if this event is the outcome of the command.
    fn outcome(&self, event: &str) -> Option<u8> {
        let (done, aborted) = match self.task {
            Task::Restart => ("rolling restart done", "rolling restart aborted"),
            Task::Upgrade => ("upgrade done", "upgrade failed"),
            // Another client may have asked for a different number meanwhile.
            Task::Scale if event.starts_with("scaled from") => {
                return (!event.ends_with(&format!(" to {} workers", self.workers))).then_some(ABORTED);
            }
            // Success is not announced.
            Task::Scale => ("", "scaling failed"),
            _ => return None,
        };
        match event {
            _ if !done.is_empty() && event.starts_with(done) => Some(0),
            _ if event.starts_with(aborted) => Some(ABORTED),
            _ if event.starts_with("refused") => Some(1),
            _ => None,
        }
    }
}

/// Whether a requested restart has begun or was refused.
fn begins_restart(event: &str) -> bool {
    let signs = [
        "changed, but a restart cannot apply it",
        "rolling restart begun",
        "rolling restart extended",
        "rolling restart aborted, no worker is replaced",
        "refused",
    ];
    signs.iter().any(|sign| event.starts_with(sign))
}
