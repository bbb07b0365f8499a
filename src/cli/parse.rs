//! Parses the command line.

use std::ffi::{OsStr, OsString};
use std::time::Duration;

use forkpool::{Builder, Setting};
use lexopt::{Arg, Parser};

use super::exec::Program;
use super::flags::{on, Flags, Variables, HINT};
use super::log::{LogFormat, Verbosity};
use super::operate::{Call, Task};
use super::table::{Sort, SORTS};
use super::verbs::{self, long, Job, Verb, VERBS};
use super::{man, shell, text};

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Invocation {
    /// Print a text and exit.
    Text(String),
    /// Talk to a running pool.
    Call(Call),
    /// Run a pool, or check its configuration.
    Run(Box<Options>),
}

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) pool: Builder,
    /// The program that workers run; without one they serve a page.
    pub(crate) program: Option<Program>,
    /// Only check the configuration.
    pub(crate) check: bool,
    pub(crate) verbosity: Verbosity,
    pub(crate) log_format: LogFormat,
}

/// Parses the command line, whose first argument is the name of the program, and the variables.
///
/// # Errors
///
/// One line that says what is wrong and what to do.
pub(crate) fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    variables: Variables<'_>,
) -> Result<Invocation, String> {
    let mut flags = Flags::default();
    let mut parser = Parser::from_iter(arguments);
    let mut is_first = true;
    loop {
        match parser.next().map_err(|error| one_line(&error, flags.hint()))? {
            Some(Arg::Value(word)) if !flags.is_exec => match verbs::named(&word) {
                Some(verb) if verb.is_exec() => flags.is_exec = true,
                Some(verb) if is_first => return parse_verb(verb, &mut parser, variables),
                Some(verb) => return Err(format!("{} must come before its options{HINT}", verb.name)),
                None => return Err(unknown_verb(&word)),
            },
            Some(Arg::Value(program)) if flags.is_exec => {
                flags.program.push(program);
                flags.program.extend(parser.raw_args().map_err(|error| one_line(&error, flags.hint()))?);
                break;
            }
            Some(Arg::Short('h')) if !flags.is_exec => return Ok(Invocation::Text(text::short_help())),
            Some(Arg::Short('h') | Arg::Long("help")) => {
                let verb = VERBS.iter().find(|verb| flags.is_exec && verb.is_exec());
                return Ok(Invocation::Text(text::help(verb)));
            }
            Some(Arg::Short('V') | Arg::Long("version")) => return Ok(Invocation::Text(text::version())),
            Some(Arg::Short('q') | Arg::Long("quiet")) => flags.quiet = true,
            Some(Arg::Short('v') | Arg::Long("verbose")) => flags.verbose = flags.verbose.saturating_add(1),
            Some(Arg::Long("check")) => flags.check = true,
            Some(Arg::Long("log-format")) => {
                let value = parser.value().map_err(|error| one_line(&error, flags.hint()))?;
                if flags.log_format.replace(value.to_string_lossy().into_owned()).is_some() {
                    return Err(format!("--log-format is given twice; leave one out{}", flags.hint()));
                }
            }
            Some(Arg::Long(name)) => {
                let setting = forkpool::settings().find(|setting| setting.name() == name);
                let setting = setting.ok_or_else(|| unknown_option(name, flags.hint()))?;
                let value = match setting.value_name() {
                    "yes|no" => yes_or_no(&mut parser),
                    _ => parser.value().map_err(|error| one_line(&error, flags.hint()))?,
                };
                flags.set(setting, value)?;
            }
            Some(other) => return Err(one_line(&other.unexpected(), flags.hint())),
            None => break,
        }
        is_first = false;
    }
    let program = match flags.is_exec {
        true => Some(flags.take_program(variables)?),
        false => flags.refuse_the_programs_own().map(|()| None)?,
    };
    let options = Options {
        program,
        check: flags.check || on("check", variables)?.unwrap_or(false),
        verbosity: flags.verbosity(variables)?,
        log_format: flags.log_format(variables)?,
        pool: flags.pool(variables),
    };
    Ok(Invocation::Run(Box::new(options)))
}

/// The value of an option that is on or off. The option alone means yes.
fn yes_or_no(parser: &mut Parser) -> OsString {
    // As in --listing=no.
    if let Some(value) = parser.optional_value() {
        return value;
    }
    let is_value = |word: &OsStr| {
        let word = word.to_string_lossy();
        !word.starts_with('-') && verbs::named(word.as_ref().as_ref()).is_none()
    };
    let next = parser.try_raw_args().and_then(|mut arguments| arguments.next_if(|word| is_value(word)));
    next.unwrap_or_else(|| "yes".into())
}

fn unknown_verb(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    if let Some(remedy) = remedy(&word) {
        return format!("{} is unknown; {remedy}{HINT}", word.escape_debug());
    }
    if word.contains('/') {
        let word = word.escape_debug();
        return format!("{word} is unknown; to serve the files of a directory, write --root {word}{HINT}");
    }
    unknown("", &word, &mut VERBS.iter().map(|verb| verb.name), HINT)
}

/// What to write instead of a word that other servers and supervisors know.
fn remedy(word: &str) -> Option<&'static str> {
    const KNOWN: &[(&[&str], &str)] = &[
        (&["check", "test", "-t"], "write --check"),
        (&["serve", "run", "start"], "forkpool without a verb starts a pool"),
        (&["ps", "list", "ls", "show"], "write status"),
        (&["kill", "quit", "shutdown"], "write stop"),
        (&["--port", "--bind", "--host", "-l", "-p", "-b"], "write --listen, as in --listen :8000"),
        (&["--processes", "--threads", "-w"], "write --workers"),
        (&["--daemon", "--daemonize", "-d", "-D"], "forkpool stays in the foreground, for a service manager"),
    ];
    KNOWN.iter().find(|(words, _)| words.contains(&word)).map(|(_, remedy)| *remedy)
}

fn one_line(error: &lexopt::Error, hint: &str) -> String {
    let problem = match error {
        lexopt::Error::MissingValue { option: Some(option) } => format!("{option} needs a value"),
        lexopt::Error::UnexpectedOption(option) => {
            let remedy = remedy(option).map(|remedy| format!("; {remedy}")).unwrap_or_default();
            format!("{} is unknown{remedy}", option.escape_debug())
        }
        lexopt::Error::UnexpectedArgument(argument) => {
            format!("{} is unknown", argument.to_string_lossy().escape_debug())
        }
        lexopt::Error::UnexpectedValue { option, .. } => format!("{option} takes no value"),
        other => other.to_string().escape_debug().to_string(),
    };
    problem + hint
}

fn unknown_option(name: &str, hint: &str) -> String {
    if let Some(remedy) = remedy(&format!("--{name}")) {
        return format!("--{name} is unknown; {remedy}{hint}");
    }
    let own = ["quiet", "verbose", "check", "help", "version", "log-format"];
    unknown("--", name, &mut forkpool::settings().map(Setting::name).chain(own), hint)
}

/// Suggests the name that was probably meant, if one is similar enough.
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

/// Parses the arguments after the verb.
///
/// # Errors
///
/// One line that says what is wrong and what to do.
fn parse_verb(verb: &'static Verb, parser: &mut Parser, variables: Variables<'_>) -> Result<Invocation, String> {
    let hint = format!(" (try forkpool {} --help)", verb.name);
    let mut arguments = Arguments { flags: Vec::new(), operand: None };
    while let Some(argument) = parser.next().map_err(|error| one_line(&error, &hint))? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Invocation::Text(text::help(Some(verb)))),
            Arg::Long(name) => {
                let Some((flag, takes_value)) = verb.option(name) else {
                    let known = verb.options.iter().filter_map(|(spelled, _)| long(spelled));
                    return Err(unknown("--", name, &mut known.into_iter(), &hint));
                };
                let value = match takes_value {
                    true => parser.value().map_err(|error| one_line(&error, &hint))?.to_string_lossy().into_owned(),
                    false => String::new(),
                };
                if arguments.option(flag).is_some() {
                    return Err(format!("--{flag} is given twice; leave one out{hint}"));
                }
                arguments.flags.push((flag, value));
            }
            Arg::Value(word) if !verb.operand.is_empty() && arguments.operand.is_none() => {
                arguments.operand = Some(word.to_string_lossy().into_owned());
            }
            other => return Err(one_line(&other.unexpected(), &hint)),
        }
    }
    let needs = || format!("{} needs {}{hint}", verb.name, verb.operand);
    match verb.job {
        Job::Call(task) => call(task, &arguments, variables).map(Invocation::Call).map_err(|problem| problem + &hint),
        Job::Man => Ok(Invocation::Text(man::page())),
        Job::Version => Ok(Invocation::Text(text::version())),
        Job::Help => {
            let known = |word: &str| verbs::named(word.as_ref()).ok_or_else(|| unknown_verb(word.as_ref()));
            Ok(Invocation::Text(text::help(arguments.operand.as_deref().map(known).transpose()?)))
        }
        Job::Completions | Job::Exec => {
            let script = shell::completions(arguments.operand.as_deref().unwrap_or_default());
            script.map(Invocation::Text).ok_or_else(needs)
        }
    }
}

fn call(task: Task, arguments: &Arguments, variables: Variables<'_>) -> Result<Call, String> {
    let said = |flag: &str, variable: &str| {
        let read = || variables(variable).map(|value| value.to_string_lossy().into_owned());
        arguments.option(flag).map(str::to_owned).or_else(read).filter(|value| !value.is_empty())
    };
    let address = said("admin", "FORKPOOL_ADMIN")
        .ok_or("which pool? Set --admin or FORKPOOL_ADMIN to the admin address of the pool")?;
    let workers = match (task, arguments.operand.as_deref()) {
        (Task::Scale, Some(workers)) => workers.parse().ok().filter(|workers| *workers > 0),
        _ => None,
    };
    if matches!(task, Task::Scale) && workers.is_none() {
        return Err("scale needs a number of workers, as in forkpool scale 4".to_owned());
    }
    let interval = match arguments.option("interval") {
        Some(text) => interval(text).map_err(|problem| format!("--interval {}: {problem}", text.escape_debug()))?,
        None => Duration::from_secs(1),
    };
    let sort = arguments.option("sort").map_or(Ok(Sort::default()), sort)?;
    let (json, ready) = (arguments.option("json").is_some(), arguments.option("ready").is_some());
    if json && ready {
        return Err("--ready and --json exclude each other; leave one out".to_owned());
    }
    Ok(Call {
        task,
        address,
        token_file: said("token-file", "FORKPOOL_ADMIN_TOKEN_FILE"),
        json,
        ready,
        waits: arguments.option("no-wait").is_none(),
        interval,
        sort,
        workers: workers.unwrap_or(0),
    })
}

/// The arguments after the verb.
struct Arguments {
    flags: Vec<(&'static str, String)>,
    operand: Option<String>,
}

impl Arguments {
    fn option(&self, name: &str) -> Option<&str> {
        self.flags.iter().find(|(flag, _)| *flag == name).map(|(_, value)| value.as_str())
    }
}

/// What `top` sorts the workers by.
fn sort(text: &str) -> Result<Sort, String> {
    let found = SORTS.iter().find(|(_, name, _)| *name == text);
    let names = || SORTS.map(|(_, name, _)| name).join(", ");
    found.map(|(_, _, sort)| *sort).ok_or_else(|| format!("--sort {}: must be one of {}", text.escape_debug(), names()))
}

/// The interval at which `top` refreshes.
fn interval(text: &str) -> Result<Duration, String> {
    let range = Duration::from_millis(100)..=Duration::from_secs(3600);
    match forkpool::duration(text)? {
        interval if range.contains(&interval) => Ok(interval),
        _ => Err("must be 100ms to 1h, as in 500ms or 2s".to_owned()),
    }
}

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
