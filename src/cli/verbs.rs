//! The verbs: what the binary can be asked for besides a pool of its own. Help, completions and the man page are made of
//! this table and of the settings.

use std::ffi::OsStr;
use std::time::Duration;

use lexopt::{Arg, Parser};

use super::operate::{Call, Task};
use super::{man, one_line, shell, text, unknown, Asked, Variables};

/// An option as it is spelled in the help, `-q, --quiet` or `--admin <ADDR>`, and what it does.
pub(super) type Spelled = (&'static str, &'static str);

/// One of the verbs.
#[derive(Debug)]
pub(super) struct Verb {
    pub(super) name: &'static str,
    /// What follows its options.
    pub(super) operand: &'static str,
    /// What it does, in one line.
    pub(super) summary: &'static str,
    /// The rest that there is to say.
    pub(super) about: &'static str,
    pub(super) options: &'static [Spelled],
    job: Job,
}

#[derive(Clone, Copy, Debug)]
enum Job {
    Exec,
    /// To talk to a pool that runs.
    Call(Task),
    Completions,
    Man,
}

pub(super) fn named(name: &OsStr) -> Option<&'static Verb> {
    VERBS.iter().find(|verb| name == verb.name)
}

impl Verb {
    pub(super) fn is_exec(&self) -> bool {
        matches!(self.job, Job::Exec)
    }

    /// Reads what follows the verb.
    ///
    /// # Errors
    ///
    /// One line that says what is wrong and what to do.
    pub(super) fn parse(&'static self, parser: &mut Parser, variables: Variables<'_>) -> Result<Asked, String> {
        let hint = format!(" (try forkpool {} --help)", self.name);
        let mut words = Words { said: Vec::new(), operand: None };
        while let Some(argument) = parser.next().map_err(|error| one_line(&error, &hint))? {
            match argument {
                Arg::Short('h') | Arg::Long("help") => return Ok(Asked::Text(text::help(Some(self)))),
                Arg::Long(name) => {
                    let Some((flag, takes_value)) = self.option(name) else {
                        let known = self.options.iter().filter_map(|(spelled, _)| long(spelled));
                        return Err(unknown("--", name, &mut known.into_iter(), &hint));
                    };
                    let value = match takes_value {
                        true => parser.value().map_err(|error| one_line(&error, &hint))?.to_string_lossy().into_owned(),
                        false => String::new(),
                    };
                    if words.option(flag).is_some() {
                        return Err(format!("--{flag} is given twice; leave one out{hint}"));
                    }
                    words.said.push((flag, value));
                }
                Arg::Value(word) if !self.operand.is_empty() && words.operand.is_none() => {
                    words.operand = Some(word.to_string_lossy().into_owned());
                }
                other => return Err(one_line(&other.unexpected(), &hint)),
            }
        }
        let needs = || format!("{} needs {}{hint}", self.name, self.operand);
        match self.job {
            Job::Call(task) => self.call(task, &words, variables).map(Asked::Call).map_err(|problem| problem + &hint),
            Job::Man => Ok(Asked::Text(man::page())),
            Job::Completions | Job::Exec => {
                let script = shell::completions(words.operand.as_deref().unwrap_or_default());
                script.map(Asked::Text).ok_or_else(needs)
            }
        }
    }

    fn call(&self, task: Task, words: &Words, variables: Variables<'_>) -> Result<Call, String> {
        let said = |flag: &str, variable: &str| {
            let read = || variables(variable).map(|value| value.to_string_lossy().into_owned());
            words.option(flag).map(str::to_owned).or_else(read).filter(|value| !value.is_empty())
        };
        let address = said("admin", "FORKPOOL_ADMIN")
            .ok_or("no pool is named: say --admin or FORKPOOL_ADMIN, as the pool was told")?;
        let workers = match (task, words.operand.as_deref()) {
            (Task::Scale, Some(workers)) => workers.parse().ok().filter(|workers| *workers > 0),
            _ => None,
        };
        if matches!(task, Task::Scale) && workers.is_none() {
            return Err("scale needs a number of workers, as in forkpool scale 4".to_owned());
        }
        let interval = match words.option("interval") {
            Some(text) => interval(text).map_err(|problem| format!("--interval {}: {problem}", text.escape_debug()))?,
            None => Duration::from_secs(1),
        };
        let (json, ready) = (words.option("json").is_some(), words.option("ready").is_some());
        if json && ready {
            return Err("--ready says one word and --json an object; leave one out".to_owned());
        }
        Ok(Call {
            task,
            address,
            token_file: said("token-file", "FORKPOOL_ADMIN_TOKEN_FILE"),
            json,
            ready,
            waits: words.option("no-wait").is_none(),
            interval,
            workers: workers.unwrap_or(0),
        })
    }

    /// The option of this name, and whether it takes a value.
    fn option(&self, name: &str) -> Option<(&'static str, bool)> {
        let mut options = self.options.iter().filter_map(|(spelled, _)| Some((long(spelled)?, spelled.ends_with('>'))));
        options.find(|(known, _)| *known == name)
    }
}

/// What the command line says behind the verb.
struct Words {
    said: Vec<(&'static str, String)>,
    operand: Option<String>,
}

impl Words {
    fn option(&self, name: &str) -> Option<&str> {
        self.said.iter().find(|(said, _)| *said == name).map(|(_, value)| value.as_str())
    }
}

/// The long name of an option as it is spelled.
pub(super) fn long(spelled: &str) -> Option<&str> {
    let (_, rest) = spelled.split_once("--")?;
    rest.split(' ').next()
}

/// How long `top` may wait between two looks.
fn interval(text: &str) -> Result<Duration, String> {
    let range = Duration::from_millis(100)..=Duration::from_secs(3600);
    match forkpool::duration(text)? {
        interval if range.contains(&interval) => Ok(interval),
        _ => Err("must be 100ms to 1h, as in 500ms or 2s".to_owned()),
    }
}

/// All of them, in the order of the help.
pub(super) const VERBS: &[Verb] = &[
    Verb {
        name: "exec",
        operand: "-- PROGRAM [ARGUMENTS]",
        summary: "Run any program as the worker",
        about: text::EXEC,
        options: text::PROGRAM,
        job: Job::Exec,
    },
    Verb {
        name: "status",
        operand: "",
        summary: "Show the pool and its workers",
        about: "\
Shows what a pool and each of its workers do, and what has happened last. Exits with 0 whenever the pool answers; with
--ready only when it should be given clients, as /readyz says: not while it starts, drains or has no worker that serves.
",
        options: &[
            ADMIN,
            ("--json", "Print an object for programs instead of a table"),
            ("--ready", "Only print whether the pool is ready, and exit with 1 unless it is: for health checks"),
            HELP,
        ],
        job: Job::Call(Task::Status),
    },
    Verb {
        name: "top",
        operand: "",
        summary: "Show the pool live, until q is pressed",
        about: "\
Shows the same as forkpool status again and again, with each worker's requests per second and share of a CPU since the
time before. Ends with q or Ctrl-C, and when the pool ends. Where the output is no terminal it is plain text.
",
        options: &[ADMIN, ("--interval <DURATION>", "How long to wait between two looks [default: 1s]"), HELP],
        job: Job::Call(Task::Top),
    },
    Verb {
        name: "restart",
        operand: "",
        summary: "Replace the workers one after the other, and wait until that is done",
        about: "\
Asks for a rolling restart, as SIGHUP does, and shows what happens until it is over. Exits with 0 when every worker has
been replaced, and with 4 when a replacement has failed, so that the others stay as they were.
",
        options: &[ADMIN, TOKEN, NO_WAIT, HELP],
        job: Job::Call(Task::Restart),
    },
    Verb {
        name: "scale",
        operand: "N",
        summary: "Have so many workers, and wait until they serve",
        about: "\
Changes how many workers the pool has, until it is started anew, and waits until so many serve. When one fails that
never served, it ends with exit code 4 and the reason; the pool goes on to try.
",
        options: &[ADMIN, TOKEN, NO_WAIT, HELP],
        job: Job::Call(Task::Scale),
    },
    Verb {
        name: "stop",
        operand: "",
        summary: "Drain the pool, and wait until it has ended",
        about: "Asks the pool to drain, as SIGTERM does, and shows what happens until it has ended.\n",
        options: &[ADMIN, TOKEN, NO_WAIT, HELP],
        job: Job::Call(Task::Stop),
    },
    Verb {
        name: "upgrade",
        operand: "",
        summary: "Start the program anew, and wait until the new one serves",
        about: "\
Has the pool start its program anew with every socket, as SIGUSR2 does. Exits with 0 when the new pool serves, and with
4 when it has failed, so that the old one goes on.
",
        options: &[ADMIN, TOKEN, NO_WAIT, HELP],
        job: Job::Call(Task::Upgrade),
    },
    Verb {
        name: "completions",
        operand: "bash|zsh|fish",
        summary: "Print what completes these words in a shell",
        about: "\
Examples:
  forkpool completions bash > /usr/share/bash-completion/completions/forkpool
  forkpool completions zsh > /usr/share/zsh/site-functions/_forkpool
  forkpool completions fish > ~/.config/fish/completions/forkpool.fish
",
        options: &[HELP],
        job: Job::Completions,
    },
    Verb {
        name: "man",
        operand: "",
        summary: "Print the man page",
        about: "\
Examples:
  forkpool man > /usr/share/man/man1/forkpool.1
",
        options: &[HELP],
        job: Job::Man,
    },
];

const ADMIN: Spelled = (
    "--admin <ADDR>",
    "Where the pool shows itself, as it was told with its own --admin: unix:PATH or HOST:PORT [FORKPOOL_ADMIN]",
);
const TOKEN: Spelled = (
    "--token-file <FILE>",
    "The pool's --admin-token-file, which commands need unless they go to a Unix socket [FORKPOOL_ADMIN_TOKEN_FILE]",
);
const NO_WAIT: Spelled = ("--no-wait", "Only ask for it, and do not wait for what becomes of it");
const HELP: Spelled = ("-h, --help", "Print this help");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals() {
        for (text, millis) in [
            ("1", Some(1000)),
            ("500ms", Some(500)),
            ("2m", Some(120_000)),
            ("1h", Some(3_600_000)),
            ("99ms", None),
            ("3601", None),
            ("0", None),
            ("-1s", None),
        ] {
            assert_eq!(interval(text).ok().map(|it| it.as_millis()), millis, "{text}");
        }
    }
}
