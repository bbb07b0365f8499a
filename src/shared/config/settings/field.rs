//! PURE. Where in a configuration a setting's value is.
#![forbid(unsafe_code)]

use std::fmt::Debug;

use super::kind::Kind;
use crate::shared::config::values::list;
use crate::shared::config::{Address, Config};

/// A part of the configuration, whatever its type.
pub(super) trait Field: Debug + Sync {
    /// # Errors
    ///
    /// What is wrong with the text, and what would be right.
    fn apply(&self, config: &mut Config, text: &str) -> Result<(), String>;

    /// Whether the value makes sense on its own, however it came in.
    fn check(&self, config: &Config) -> Result<(), String>;

    /// The text that would set what is there; `None` when the thing is off.
    fn show(&self, config: &Config) -> Option<String>;

    /// Puts what is in one configuration into another.
    fn copy(&self, from: &Config, to: &mut Config);
}

/// A field with a value of some kind.
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

    fn copy(&self, from: &Config, to: &mut Config) {
        *(self.get_mut)(to) = (self.get)(from).clone();
    }
}

/// The addresses to listen on, of which there need be none where datagrams are taken.
#[derive(Debug)]
pub(super) struct Listen;

impl Field for Listen {
    fn apply(&self, config: &mut Config, text: &str) -> Result<(), String> {
        let parse = |item: &str| item.parse::<Address>().map_err(|problem| format!("{item} {problem}"));
        config.addresses = list(text).map(parse).collect::<Result<_, _>>()?;
        Ok(())
    }

    fn check(&self, config: &Config) -> Result<(), String> {
        match config.addresses.is_empty() && config.udp.is_empty() {
            true => Err("needs an address, as in 127.0.0.1:8000".into()),
            false => Ok(()),
        }
    }

    fn show(&self, config: &Config) -> Option<String> {
        let addresses: Vec<String> = config.addresses.iter().map(Address::to_string).collect();
        (!addresses.is_empty()).then(|| addresses.join(","))
    }

    fn copy(&self, from: &Config, to: &mut Config) {
        to.addresses.clone_from(&from.addresses);
    }
}
