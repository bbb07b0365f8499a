//! The layers of a configuration: the settings given at the start, and a file of variables that is read again later.
//!
//! A flag overrides the file, and the file overrides the environment with which the pool was started. In the file,
//! `FORKPOOL_*` are settings of the pool; all other variables are for the workers.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::rc::Rc;

use super::env_file::{self, Line, FILE_MAX};
use super::settings::{quoted, settings, Setting};
use super::{Address, Adopt, Config};
use crate::error::{Error, Result};
use crate::shared::whole_file::read_whole;

/// The prefix of the variables that are settings of the pool.
const OWN: &str = "FORKPOOL_";

/// The layers of a configuration.
#[derive(Clone, Debug)]
pub(crate) struct Layers {
    /// The settings given outside of the file.
    pub(crate) given: Config,
    /// The settings that the file does not override, since a flag or a later call sets them.
    pub(crate) fixed: BTreeSet<&'static str>,
}

impl Layers {
    /// Reads the file and returns the whole configuration, checked.
    ///
    /// # Errors
    ///
    /// As [`Config::check`], with the line number if the file is to blame; and if the file cannot be read.
    pub(crate) fn resolve(&self) -> Result<Config> {
        let mut config = self.given.clone();
        let Some(path) = self.given.process.env_file.clone() else {
            config.listen_for_programs();
            config.check()?;
            return config.loaded();
        };
        let lines = self.read(&path, &mut config)?;
        config.listen_for_programs();
        config.check().map_err(|error| match error {
            Error::Config { setting, problem } => match lines.get(setting.as_str()) {
                Some(line) => Error::config(format!("{}:{line}: {setting}", path.display()), problem),
                None => Error::Config { setting, problem },
            },
            error => error,
        })?;
        config.loaded()
    }

    /// Reads the file into a configuration; returns the line that has set each setting.
    fn read(&self, path: &Path, config: &mut Config) -> Result<BTreeMap<&'static str, usize>> {
        let shown = path.display();
        let bytes = read_whole(path, FILE_MAX).map_err(|source| Error::File {
            path: shown.to_string(),
            action: "read variables from",
            source,
        })?;
        let lines = env_file::parse(&bytes).map_err(|flaw| match flaw.line {
            0 => Error::config(shown.to_string(), flaw.problem),
            line => Error::config(format!("{shown}:{line}"), flaw.problem),
        })?;
        let (mut decided, mut environment) = (BTreeMap::new(), Vec::new());
        for Line { number, name, value } in lines {
            let flaw = |problem: String| Error::config(format!("{shown}:{number}"), problem);
            if !name.starts_with(OWN) {
                environment.push((name, OsString::from_vec(value)));
                continue;
            }
            let setting = setting_of(&name).map_err(flaw)?;
            if config.program.are_all && !setting.concerns_programs() {
                return Err(flaw(format!("{name} is for forkpool's own server, not for a program; leave it out")));
            }
            let Ok(value) = String::from_utf8(value) else { return Err(flaw(format!("{name} is not valid UTF-8"))) };
            // As everywhere, an empty value counts as unset.
            if value.is_empty() {
                continue;
            }
            // A value that is overridden must be valid all the same.
            let is_fixed = self.fixed.contains(setting.name());
            let mut unused = is_fixed.then(|| config.clone());
            let target = unused.as_mut().unwrap_or(config);
            setting.apply(target, &value).map_err(|problem| flaw(format!("{}: {problem}", quoted(&name, &value))))?;
            if !is_fixed {
                decided.insert(setting.name(), number);
            }
        }
        config.process.environment = Rc::new(environment);
        Ok(decided)
    }
}

fn setting_of(name: &str) -> std::result::Result<&'static Setting, String> {
    let setting = settings().find(|setting| setting.variable() == name);
    match setting {
        Some(setting) if setting.name() == "env-file" => {
            Err(format!("{name}: a file of variables cannot name another one"))
        }
        Some(setting) => Ok(setting),
        None => Err(format!(
            "{name}: there is no such setting; settings of the command itself, such as FORKPOOL_QUIET, must be flags \
             or variables of its environment"
        )),
    }
}

impl Config {
    /// The configuration after a restart with `next`: its values, except for those of settings that need an upgrade.
    /// Also returns the changed settings that need one.
    pub(crate) fn succeeded_by(&self, mut next: Config) -> (Config, Vec<&'static Setting>) {
        let changed = settings().filter(|setting| setting.shown(self) != setting.shown(&next));
        let kept: Vec<_> = changed.filter(|setting| setting.needs_upgrade()).collect();
        kept.iter().for_each(|setting| setting.copy(self, &mut next));
        (next, kept)
    }
}

impl Config {
    /// Makes `:PORT` mean IPv4 if programs that bind an address get the pool's socket. A program for IPv4 would misread
    /// the addresses of an IPv6 socket, while a program for IPv6 understands both.
    fn listen_for_programs(&mut self) {
        if !self.program.are_all || self.program.adopt == Adopt::Off {
            return;
        }
        for address in &mut self.listening.addresses {
            if let Address::Any(port) = address {
                *address = Address::Tcp((Ipv4Addr::UNSPECIFIED, *port).into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_address_is_that_of_ipv4_for_programs_that_get_the_pool_s_socket() {
        let listen = |are_all: bool, adopt: Adopt| {
            let mut config = Config::default();
            config.listening.addresses =
                [":80", "[::]:81", "unix:a"].map(|it| it.parse().expect("an address")).to_vec();
            (config.program.are_all, config.program.adopt) = (are_all, adopt);
            let resolved = Layers { given: config, fixed: BTreeSet::new() }.resolve().expect("valid");
            resolved.listening.addresses.iter().map(Address::to_string).collect::<Vec<_>>()
        };
        assert_eq!(listen(true, Adopt::Auto), ["0.0.0.0:80", "[::]:81", "unix:a"]);
        for (are_all, adopt) in [(true, Adopt::Off), (false, Adopt::Auto)] {
            assert_eq!(listen(are_all, adopt), [":80", "[::]:81", "unix:a"]);
        }
    }

    #[test]
    fn all_that_a_restart_can_apply_is_taken_over() {
        let old = Config::default();
        for setting in settings() {
            let mut next = old.clone();
            setting.apply(&mut next, setting.another_value()).unwrap_or_else(|it| panic!("{}: {it}", setting.name()));
            let (found, kept) = old.succeeded_by(next.clone());
            let expected = if setting.needs_upgrade() { &old } else { &next };
            assert_eq!(format!("{found:?}"), format!("{expected:?}"), "{}", setting.name());
            assert_eq!(kept.len(), usize::from(setting.needs_upgrade()), "{}", setting.name());
        }
        let names: Vec<_> = settings().filter(|it| !it.needs_upgrade()).map(Setting::name).collect();
        for name in ["drain-timeout", "boot-timeout", "max-age", "max-body", "idle-timeout", "root", "chdir", "workers"]
        {
            assert!(names.contains(&name), "{name}: {names:?}");
        }
        for name in ["listen", "user", "group", "admin", "pid-file", "access-log", "backlog", "env-file"] {
            assert!(!names.contains(&name), "{name}: {names:?}");
        }
    }
}
