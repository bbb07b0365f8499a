//! PURE. The settings, each written once: its flag, its variable, its help text, the kind of its value, and its field
//! in the configuration.
//!
//! Help, man page, completions, variables, checks and the defaults shown there follow from these units. Only [`Config`]
//! holds the defaults themselves, as values. There is one file for each section of the help.
//!
//! A new setting is a field with its default in `groups.rs`, `server.rs` or `tls.rs` of the configuration, a unit here,
//! in the file of its section, and a method in `pool/builder/`, whose documentation a test compares with the help text.
//! The unit says whether a restart applies a change ([`Setting::on_restart`]). Then `parent/deploy/` must apply it,
//! unless workers get it when they start.
#![forbid(unsafe_code)]

use std::ffi::OsString;

use self::field::Field;
use super::Config;

/// The field of [`Config`] at this path, which holds a value of this kind.
macro_rules! at {
    ($($part:ident).+, $kind:expr) => {{
        use $crate::shared::config::settings::field::{At, Field};
        const FIELD: &dyn Field =
            &At { kind: $kind, get: |config| &config.$($part).+, get_mut: |config| &mut config.$($part).+ };
        FIELD
    }};
}

mod access_log;
mod admin;
mod field;
mod files;
mod kind;
mod limits;
mod listening;
mod process;
mod programs;
mod replacing;
mod timeouts;
mod tls;
mod workers;

/// All settings, in the order of the help.
const SECTIONS: [&[Setting]; 11] = [
    programs::SETTINGS,
    listening::SETTINGS,
    tls::SETTINGS,
    workers::SETTINGS,
    replacing::SETTINGS,
    limits::SETTINGS,
    timeouts::SETTINGS,
    files::SETTINGS,
    access_log::SETTINGS,
    admin::SETTINGS,
    process::SETTINGS,
];

/// A setting of a pool: a flag of the binary, a variable, and a method of [`Builder`](crate::Builder).
#[derive(Debug)]
pub struct Setting {
    section: Section,
    name: &'static str,
    value_name: &'static str,
    help: &'static str,
    aliases: &'static [Alias],
    /// What separates several values.
    separator: Option<char>,
    applies_to: AppliesTo,
    /// The default depends on what the workers run; the help text says how.
    is_default_in_help: bool,
    /// A change takes an upgrade, not only a restart.
    needs_upgrade: bool,
    field: &'static dyn Field,
}

/// The pools to which a setting applies, by what their workers run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AppliesTo {
    All,
    /// The built-in server.
    Server,
    /// Programs ([`Worker::exec`](crate::Worker::exec)).
    Programs,
}

/// A section of the help.
#[derive(Clone, Copy, Debug)]
struct Section(&'static str);

/// A variable of other programs with the same meaning.
#[derive(Debug)]
struct Alias {
    variable: &'static str,
    /// A prefix that makes its value one of this setting.
    prefix: &'static str,
}

/// All settings, in the order of the help.
pub fn settings() -> impl Iterator<Item = &'static Setting> {
    SECTIONS.into_iter().flatten()
}

impl Setting {
    const fn new(
        section: Section,
        name: &'static str,
        value_name: &'static str,
        field: &'static dyn Field,
        help: &'static str,
    ) -> Setting {
        Setting {
            section,
            name,
            value_name,
            help,
            aliases: &[],
            separator: None,
            applies_to: AppliesTo::All,
            is_default_in_help: false,
            // Always safe.
            needs_upgrade: true,
            field,
        }
    }

    const fn also_read(self, aliases: &'static [Alias]) -> Setting {
        Setting { aliases, ..self }
    }

    /// A list. Values that may contain commas and blanks are separated by line feeds.
    const fn list(self, separator: char) -> Setting {
        Setting { separator: Some(separator), ..self }
    }

    /// Workers get the settings of the server when they start, so a restart applies them.
    const fn of_the_server(self) -> Setting {
        Setting { applies_to: AppliesTo::Server, needs_upgrade: false, ..self }
    }

    /// Keepers get the settings of programs when they start, too.
    const fn of_programs(self) -> Setting {
        Setting { applies_to: AppliesTo::Programs, needs_upgrade: false, ..self }
    }

    /// A rolling restart applies a change (`--env-file`).
    const fn on_restart(self) -> Setting {
        Setting { needs_upgrade: false, ..self }
    }

    /// Only an upgrade applies a change.
    const fn on_upgrade(self) -> Setting {
        Setting { needs_upgrade: true, ..self }
    }

    const fn default_in_help(self) -> Setting {
        Setting { is_default_in_help: true, ..self }
    }

    /// The flag's name without dashes, as in `drain-timeout`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The variable's name, as in `FORKPOOL_DRAIN_TIMEOUT`.
    pub fn variable(&self) -> String {
        format!("FORKPOOL_{}", self.name.replace('-', "_").to_ascii_uppercase())
    }

    /// Other variables that are read if that one is not set, in order of precedence.
    pub fn aliases(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.aliases.iter().map(|alias| alias.variable)
    }

    /// What kind of value it takes, such as `DURATION`.
    pub fn value_name(&self) -> &'static str {
        self.value_name
    }

    /// The words that it takes as values, such as `auto` and `off`. Some settings take other values, too; many take no
    /// words.
    pub fn words(&self) -> Vec<&'static str> {
        self.field.words()
    }

    /// The default; `None` if it is off by default, or the help text describes the default.
    pub fn default(&self) -> Option<String> {
        if self.is_default_in_help {
            None
        } else {
            self.shown(&Config::default())
        }
    }

    /// What the setting does, in one sentence without a full stop.
    pub fn help(&self) -> &'static str {
        self.help
    }

    /// The heading of its section, such as `HTTP limits`. Settings of a section follow each other.
    pub fn heading(&self) -> &'static str {
        self.section.0
    }

    /// The separator of its values if it takes several: a comma, also for blanks, or a line feed.
    pub fn separator(&self) -> Option<char> {
        self.separator
    }

    /// Whether it also applies to pools whose workers are programs, and not to the built-in server alone.
    pub fn concerns_programs(&self) -> bool {
        self.applies_to != AppliesTo::Server
    }

    /// Whether it applies to a pool with the built-in server, and not to programs only.
    pub fn concerns_server(&self) -> bool {
        self.applies_to != AppliesTo::Programs
    }

    /// Whether a change in the file of variables ([`Builder::env_file`](crate::Builder::env_file)) needs an upgrade. A
    /// rolling restart applies changes of all other settings.
    pub fn needs_upgrade(&self) -> bool {
        self.needs_upgrade
    }

    pub(crate) fn named(name: &str) -> Option<&'static Setting> {
        settings().find(|setting| setting.name == name)
    }

    /// The variable that applies, and its value. An empty variable counts as unset.
    pub(crate) fn variable_set(&self, source: &dyn Fn(&str) -> Option<OsString>) -> Option<(String, OsString, &str)> {
        let read = |variable: &str| source(variable).filter(|value| !value.is_empty());
        let own = self.variable();
        if let Some(value) = read(&own) {
            return Some((own, value, ""));
        }
        self.aliases.iter().find_map(|alias| Some((alias.variable.to_owned(), read(alias.variable)?, alias.prefix)))
    }

    /// Sets it from text.
    ///
    /// # Errors
    ///
    /// What is wrong with the text, and what would be right.
    pub(crate) fn apply(&self, config: &mut Config, text: &str) -> Result<(), String> {
        self.field.apply(config, text).map_err(|problem| on_one_line(&problem) + &suggestion(&self.words(), text))?;
        self.check(config)
    }

    /// Makes it in one configuration what it is in another.
    pub(crate) fn copy(&self, from: &Config, to: &mut Config) {
        self.field.copy(from, to);
    }

    pub(crate) fn check(&self, config: &Config) -> Result<(), String> {
        self.field.check(config)
    }

    /// The text that would set what is in `config`; `None` if the setting is off.
    pub(crate) fn shown(&self, config: &Config) -> Option<String> {
        self.field.show(config)
    }
}

/// Suggests the word that was probably meant, if one is similar enough.
fn suggestion(words: &[&str], text: &str) -> String {
    let likeness = |word: &str| strsim::jaro(&text.to_lowercase(), &word.to_lowercase());
    let words = words.iter().map(|word| (likeness(word), word));
    match words.max_by(|(one, _), (other, _)| one.total_cmp(other)) {
        Some((likeness, word)) if likeness > ALIKE => format!("; did you mean {word}?"),
        _ => String::new(),
    }
}

/// How similar a word must be to be suggested, from 0 to 1.
const ALIKE: f64 = 0.75;

/// A setting and its value as the user wrote them, on one line whatever is in them.
pub(crate) fn quoted(name: &str, value: &str) -> String {
    let value = if value.is_empty() { "\"\"" } else { &value.escape_debug().to_string() };
    let separator = if name.starts_with("--") { ' ' } else { '=' };
    format!("{}{separator}{value}", name.escape_debug())
}

/// Escapes control characters: a problem may quote the given text, which may be anything.
fn on_one_line(problem: &str) -> String {
    let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    problem.chars().map(shown).collect()
}

#[cfg(test)]
mod tests;
