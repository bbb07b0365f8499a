//! The command line: flags, then variables, then defaults.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command};
use forkpool::{Builder, Pool, Setting};

pub(crate) mod log;
mod text;

use self::log::Verbosity;

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Asked {
    /// To print something and be done.
    Text(String),
    /// To run a pool, or to check it.
    Run(Box<Options>),
}

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) pool: Builder,
    /// Only whether the configuration makes sense.
    pub(crate) check: bool,
    pub(crate) verbosity: Verbosity,
}

/// Where variables are read from.
pub(crate) type Variables<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// Reads the command line, `arguments` beginning with the program's name, and the variables.
///
/// # Errors
///
/// One line that says what is wrong and what to do.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>, variables: Variables<'_>) -> Result<Asked, String> {
    let matches = match command().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            return Ok(Asked::Text(error.to_string()));
        }
        Err(error) => return Err(one_line(&error)),
    };
    let options = Options {
        pool: pool(&matches),
        check: matches.get_flag(CHECK) || on(CHECK, variables)?.unwrap_or(false),
        verbosity: verbosity(&matches, variables)?,
    };
    Ok(Asked::Run(Box::new(options)))
}

const CHECK: &str = "check";
const QUIET: &str = "quiet";
const VERBOSE: &str = "verbose";

/// A flag for every setting of the library, and those that are the binary's own.
fn command() -> Command {
    let settings = forkpool::settings().map(|setting| {
        Arg::new(setting.name())
            .long(setting.name())
            .value_name(setting.value_name())
            .help(text::help(setting))
            .help_heading(setting.heading())
            // So that -1 is told to be out of range instead of being an unknown flag.
            .allow_negative_numbers(true)
            .action(if setting.is_list() { ArgAction::Append } else { ArgAction::Set })
    });
    let own = |name: &'static str, short: char, action: ArgAction, help: &'static str| {
        Arg::new(name).short(short).long(name).action(action).help(help)
    };
    Command::new("forkpool")
        .version(env!("CARGO_PKG_VERSION"))
        .about(text::ABOUT)
        .override_usage("forkpool [OPTIONS]")
        .help_template(text::TEMPLATE)
        .after_help(text::AFTER)
        .next_line_help(true)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args(settings)
        .next_help_heading("Output")
        .arg(own(QUIET, 'q', ArgAction::SetTrue, text::QUIET).conflicts_with(VERBOSE))
        .arg(own(VERBOSE, 'v', ArgAction::Count, text::VERBOSE))
        .arg(Arg::new(CHECK).long(CHECK).action(ArgAction::SetTrue).help(text::CHECK))
        .arg(own("help", 'h', ArgAction::Help, text::HELP))
        .arg(own("version", 'V', ArgAction::Version, text::VERSION))
}

/// The pool that variables and, over them, flags describe. The builder keeps what is wrong with a value.
fn pool(matches: &ArgMatches) -> Builder {
    let listen = forkpool::settings().find_map(|setting| setting.default().filter(|_| setting.is_list()));
    let pool = Pool::bind(listen.unwrap_or_default()).env();
    forkpool::settings().fold(pool, |pool, setting| match flag(matches, setting) {
        Some(value) => pool.set(&format!("--{}", setting.name()), &value),
        None => pool,
    })
}

fn flag(matches: &ArgMatches, setting: &Setting) -> Option<String> {
    let values: Vec<&str> = matches.get_many::<String>(setting.name())?.map(String::as_str).collect();
    Some(values.join(","))
}

/// Flags decide over variables, and only within one of the two can quiet and verbose contradict each other.
fn verbosity(matches: &ArgMatches, variables: Variables<'_>) -> Result<Verbosity, String> {
    match (matches.get_flag(QUIET), matches.get_count(VERBOSE)) {
        (true, _) => return Ok(Verbosity::Quiet),
        (false, 0) => {}
        (false, count) => return Ok(Verbosity::Verbose(count)),
    }
    let quiet = on(QUIET, variables)?.unwrap_or(false);
    let verbose = match read(VERBOSE, variables) {
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

/// clap's error takes several lines; ours takes one.
fn one_line(error: &clap::Error) -> String {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        Some(ContextValue::Strings(texts)) => texts.first().map(String::as_str),
        _ => None,
    };
    let argument = context(ContextKind::InvalidArg).unwrap_or("the command line").escape_debug().to_string();
    // As clap writes it in a usage: `--listen <ADDR>`, `--verbose...`.
    let flag = |argument: &str| argument.split(' ').next().unwrap_or_default().trim_end_matches("...").to_owned();
    let problem = match error.kind() {
        ErrorKind::UnknownArgument => match context(ContextKind::SuggestedArg) {
            Some(suggested) => format!("{argument} is unknown; did you mean {suggested}?"),
            None => format!("{argument} is unknown"),
        },
        ErrorKind::InvalidValue => format!("{} needs a value: {argument}", flag(&argument)),
        ErrorKind::TooManyValues => format!("{argument} takes no value"),
        ErrorKind::ArgumentConflict => match context(ContextKind::PriorArg).map(flag) {
            Some(prior) if prior != flag(&argument) => {
                format!("{} and {prior} contradict each other; leave one out", flag(&argument))
            }
            _ => format!("{} is given twice; leave one out", flag(&argument)),
        },
        ErrorKind::InvalidUtf8 => "an argument is not valid UTF-8".to_owned(),
        kind => format!("{argument}: {kind}"),
    };
    format!("{problem} (try forkpool --help)")
}

#[cfg(test)]
mod tests;
