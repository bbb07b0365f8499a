//! The binary: it reads arguments and variables, runs a pool, and asks a running one by its admin process.
//!
//! In go the command line and the environment; out come text, exit codes, and calls of the library. It may know
//! nothing of the library but what everybody may use.
//!
//! # Files
//!
//! - `verbs.rs`: the one table of verbs
//! - `client.rs`: HTTP to an admin process
//! - `operate.rs` and `top.rs`: what the verbs do
//! - `text.rs`, `man.rs` and `shell.rs`: help, man page and completions, all of that table and the settings
//!
//! # Decisions
//!
//! - **The binary's arguments are split by lexopt**, and everything else about them follows from the one table of
//!   settings, which the library needs for its variables anyway: help, defaults, checks, precedence.
//! - **A verb learns from the events what has become of its command**, and looks at the status only for what no event
//!   says.
//! - **A verb trusts nobody**: it may be anything that has the address. It takes an answer for an admin process's by
//!   its Server field, bounds what it reads in bytes and time, and shows its token only when it commands. Whoever has
//!   bound the port of a pool that is down is still shown it then: only a Unix socket's directory says who can be
//!   there.

use std::ffi::OsString;

use forkpool::{Builder, Pool, Sandbox, Setting};
use lexopt::{Arg, Parser};

mod client;
mod exec;
pub(crate) mod log;
mod man;
mod operate;
mod shell;
mod text;
mod top;
mod verbs;

pub(crate) use self::exec::Program;
use self::log::{LogFormat, Verbosity};
pub(crate) use self::operate::Call;
use self::verbs::VERBS;

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Asked {
    /// To print something and be done.
    Text(String),
    /// To talk to a pool that runs.
    Call(Call),
    /// To run a pool, or to check it.
    Run(Box<Options>),
}

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) pool: Builder,
    /// What the workers execute; without one they serve a page.
    pub(crate) program: Option<Program>,
    /// Only whether the configuration makes sense.
    pub(crate) check: bool,
    pub(crate) verbosity: Verbosity,
    pub(crate) log_format: LogFormat,
}

/// Where variables are read from.
pub(crate) type Variables<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// Reads the command line, `arguments` beginning with the program's name, and the variables.
///
/// # Errors
///
/// One line that says what is wrong and what to do.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>, variables: Variables<'_>) -> Result<Asked, String> {
    let mut flags = Flags::default();
    let mut parser = Parser::from_iter(arguments);
    let mut is_first = true;
    loop {
        match parser.next().map_err(|error| one_line(&error, HINT))? {
            Some(Arg::Value(word)) if !flags.is_exec => match verbs::named(&word) {
                Some(verb) if verb.is_exec() => flags.is_exec = true,
                Some(verb) if is_first => return verb.parse(&mut parser, variables),
                Some(verb) => return Err(format!("{} must come before its options{HINT}", verb.name)),
                None => {
                    return Err(unknown("", &word.to_string_lossy(), &mut VERBS.iter().map(|verb| verb.name), HINT))
                }
            },
            Some(Arg::Value(program)) if flags.is_exec => {
                flags.program.push(program);
                flags.program.extend(parser.raw_args().map_err(|error| one_line(&error, HINT))?);
                break;
            }
            Some(Arg::Long("ready")) if flags.is_exec => {
                let value = parser.value().map_err(|error| one_line(&error, HINT))?;
                if flags.ready.replace(value).is_some() {
                    return Err(format!("--ready is given twice; leave one out{HINT}"));
                }
            }
            Some(Arg::Long("prefix")) if flags.is_exec => flags.prefix = true,
            Some(Arg::Long("prefix")) => return Err(format!("--prefix is for forkpool exec{}", exec::HINT)),
            Some(Arg::Long("ready")) => return Err(format!("--ready is for forkpool exec{}", exec::HINT)),
            Some(Arg::Short('h') | Arg::Long("help")) => {
                let verb = VERBS.iter().find(|verb| flags.is_exec && verb.is_exec());
                return Ok(Asked::Text(text::help(verb)));
            }
            Some(Arg::Short('V') | Arg::Long("version")) => return Ok(Asked::Text(text::version())),
            Some(Arg::Short('q') | Arg::Long("quiet")) => flags.quiet = true,
            Some(Arg::Short('v') | Arg::Long("verbose")) => flags.verbose = flags.verbose.saturating_add(1),
            Some(Arg::Long("check")) => flags.check = true,
            Some(Arg::Long("log-format")) => {
                let value = parser.value().map_err(|error| one_line(&error, HINT))?;
                if flags.log_format.replace(value.to_string_lossy().into_owned()).is_some() {
                    return Err(format!("--log-format is given twice; leave one out{HINT}"));
                }
            }
            Some(Arg::Long(name)) => {
                let setting = forkpool::settings().find(|setting| setting.name() == name);
                let setting = setting.ok_or_else(|| unknown_option(name))?;
                let value = parser.value().map_err(|error| one_line(&error, HINT))?;
                flags.set(setting, value)?;
            }
            Some(other) => return Err(one_line(&other.unexpected(), HINT)),
            None => break,
        }
        is_first = false;
    }
    let program = if flags.is_exec { Some(flags.take_program(variables)?) } else { None };
    let options = Options {
        program,
        check: flags.check || on("check", variables)?.unwrap_or(false),
        verbosity: flags.verbosity(variables)?,
        log_format: flags.log_format(variables)?,
        pool: flags.pool(),
    };
    Ok(Asked::Run(Box::new(options)))
}

/// What the command line itself says.
#[derive(Debug, Default)]
struct Flags {
    quiet: bool,
    verbose: u8,
    check: bool,
    log_format: Option<String>,
    settings: Vec<(&'static Setting, String)>,
    /// `exec` was said; what follows are the program, once it has come, and its arguments.
    is_exec: bool,
    program: Vec<OsString>,
    ready: Option<OsString>,
    prefix: bool,
}

impl Flags {
    fn set(&mut self, setting: &'static Setting, value: OsString) -> Result<(), String> {
        let name = setting.name();
        let value = value.into_string().map_err(|_| format!("the value of --{name} is not valid UTF-8{HINT}"))?;
        match self.settings.iter_mut().find(|(said, _)| said.name() == name) {
            Some((_, list)) if setting.is_list() => *list = format!("{list},{value}"),
            Some(_) => return Err(format!("--{name} is given twice; leave one out{HINT}")),
            None => self.settings.push((setting, value)),
        }
        Ok(())
    }

    /// The pool that variables and, over them, flags describe. The builder keeps what is wrong with a value.
    fn pool(&self) -> Builder {
        let listen = forkpool::settings().find_map(|setting| setting.default().filter(|_| setting.is_list()));
        let pool = Pool::bind(listen.unwrap_or_default());
        let pool = if self.is_exec { exec::prepare(pool) } else { pool.sandbox(Sandbox::Auto) }.env();
        // What the file says, every flag wins over.
        let (file, others): (Vec<_>, Vec<_>) =
            self.settings.iter().partition(|(setting, _)| setting.name() == "env-file");
        file.into_iter()
            .chain(others)
            .fold(pool, |pool, (setting, value)| pool.set(&format!("--{}", setting.name()), value))
    }

    fn log_format(&self, variables: Variables<'_>) -> Result<LogFormat, String> {
        let (written, value) = match &self.log_format {
            Some(value) => (format!("--log-format {}", value.escape_debug()), value.clone()),
            None => match read("log_format", variables) {
                Some((variable, value)) => (format!("{variable}={}", value.escape_debug()), value),
                None => return Ok(LogFormat::Text),
            },
        };
        match value.as_str() {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(format!("{written}: must be text or json{HINT}")),
        }
    }

    /// Flags decide over variables, and only within one of the two can quiet and verbose contradict each other.
    fn verbosity(&self, variables: Variables<'_>) -> Result<Verbosity, String> {
        match (self.quiet, self.verbose) {
            (true, 0) => return Ok(Verbosity::Quiet),
            (true, _) => return Err(format!("--quiet and --verbose contradict each other; leave one out{HINT}")),
            (false, 0) => {}
            (false, count) => return Ok(Verbosity::Verbose(count)),
        }
        let quiet = on("quiet", variables)?.unwrap_or(false);
        let verbose = match read("verbose", variables) {
            None => 0,
            Some((variable, value)) => value
                .parse()
                .map_err(|_| format!("{variable}={}: must be 1 for debug, 2 for trace or 0", value.escape_debug()))?,
        };
        match (quiet, verbose) {
            (true, 0) => Ok(Verbosity::Quiet),
            (true, _) => Err("FORKPOOL_QUIET and FORKPOOL_VERBOSE contradict each other; unset one".into()),
            (false, 0) => Ok(Verbosity::Unsaid),
            (false, count) => Ok(Verbosity::Verbose(count)),
        }
    }
}

fn on(name: &str, variables: Variables<'_>) -> Result<Option<bool>, String> {
    let Some((variable, value)) = read(name, variables) else { return Ok(None) };
    match value.as_str() {
        "1" | "true" | "yes" | "on" => Ok(Some(true)),
        "0" | "false" | "no" | "off" => Ok(Some(false)),
        _ => Err(format!("{variable}={}: must be 1 or 0", value.escape_debug())),
    }
}

/// A flag's variable and its value; an empty one counts as unset.
fn read(name: &str, variables: Variables<'_>) -> Option<(String, String)> {
    let variable = format!("FORKPOOL_{}", name.to_ascii_uppercase());
    let value = variables(&variable).filter(|value| !value.is_empty())?;
    Some((variable, value.to_string_lossy().into_owned()))
}

const HINT: &str = " (try forkpool --help)";

fn one_line(error: &lexopt::Error, hint: &str) -> String {
    let problem = match error {
        lexopt::Error::MissingValue { option: Some(option) } => format!("{option} needs a value"),
        lexopt::Error::UnexpectedOption(option) => format!("{} is unknown", option.escape_debug()),
        lexopt::Error::UnexpectedArgument(argument) => {
            format!("{} is unknown", argument.to_string_lossy().escape_debug())
        }
        lexopt::Error::UnexpectedValue { option, .. } => format!("{option} takes no value"),
        other => other.to_string().escape_debug().to_string(),
    };
    problem + hint
}

fn unknown_option(name: &str) -> String {
    let own = ["quiet", "verbose", "check", "help", "version", "ready", "prefix", "log-format"];
    unknown("--", name, &mut forkpool::settings().map(Setting::name).chain(own), HINT)
}

/// Names the one that was probably meant, if it is similar enough.
fn unknown(dashes: &str, name: &str, known: &mut dyn Iterator<Item = &'static str>, hint: &str) -> String {
    let known = known.map(|known| (strsim::jaro(name, known), known));
    let name = name.escape_debug();
    match known.max_by(|(one, _), (other, _)| one.total_cmp(other)) {
        Some((likeness, known)) if likeness > 0.75 => {
            format!("{dashes}{name} is unknown; did you mean {dashes}{known}?{hint}")
        }
        _ => format!("{dashes}{name} is unknown{hint}"),
    }
}

#[cfg(test)]
mod tests;
