//! The verbs: what the binary can be asked for besides a pool of its own. Help, completions and the man page are made of
//! this table and of the settings.

use std::ffi::OsStr;

use super::operate::Task;

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
    pub(super) job: Job,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Job {
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

    /// The option of this name, and whether it takes a value.
    pub(super) fn option(&self, name: &str) -> Option<(&'static str, bool)> {
        let mut options = self.options.iter().filter_map(|(spelled, _)| Some((long(spelled)?, spelled.ends_with('>'))));
        options.find(|(known, _)| *known == name)
    }
}

/// The long name of an option as it is spelled.
pub(super) fn long(spelled: &str) -> Option<&str> {
    let (_, rest) = spelled.split_once("--")?;
    rest.split(' ').next()
}

/// All of them, in the order of the help.
pub(super) const VERBS: &[Verb] = &[
    Verb {
        name: "exec",
        operand: "-- PROGRAM [ARGUMENTS]",
        summary: "Run any program as the worker",
        about: EXEC,
        options: PROGRAM,
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

const EXEC: &str = "\
Executes a program in one forked worker process per CPU. Each has its own SO_REUSEPORT socket as file descriptor 3,
so that the kernel spreads the connections. The parent replaces every program that dies, and what waited for it is
served.

Examples:
  forkpool exec -- node app.js                     app.js has server.listen({fd: 3}); on http://127.0.0.1:8000
  forkpool exec --listen :80 --user www-data --workers 4 -- uvicorn --fd 3 app:app
  forkpool exec --ready notify -- ./server         ready when it tells so with sd_notify(3)
  kill -HUP PID                                    of forkpool: the program is executed anew, one worker at a time

The program finds listening sockets from file descriptor 3 on, one for each address, which do not block (O_NONBLOCK),
and these variables:
  LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES   as in sd_listen_fds(3); a socket's name is its port, or unix
  FORKPOOL_FD                              3
  FORKPOOL_WORKER_ID, FORKPOOL_UNIQUE_ID   a number from 0 that the replacement keeps, and one that it does not
  NOTIFY_SOCKET                            with --ready notify
It is asked to finish by SIGTERM, and killed after the drain time-out: let it stop to accept, finish what it has, and
exit. A shell passes no signal on: write sh -c 'exec node app.js'. Its output goes where that of forkpool goes;
--prefix tells whose it is.
";

/// The options of `exec`.
const PROGRAM: &[Spelled] = &[(
    "--ready <listen|notify|delay:DURATION>",
    "When the program is ready: once it is executed, as its socket listens already; when it sends READY=1 to \
     NOTIFY_SOCKET (sd_notify(3)); or so long after it is executed, as in delay:500ms (a bare number means milliseconds). \
     In a rolling restart its predecessor is asked to finish then [default: listen] [FORKPOOL_READY]",
), ("--prefix", "Begin every line of the program's output with worker=N pid=P; the parent passes it on then, and a line of more than 64 KiB in parts [FORKPOOL_PREFIX=1]")];
