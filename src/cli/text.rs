//! What `--help` says.

use std::iter;

use forkpool::Setting;

/// The whole help: what this is, examples, every option with its variables and default, signals, exit codes.
pub(super) fn help() -> String {
    let mut help = version() + BEFORE;
    let mut heading = "";
    for setting in forkpool::settings() {
        if heading != setting.heading() {
            heading = setting.heading();
            help.push_str(&format!("\n{heading}:\n"));
        }
        help.push_str(&format!("      --{} <{}>\n", setting.name(), setting.value_name()));
        describe(&mut help, &description(setting));
    }
    help.push_str("\nOutput:\n");
    for (option, description) in OWN {
        help.push_str(&format!("  {option}\n"));
        describe(&mut help, &description.split(' ').collect::<Vec<_>>());
    }
    help + AFTER
}

pub(super) fn version() -> String {
    format!("forkpool {}\n", env!("CARGO_PKG_VERSION"))
}

/// What a setting does, its default and its variables, in pieces that are not to be broken.
fn description(setting: &Setting) -> Vec<String> {
    let default = setting.default().map(|default| format!("[default: {default}]"));
    let variables: Vec<String> = iter::once(setting.variable()).chain(setting.aliases().map(String::from)).collect();
    let words = setting.help().split(' ').map(String::from);
    words.chain(default).chain([format!("[{}]", variables.join(", "))]).collect()
}

/// Appends pieces, indented, in lines of at most so many columns.
fn describe(help: &mut String, pieces: &[impl AsRef<str>]) {
    const INDENT: &str = "          ";
    const COLUMNS: usize = 110;
    let mut line = String::from(INDENT);
    for piece in pieces.iter().map(AsRef::as_ref) {
        if line.len() > INDENT.len() {
            if line.len() + 1 + piece.len() > COLUMNS {
                help.push_str(&line);
                help.push('\n');
                line.truncate(INDENT.len());
            } else {
                line.push(' ');
            }
        }
        line.push_str(piece);
    }
    help.push_str(&line);
    help.push('\n');
}

const BEFORE: &str = "\
Serves HTTP/1.1 from one forked worker process per CPU, each on its own SO_REUSEPORT socket, so that the
kernel spreads the connections. The parent replaces every worker that dies, and what waited for it is served.

Usage: forkpool [OPTIONS]

Examples:
  forkpool                                           serve http://127.0.0.1:8000, a worker per CPU
  forkpool --listen :80 --user www-data --workers 4  port 80 of every interface, workers not as root
  forkpool --listen unix:/run/app.sock --check       only say whether that would make sense
";

/// The options that are the binary's own.
const OWN: &[(&str, &str)] = &[
    ("-q, --quiet", "Log only errors [FORKPOOL_QUIET=1]"),
    (
        "-v, --verbose",
        "Log more: once for debug, twice for trace; with neither -q nor -v RUST_LOG decides, as in \
         RUST_LOG=forkpool=debug, and by default it is info [FORKPOOL_VERBOSE=2]",
    ),
    (
        "    --check",
        "Say whether the configuration makes sense and exit; opens no socket, writes no file [FORKPOOL_CHECK=1]",
    ),
    ("-h, --help", "Print this help"),
    ("-V, --version", "Print the version"),
];

const AFTER: &str = "
Values:
  DURATION  30 or 30s, 500ms, 2m, 1h
  BYTES     8192, 8KiB or 8k, 1MiB

Every option has a variable, shown in brackets. An option wins over its variable, the first variable over the
next, a variable over the default; an empty variable counts as unset. PORT=N listens on port N of every interface.

Signals, to the parent:
  TERM, QUIT  drain: finish requests in progress, then stop; killed after the drain time-out; with --lame-duck later
  INT         stop now
  a second    of these three: kill
  HUP         rolling restart: one worker after the other, the replacement first
  USR2        upgrade: start this program anew; when the new one serves, this one drains
  TTIN, TTOU  one worker more, one less

Exit codes:
  0  stopped as asked
  1  an error: the address is taken, no worker could start, ...
  2  usage: an option, a variable or their combination makes no sense
  3  gave up: a worker failed too often in a row (--give-up)

Under a service manager it tells READY, RELOADING, STOPPING, MAINPID, STATUS and WATCHDOG (sd_notify(3)), and listens on
the sockets that it is given (sd_listen_fds(3)) instead of --listen.
";
