//! The table of verbs: what the binary does besides running a pool. Help, completions and man page are made from this
//! table and from the settings.

use std::ffi::OsStr;

use super::operate::Task;

/// An option as the help spells it, such as `-q, --quiet` or `--admin <ADDR>`, and what it does.
pub(super) type OptionHelp = (&'static str, &'static str);

/// A verb.
#[derive(Debug)]
pub(super) struct Verb {
    pub(super) name: &'static str,
    /// What follows its options.
    pub(super) operand: &'static str,
    /// What it does, in one line.
    pub(super) summary: &'static str,
    /// The rest of its description.
    pub(super) about: &'static str,
    pub(super) options: &'static [OptionHelp],
    pub(super) job: Job,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Job {
    Exec,
    /// Talk to a running pool.
    Call(Task),
    Completions,
    Man,
    Help,
    Version,
}

pub(super) fn named(name: &OsStr) -> Option<&'static Verb> {
    VERBS.iter().find(|verb| name == verb.name)
}

impl Verb {
    pub(super) fn is_exec(&self) -> bool {
        matches!(self.job, Job::Exec)
    }

    /// The words that can follow it; none if any can.
    pub(super) fn operands(&self) -> Vec<&'static str> {
        match self.job {
            Job::Help => VERBS.iter().map(|verb| verb.name).collect(),
            _ if self.operand.contains('|') => self.operand.split('|').collect(),
            _ => Vec::new(),
        }
    }

    /// Looks an option up by name; returns its long name and whether it takes a value.
    pub(super) fn option(&self, name: &str) -> Option<(&'static str, bool)> {
        let mut options = self.options.iter().filter_map(|(spelled, _)| Some((long(spelled)?, spelled.ends_with('>'))));
        options.find(|(known, _)| *known == name)
    }
}

/// The long name of an option.
pub(super) fn long(spelled: &str) -> Option<&str> {
    let (_, rest) = spelled.split_once("--")?;
    rest.split(' ').next()
}

/// All verbs, in the order of the help.
pub(super) const VERBS: &[Verb] = &[
    Verb {
        name: "exec",
        operand: "-- PROGRAM [ARGUMENTS]",
        summary: "Run any program as the worker",
        about: EXEC,
        options: &[],
        job: Job::Exec,
    },
    Verb {
        name: "status",
        operand: "",
        summary: "Show the pool and its workers",
        about: "\
Shows the state of a pool and of each of its workers, and the latest events. Exits with 0 whenever the pool answers.
With --ready it exits with 0 only if the pool is ready for clients, as /readyz does: not while it starts or drains, nor
while no worker serves.
",
        options: &[
            ADMIN,
            ("--json", "Print JSON instead of a table"),
            ("--ready", "Only print whether the pool is ready, and exit with 1 if it is not: for health checks"),
            HELP,
        ],
        job: Job::Call(Task::Status),
    },
    Verb {
        name: "top",
        operand: "",
        summary: "Show the pool live, until q is pressed",
        about: "\
Shows the status of a pool and refreshes it, with the requests per second and the CPU usage of each worker. The last
line says which keys sort the workers. Ends on q or Ctrl-C, and when the pool ends. If the output is not a terminal, it
is plain text.
",
        options: &[
            ADMIN,
            ("--interval <DURATION>", "Time between two refreshes [default: 1s]"),
            (
                "--sort <worker|requests|cpu|open|p99|memory>",
                "What to sort the workers by, the highest first; requests means those per second [default: worker]",
            ),
            HELP,
        ],
        job: Job::Call(Task::Top),
    },
    Verb {
        name: "restart",
        operand: "",
        summary: "Replace the workers one after the other, and wait for the result",
        about: "\
Starts a rolling restart, as SIGHUP does, and prints events until it has ended. Exits with 0 when every worker has been
replaced, and with 4 if a replacement fails; the remaining workers then stay.
",
        options: &[ADMIN, TOKEN, NO_WAIT, HELP],
        job: Job::Call(Task::Restart),
    },
    Verb {
        name: "reload",
        operand: "",
        summary: "The same as restart",
        about: "Starts a rolling restart: `forkpool restart` under the name that nginx uses.\n",
        options: &[ADMIN, TOKEN, NO_WAIT, HELP],
        job: Job::Call(Task::Restart),
    },
    Verb {
        name: "scale",
        operand: "N",
        summary: "Change the number of workers, and wait until they serve",
        about: "\
Changes the number of workers until the pool is started again, and waits until that many serve. If a worker fails that
never served, prints the reason and exits with 4; the pool keeps trying.
",
        options: &[ADMIN, TOKEN, NO_WAIT, HELP],
        job: Job::Call(Task::Scale),
    },
    Verb {
        name: "stop",
        operand: "",
        summary: "Drain the pool, and wait until it has ended",
        about: "Drains the pool, as SIGTERM does, and prints events until the pool has ended.\n",
        options: &[ADMIN, TOKEN, NO_WAIT, HELP],
        job: Job::Call(Task::Stop),
    },
    Verb {
        name: "upgrade",
        operand: "",
        summary: "Start the new binary, and wait until it serves",
        about: "\
Has the pool start its program again and pass it every socket, as SIGUSR2 does. Exits with 0 when the new pool serves,
and with 4 if it fails; the old pool then goes on.
",
        options: &[ADMIN, TOKEN, NO_WAIT, HELP],
        job: Job::Call(Task::Upgrade),
    },
    Verb {
        name: "completions",
        operand: "bash|zsh|fish",
        summary: "Print a completion script for a shell",
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
    Verb {
        name: "help",
        operand: "[VERB]",
        summary: "Print all options, or those of a verb",
        about: "Prints what `forkpool --help` prints, or what `forkpool VERB --help` prints.\n",
        options: &[HELP],
        job: Job::Help,
    },
    Verb {
        name: "version",
        operand: "",
        summary: "Print the version",
        about: "Prints the version, as `forkpool --version` does.\n",
        options: &[HELP],
        job: Job::Version,
    },
];

const ADMIN: OptionHelp =
    ("--admin <ADDR>", "The pool's admin address (its own --admin): unix:PATH or HOST:PORT [FORKPOOL_ADMIN]");
const TOKEN: OptionHelp = (
    "--token-file <FILE>",
    "The pool's --admin-token-file. Commands need it over TCP, not over a Unix socket [FORKPOOL_ADMIN_TOKEN_FILE]",
);
const NO_WAIT: OptionHelp = ("--no-wait", "Send the command and do not wait for the result");
const HELP: OptionHelp = ("-h, --help", "Print this help");

const EXEC: &str = "\
Executes a program in one forked worker process per CPU. Each has its own SO_REUSEPORT socket, so the kernel spreads the
connections. A program that binds the address itself gets that socket, unmodified (--adopt), or takes it as file
descriptor 3. The parent replaces every program that dies; connections that waited in its queue are served.

Examples:
  forkpool exec --listen :8000 -- node app.js      app.js has server.listen(8000), or server.listen({fd: 3})
  forkpool exec --listen :80 --user www-data --workers 4 -- uvicorn --fd 3 app:app
  forkpool exec --ready notify -- ./server         ready when it calls sd_notify(3)
  kill -HUP PID                                    (of forkpool) executes the program again, one worker at a time

The program's listening sockets start at file descriptor 3, one for each address. They are non-blocking (O_NONBLOCK).
The program gets these variables:
  LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES   as in sd_listen_fds(3); a socket's name is its port, or unix
  FORKPOOL_FD                              3
  FORKPOOL_WORKER_ID, FORKPOOL_UNIQUE_ID   the slot's number, from 0, and a number unique to the process
  NOTIFY_SOCKET                            with --ready auto and notify
To stop the program, forkpool sends --stop-signal to it and to every process that it has started, and SIGKILL after
--drain-timeout. On that signal the program should stop accepting, finish its requests and exit. While other workers
serve, new connections go to them from 250 ms before the signal, so a program that on the signal closes connections that
it has not read from loses none. In an upgrade the new pool's workers serve meanwhile. A pool of one worker, one that
stops, and --balance hash go without that. The program inherits the output of forkpool; --prefix yes marks each line
with its worker.
";
