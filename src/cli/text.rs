//! What `--help` says.

use forkpool::Setting;

pub(super) const ABOUT: &str = "\
Serves HTTP/1.1 from one forked worker process per CPU, each on its own SO_REUSEPORT socket, so that the
kernel spreads the connections. The parent replaces every worker that dies, and what waited for it is served.";

pub(super) const TEMPLATE: &str = "\
{name} {version}
{about}

Usage: {usage}

Examples:
  forkpool                                           serve http://127.0.0.1:8000, a worker per CPU
  forkpool --listen :80 --user www-data --workers 4  port 80 of every interface, workers not as root
  forkpool --listen unix:/run/app.sock --check       only say whether that would make sense

{all-args}{after-help}";

pub(super) const AFTER: &str = "\
Values:
  DURATION  30 or 30s, 500ms, 2m, 1h
  BYTES     8192, 8KiB or 8k, 1MiB

Every option has a variable, shown in brackets. An option wins over its variable, the first variable over the
next, a variable over the default; an empty variable counts as unset. PORT=N listens on port N of every interface.

Signals, to the parent:
  TERM, QUIT  drain: finish requests in progress, then stop; killed after the drain time-out
  INT         stop now
  a second    of these three: kill
  HUP         rolling restart: one worker after the other, the replacement first
  TTIN, TTOU  one worker more, one less

Exit codes:
  0  stopped as asked
  1  an error: the address is taken, no worker could start, ...
  2  usage: an option, a variable or their combination makes no sense
";

pub(super) const QUIET: &str = "Log only errors [FORKPOOL_QUIET=1]";
pub(super) const VERBOSE: &str = "\
Log more: once for debug, twice for trace. With neither -q nor -v, RUST_LOG decides
(RUST_LOG=forkpool=debug); the default is info [FORKPOOL_VERBOSE=1 or 2]";
pub(super) const CHECK: &str = "\
Say whether the configuration makes sense and exit; opens no socket and writes no file [FORKPOOL_CHECK=1]";
pub(super) const HELP: &str = "Print this help";
pub(super) const VERSION: &str = "Print the version";

/// Columns of a line of help, besides its indentation.
const WIDTH: usize = 100;

/// The help of a setting with its default and variables, in lines that fit.
pub(super) fn help(setting: &Setting) -> String {
    let mut variables = setting.variable();
    for alias in setting.aliases() {
        variables.push_str(", ");
        variables.push_str(alias);
    }
    let default = setting.default().map(|default| format!("[default: {default}]"));
    let pieces = setting.help().split(' ').map(String::from).chain(default).chain([format!("[{variables}]")]);
    wrapped(pieces)
}

/// Joins pieces by blanks, and by line ends where a line is full.
fn wrapped(pieces: impl Iterator<Item = String>) -> String {
    let mut text = String::new();
    let mut column = 0;
    for piece in pieces {
        if column > 0 {
            let fits = column + 1 + piece.len() <= WIDTH;
            text.push(if fits { ' ' } else { '\n' });
            column = if fits { column + 1 } else { 0 };
        }
        column += piece.len();
        text.push_str(&piece);
    }
    text
}
