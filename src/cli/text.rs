//! The text of `--help`, from which the man page and the completions are made, too.

use std::iter;

use forkpool::Setting;

use super::output::put;
use super::verbs::{OptionHelp, Verb, VERBS};

/// The whole help of the binary or of a verb: usage, description, and every option with its variables and default. For
/// what starts a pool, also signals and exit codes.
pub(super) fn help(verb: Option<&Verb>) -> String {
    let mut help = version() + "Usage: " + &usage(verb) + "\n";
    if verb.is_none() {
        help.push_str("       forkpool VERB [OPTIONS]   one of those below; see forkpool VERB --help\n");
    }
    help.push('\n');
    help.push_str(verb.map_or(ABOUT, |verb| verb.about));
    if verb.is_none() {
        help.push_str("\nVerbs:\n");
        for verb in VERBS {
            let usage = format!("{} {}", verb.name, verb.operand);
            put(&mut help, format_args!("  {usage:<28} {}\n", verb.summary));
        }
    }
    for (heading, options) in sections(verb) {
        put(&mut help, format_args!("\n{heading}:\n"));
        for (spelled, description) in options {
            let indent = if spelled.starts_with("--") { 6 } else { 2 };
            put(&mut help, format_args!("{:indent$}{spelled}\n", ""));
            describe(&mut help, &description);
        }
    }
    if verb.is_none_or(Verb::is_exec) {
        // A program writes its own access log.
        let holds = |line: &&str| verb.is_none() || !line.contains("access log");
        AFTER.split_inclusive('\n').filter(holds).for_each(|line| help.push_str(line));
    }
    help
}

/// The usage line of the binary or of a verb.
pub(super) fn usage(verb: Option<&Verb>) -> String {
    let Some(verb) = verb else { return "forkpool [OPTIONS]".to_owned() };
    format!("forkpool {} [OPTIONS] {}", verb.name, verb.operand).trim_end().to_owned()
}

/// A heading and its options: the spelling and the description of each. U+00A0 is a space at which no line breaks.
pub(super) type Section = (&'static str, Vec<(String, String)>);

/// Every option of the binary itself or of a verb.
pub(super) fn sections(verb: Option<&Verb>) -> Vec<Section> {
    let owned =
        |options: &[OptionHelp]| options.iter().map(|(one, other)| (one.to_string(), other.to_string())).collect();
    let mut sections: Vec<Section> = Vec::new();
    if let Some(verb) = verb.filter(|verb| !verb.is_exec()) {
        return vec![("Options", owned(verb.options))];
    }
    let concerns = |setting: &&Setting| match verb {
        Some(_) => setting.concerns_programs(),
        None => setting.concerns_server(),
    };
    for setting in forkpool::settings().filter(concerns) {
        let description = match verb {
            Some(_) if setting.name() == super::exec::BALANCE => of_programs(setting),
            _ => description(setting),
        };
        let option = (format!("--{} <{}>", setting.name(), setting.value_name()), description);
        match sections.last_mut() {
            Some((heading, options)) if *heading == setting.heading() => options.push(option),
            _ => sections.push((setting.heading(), vec![option])),
        }
    }
    sections.push(("Output", owned(OWN)));
    sections
}

/// What `-h` prints: the verbs and the most common options.
pub(super) fn short_help() -> String {
    let mut help = version() + "Usage: " + &usage(None) + "\n       forkpool VERB [OPTIONS]\n\nVerbs:\n";
    for verb in VERBS {
        let usage = format!("{} {}", verb.name, verb.operand);
        put(&mut help, format_args!("  {usage:<28} {}\n", verb.summary));
    }
    help.push_str(COMMON);
    help
}

const COMMON: &str = "
Common options:
  --listen <ADDR>              Address to listen on, such as :8000 or unix:/run/app.sock
  --workers <N|auto>           Number of worker processes
  --root <DIR>                 Directory of files to serve
  --admin <ADDR>               Address for status, metrics and control
  --check                      Check the configuration and exit
  -q, --quiet, -v, --verbose   Log less, or more
  -V, --version                Print the version

forkpool --help lists all options, and forkpool help VERB those of a verb.
";

pub(super) fn version() -> String {
    format!("forkpool {}\n", env!("CARGO_PKG_VERSION"))
}

/// The options of the binary that also apply to `exec`.
pub(super) fn shared_with_exec() -> String {
    let shared = forkpool::settings().filter(|setting| setting.concerns_programs() && setting.concerns_server());
    let names = shared.map(Setting::name);
    let names: Vec<String> = names.map(|name| format!("--{name}")).collect();
    let own = OWN.iter().map(|(spelled, _)| (*spelled).split(" <").next().unwrap_or_default());
    [names.join(", "), own.collect::<Vec<_>>().join(", ")].join(", ")
}

/// The description of a setting, with its default and its variables.
fn description(setting: &Setting) -> String {
    describe_as(setting, setting.help(), setting.default())
}

/// The description of `--balance` for programs, which have no count of connections.
fn of_programs(setting: &Setting) -> String {
    let help = "How a new TCP connection is assigned to a worker: hash, random, cpu or client. hash is the kernel's \
                own choice. random picks a random free worker. cpu picks the worker on the CPU that received the \
                connection, and pins workers. client sends the same client address to the same worker. Methods that \
                count the connections of workers are refused, since those of programs cannot be counted";
    describe_as(setting, help, Some("random".to_owned()))
}

fn describe_as(setting: &Setting, help: &str, default: Option<String>) -> String {
    let default = default.map(|default| format!("[default: {default}]"));
    let variables: Vec<String> = iter::once(setting.variable()).chain(setting.aliases().map(String::from)).collect();
    let upgrade = setting.needs_upgrade().then(|| "[upgrade]".to_owned());
    let notes = default.into_iter().chain([format!("[{}]", variables.join(", "))]).chain(upgrade);
    notes.fold(help.to_owned(), |all, note| all + " " + &note.replace(' ', "\u{a0}"))
}

/// Appends an indented text, wrapped to a maximum number of columns.
fn describe(help: &mut String, text: &str) {
    const INDENT: &str = "          ";
    const COLUMNS: usize = 110;
    let mut column = 0;
    for word in text.split(' ') {
        let len = word.chars().count();
        if column > 0 && column + 1 + len <= COLUMNS {
            help.push(' ');
            column += 1;
        } else {
            help.push_str(if column > 0 { "\n" } else { "" });
            help.push_str(INDENT);
            column = INDENT.len();
        }
        help.push_str(&word.replace('\u{a0}', " "));
        column += len;
    }
    help.push('\n');
}

pub(super) const ABOUT: &str = "\
Serves HTTP/1.1 from one forked worker process per CPU. Each worker has its own SO_REUSEPORT socket, so the
kernel spreads the connections. The parent replaces every worker that dies; connections that waited in its
queue are served.

Examples:
  forkpool                                           serve http://127.0.0.1:8000, a worker per CPU
  forkpool --listen :80 --user www-data --workers 4  serve port 80 of every interface, with workers that are not root
  forkpool --root public --listing yes               serve the files of a directory, and list directories
  forkpool --listen unix:/run/app.sock --check       check the options and exit
";

/// The options that belong to the binary alone.
const OWN: &[OptionHelp] = &[
    ("-q, --quiet", "Log only errors [FORKPOOL_QUIET=1]"),
    (
        "-v, --verbose",
        "Log more: once for debug, twice for trace. Without -q and -v, RUST_LOG sets the level, as in \
         RUST_LOG=forkpool=debug; the default is info [FORKPOOL_VERBOSE=2]",
    ),
    (
        "--log-format <text|json>",
        "Format of the log: text, or json, with one object per line: time, level, kind, worker, generation, \
         pid, reason and message. In the systemd journal, lines begin with their priority [default: text] \
         [FORKPOOL_LOG_FORMAT]",
    ),
    ("--check", "Check the configuration and exit, without opening a socket or writing a file [FORKPOOL_CHECK=1]"),
    ("-h, --help", "Print this help"),
    ("-V, --version", "Print the version"),
];

pub(super) const AFTER: &str = "
Values:
  DURATION  30 or 30s, 500ms, 2m, 1h, 1m30s
  BYTES     8192, 8KiB or 8k, 1MiB, 1.5MB (of 1000)

Each option can also be set by a variable, shown in brackets. An option overrides its variable, and the first variable
shown overrides the next. An empty variable counts as unset. PORT=N listens on port N of every interface.
A rolling restart (HUP) applies changes in an --env-file, except for options marked [upgrade], which need an upgrade
(USR2).

Signals to the parent:
  TERM, QUIT  drain: finish requests in progress, then stop; kill after --drain-timeout; start after --lame-duck
  INT         stop now
  repeated    within a second: the stronger of the two applies; later: kill all workers
  HUP         rolling restart: replace one worker after the other, starting each replacement first
  USR1        reopen the access log, after the file was renamed
  USR2        upgrade: start this program again; drain when the new one serves
  TTIN, TTOU  add a worker, remove a worker

Exit codes:
  0  stopped on request
  1  an error: the address is taken, no worker could start, ...
  2  usage: an invalid option, variable or combination
  3  gave up: too many workers in a row failed without ever serving (--give-up)
  4  only from restart and upgrade: aborted, and the pool goes on as before; from scale: new workers fail, and are
     retried
  5  killed by a repeated TERM, QUIT or INT with requests in progress; the last line says how many

Under a service manager, forkpool sends READY, RELOADING, STOPPING, MAINPID, STATUS and WATCHDOG (sd_notify(3)), and
listens on the sockets that the manager passes (sd_listen_fds(3)) instead of --listen.
";
