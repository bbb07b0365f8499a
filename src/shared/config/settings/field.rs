//! PURE. The fields of a configuration that hold the settings.
#![forbid(unsafe_code)]

use std::fmt::Debug;

use super::kind::Kind;
use crate::shared::config::values::list;
use crate::shared::config::{Address, Config};

/// A field of the configuration, whatever its type.
pub(super) trait Field: Debug + Sync {
    /// Parses a value and stores it.
    ///
    /// # Errors
    ///
    /// What is wrong with the text, and what would be right.
    fn apply(&self, config: &mut Config, text: &str) -> Result<(), String>;

    /// Whether the value is valid by itself, however it was set.
    fn check(&self, config: &Config) -> Result<(), String>;

    /// The value as text that can be parsed again; `None` if the setting is off.
    fn show(&self, config: &Config) -> Option<String>;

    /// The words among its values.
    fn words(&self) -> Vec<&'static str> {
        Vec::new()
    }

    /// Copies the value from one configuration to another.
    fn copy(&self, from: &Config, to: &mut Config);
}

/// A field with a value of a certain kind.
#[derive(Debug)]
pub(super) struct At<K: Kind> {
    pub(super) kind: K,
    pub(super) get: fn(&Config) -> &K::Value,
    pub(super) get_mut: fn(&mut Config) -> &mut K::Value,
}

impl<K: Kind> Field for At<K> {
    fn apply(&self, config: &mut Config, text: &str) -> Result<(), String> {
        *(self.get_mut)(config) = self.kind.parse(text)?;
        Ok(())
    }

    fn check(&self, config: &Config) -> Result<(), String> {
        self.kind.check((self.get)(config))
    }

    fn show(&self, config: &Config) -> Option<String> {
        self.kind.show((self.get)(config))
    }

    fn words(&self) -> Vec<&'static str> {
        self.kind.words()
    }

    fn copy(&self, from: &Config, to: &mut Config) {
        *(self.get_mut)(to) = (self.get)(from).clone();
    }
}

/// The addresses to listen on. The list may be empty if there are UDP addresses.
#[derive(Debug)]
pub(super) struct Listen;

impl Field for Listen {
    fn apply(&self, config: &mut Config, text: &str) -> Result<(), String> {
        let parse = |item: &str| item.parse::<Address>().map_err(|problem| format!("{item} {problem}"));
        config.listening.addresses = list(text).map(parse).collect::<Result<_, _>>()?;
        Ok(())
    }

    fn check(&self, config: &Config) -> Result<(), String> {
        match config.listened().is_empty() && config.listening.udp.is_empty() {
            true => Err("needs an address, as in 127.0.0.1:8000".into()),
            false => Ok(()),
        }
    }

    fn show(&self, config: &Config) -> Option<String> {
        let addresses: Vec<String> = config.listening.addresses.iter().map(Address::to_string).collect();
        (!addresses.is_empty()).then(|| addresses.join(","))
    }

    fn copy(&self, from: &Config, to: &mut Config) {
        to.listening.addresses.clone_from(&from.listening.addresses);
    }
}
