//! The settings of a pool: the flags, and the variables that they override.

use std::ffi::OsString;

use forkpool::{Builder, Pool, Sandbox, Setting};

use super::exec::{self, Program, BALANCE, HINT as EXEC_HINT, UNCOUNTED};
use super::log::{LogFormat, Verbosity};

pub(super) const HINT: &str = " (try forkpool --help)";

/// The source of variables.
pub(crate) type Variables<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// What the command line says.
#[derive(Debug, Default)]
pub(super) struct Flags {
    pub(super) quiet: bool,
    pub(super) verbose: u8,
    pub(super) check: bool,
    pub(super) log_format: Option<String>,
    pub(super) settings: Vec<(&'static Setting, String)>,
    /// Whether `exec` was given. After the program's name, the rest are its arguments.
    pub(super) is_exec: bool,
    pub(super) program: Vec<OsString>,
}

impl Flags {
    pub(super) fn set(&mut self, setting: &'static Setting, value: OsString) -> Result<(), String> {
        let name = setting.name();
        let value =
            value.into_string().map_err(|_| format!("the value of --{name} is not valid UTF-8{}", self.hint()))?;
        match self.settings.iter_mut().find(|(said, _)| said.name() == name) {
            Some((_, list)) if setting.separator().is_some() => {
                list.extend(setting.separator());
                list.push_str(&value);
            }
            Some(_) => return Err(format!("--{name} is given twice; leave one out{}", self.hint())),
            None => self.settings.push((setting, value)),
        }
        Ok(())
    }

    /// Where to read on.
    pub(super) fn hint(&self) -> &'static str {
        if self.is_exec {
            EXEC_HINT
        } else {
            HINT
        }
    }

    /// The pool that variables and flags describe; flags override. The builder records invalid values.
    pub(super) fn pool(&self, variables: Variables<'_>) -> Builder {
        let listen = forkpool::settings().find(|setting| setting.name() == "listen").and_then(Setting::default);
        let listen = listen.unwrap_or_default();
        // Addresses for HTTPS take the place of the default.
        let pool = match self.says("tls-listen", variables) && !self.says("listen", variables) {
            true => Pool::bind_tls(listen),
            false => Pool::bind(listen),
        };
        let pool = if self.is_exec { exec::prepare(pool) } else { pool.sandbox(Sandbox::Auto) }.env();
        // Every flag overrides the file.
        let (file, others): (Vec<_>, Vec<_>) =
            self.settings.iter().partition(|(setting, _)| setting.name() == "env-file");
        file.into_iter()
            .chain(others)
            .fold(pool, |pool, (setting, value)| pool.set(&format!("--{}", setting.name()), value))
    }

    /// Whether a flag or a variable sets this.
    fn says(&self, name: &str, variables: Variables<'_>) -> bool {
        let is_set = |variable: &str| variables(variable).is_some_and(|value| !value.is_empty());
        let by_variable = |setting: &Setting| is_set(&setting.variable()) || setting.aliases().any(is_set);
        self.settings.iter().any(|(setting, _)| setting.name() == name)
            || forkpool::settings().any(|setting| setting.name() == name && by_variable(setting))
    }

    pub(super) fn log_format(&self, variables: Variables<'_>) -> Result<LogFormat, String> {
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
            _ => Err(format!("{written}: must be text or json{}", self.hint())),
        }
    }

    /// Flags override variables. `quiet` and `verbose` only contradict each other if both are flags, or both are
    /// variables.
    pub(super) fn verbosity(&self, variables: Variables<'_>) -> Result<Verbosity, String> {
        match (self.quiet, self.verbose) {
            (true, 0) => return Ok(Verbosity::Quiet),
            (true, _) => {
                return Err(format!("--quiet and --verbose contradict each other; leave one out{}", self.hint()))
            }
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

    /// The program; call this once the command line has been read.
    pub(super) fn take_program(&mut self, variables: Variables<'_>) -> Result<Program, String> {
        self.refuse_to_count(variables)?;
        self.refuse_the_servers_own()?;
        let mut words = std::mem::take(&mut self.program).into_iter();
        let name = words.next().filter(|name| !name.is_empty());
        let name = name.ok_or(format!("exec needs a program, as in forkpool exec -- node app.js{EXEC_HINT}"))?;
        Ok(Program { name, arguments: words.collect() })
    }

    /// Nor are flags for programs alone of any use without one.
    pub(super) fn refuse_the_programs_own(&self) -> Result<(), String> {
        match self.settings.iter().find(|(setting, _)| !setting.concerns_server()) {
            Some((setting, _)) => Err(format!("--{} is for forkpool exec{EXEC_HINT}", setting.name())),
            None => Ok(()),
        }
    }

    /// A flag that does not apply to a program is an error. A variable is not: it may be meant for other pools.
    fn refuse_the_servers_own(&self) -> Result<(), String> {
        let mut settings = self.settings.iter().map(|(setting, _)| setting);
        match settings.find(|setting| !setting.concerns_programs()).map(|setting| setting.name()) {
            None => Ok(()),
            Some("root") => Err(format!("--root serves files and exec a program; leave one out{EXEC_HINT}")),
            Some("access-log") => {
                Err(format!("--access-log logs what forkpool itself answers, not a program; leave it out{EXEC_HINT}"))
            }
            Some(name) => {
                Err(format!("--{name} is for forkpool's own server, not for a program; leave it out{EXEC_HINT}"))
            }
        }
    }

    /// The number of a program's connections is not known. A new program would be given all connections until it had
    /// been given as many as the others over their whole lives.
    fn refuse_to_count(&self, variables: Variables<'_>) -> Result<(), String> {
        let flag = self.settings.iter().find(|(setting, _)| setting.name() == BALANCE);
        let said = flag.map(|(_, value)| (format!("--{BALANCE} "), value.clone()));
        let said = said.or_else(|| read(BALANCE, variables).map(|(variable, value)| (format!("{variable}="), value)));
        match said {
            Some((said, value)) if exec::is_counting(&value) => Err(format!("{said}{value}: {UNCOUNTED}{EXEC_HINT}")),
            _ => Ok(()),
        }
    }
}

pub(super) fn on(name: &str, variables: Variables<'_>) -> Result<Option<bool>, String> {
    let Some((variable, value)) = read(name, variables) else { return Ok(None) };
    match value.as_str() {
        "1" | "true" | "yes" | "on" => Ok(Some(true)),
        "0" | "false" | "no" | "off" => Ok(Some(false)),
        _ => Err(format!("{variable}={}: must be 1 or 0", value.escape_debug())),
    }
}

/// Reads the variable of a flag; an empty one counts as unset.
fn read(name: &str, variables: Variables<'_>) -> Option<(String, String)> {
    let variable = format!("FORKPOOL_{}", name.to_ascii_uppercase());
    let value = variables(&variable).filter(|value| !value.is_empty())?;
    Some((variable, value.to_string_lossy().into_owned()))
}
