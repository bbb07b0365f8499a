//! PURE. The kinds of values: how to parse, check and format each.
#![forbid(unsafe_code)]

use std::fmt::{Debug, Display};
use std::marker::PhantomData;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::shared::config::choices::Choose;
use crate::shared::config::values::{
    bytes, duration, flag, host_name, is_visible, list, mode, number, shown_bytes, shown_duration, text, timeout,
    within,
};
use crate::shared::config::{AccessLogFormat, Address, Config, Proxies, Readiness};

/// A kind of value.
pub(super) trait Kind: Debug + Sync {
    type Value: Clone + Debug;

    /// # Errors
    ///
    /// What is wrong with the text, and what would be right.
    fn parse(&self, text: &str) -> Result<Self::Value, String>;

    /// Whether the value is valid by itself, however it was set.
    fn check(&self, _value: &Self::Value) -> Result<(), String> {
        Ok(())
    }

    /// The value as text that can be parsed again; `None` if no text means it.
    fn show(&self, value: &Self::Value) -> Option<String>;

    /// The words among the values.
    fn words(&self) -> Vec<&'static str> {
        Vec::new()
    }
}

/// A time with a minimum; zero is never.
#[derive(Debug)]
pub(super) struct Timeout {
    pub(super) least: Duration,
}

impl Timeout {
    /// The minimum is the resolution of the clock.
    pub(super) const ANY: Timeout = Timeout { least: Duration::from_millis(1) };
}

impl Kind for Timeout {
    type Value = Duration;

    fn parse(&self, text: &str) -> Result<Duration, String> {
        duration(text)
    }

    fn check(&self, value: &Duration) -> Result<(), String> {
        timeout(*value, self.least)
    }

    fn show(&self, value: &Duration) -> Option<String> {
        Some(shown_duration(*value))
    }
}

/// A number of bytes.
#[derive(Debug)]
pub(super) struct Size {
    pub(super) least: usize,
    pub(super) most: usize,
}

impl Size {
    pub(super) const ANY: Size = Size { least: 0, most: usize::MAX };
}

impl Kind for Size {
    type Value = usize;

    fn parse(&self, text: &str) -> Result<usize, String> {
        bytes(text)
    }

    fn check(&self, value: &usize) -> Result<(), String> {
        within(*value, self.least..=self.most)
    }

    fn show(&self, value: &usize) -> Option<String> {
        Some(shown_bytes(*value))
    }
}

/// A whole number.
#[derive(Debug)]
pub(super) struct Number<N> {
    pub(super) least: N,
    pub(super) most: N,
}

impl<N: Copy + Debug + Display + FromStr + PartialOrd + Sync> Kind for Number<N> {
    type Value = N;

    fn parse(&self, text: &str) -> Result<N, String> {
        number(text)
    }

    fn check(&self, value: &N) -> Result<(), String> {
        within(*value, self.least..=self.most)
    }

    fn show(&self, value: &N) -> Option<String> {
        Some(value.to_string())
    }
}

/// `yes` or `no`.
#[derive(Debug)]
pub(super) struct YesNo;

impl Kind for YesNo {
    type Value = bool;

    fn parse(&self, text: &str) -> Result<bool, String> {
        flag(text)
    }

    fn show(&self, value: &bool) -> Option<String> {
        Some(if *value { "yes" } else { "no" }.to_owned())
    }

    fn words(&self) -> Vec<&'static str> {
        vec!["yes", "no"]
    }
}

/// A word that names a value of an enum.
#[derive(Debug)]
pub(super) struct Choice<E>(PhantomData<E>);

impl<E> Choice<E> {
    pub(super) const fn new() -> Choice<E> {
        Choice(PhantomData)
    }
}

impl<E: Choose + Debug + Sync> Kind for Choice<E> {
    type Value = E;

    fn parse(&self, text: &str) -> Result<E, String> {
        E::named(text)
    }

    fn show(&self, value: &E) -> Option<String> {
        Some(value.name().to_owned())
    }

    fn words(&self) -> Vec<&'static str> {
        E::NAMES.iter().map(|(name, _)| *name).collect()
    }
}

/// A value of another kind, or none.
#[derive(Debug)]
pub(super) struct Optional<K>(pub(super) K);

impl<K: Kind> Kind for Optional<K> {
    type Value = Option<K::Value>;

    fn parse(&self, text: &str) -> Result<Option<K::Value>, String> {
        self.0.parse(text).map(Some)
    }

    fn check(&self, value: &Option<K::Value>) -> Result<(), String> {
        value.as_ref().map_or(Ok(()), |value| self.0.check(value))
    }

    fn show(&self, value: &Option<K::Value>) -> Option<String> {
        value.as_ref().and_then(|value| self.0.show(value))
    }

    fn words(&self) -> Vec<&'static str> {
        self.0.words()
    }
}

/// The number of workers, or `auto` for one per CPU.
#[derive(Debug)]
pub(super) struct Workers;

impl Workers {
    fn problem() -> String {
        format!("must be 1 to {}, or auto", Config::WORKERS_MAX)
    }
}

impl Kind for Workers {
    type Value = Option<usize>;

    fn parse(&self, text: &str) -> Result<Option<usize>, String> {
        match text {
            "auto" => Ok(None),
            _ => number(text).map(Some).map_err(|_| Workers::problem()),
        }
    }

    fn check(&self, value: &Option<usize>) -> Result<(), String> {
        match value {
            Some(workers) => within(*workers, 1..=Config::WORKERS_MAX).map_err(|_| Workers::problem()),
            None => Ok(()),
        }
    }

    fn show(&self, value: &Option<usize>) -> Option<String> {
        Some(value.map_or_else(|| "auto".to_owned(), |workers| workers.to_string()))
    }

    fn words(&self) -> Vec<&'static str> {
        vec!["auto"]
    }
}

/// Permission bits, in octal.
#[derive(Debug)]
pub(super) struct Mode;

impl Kind for Mode {
    type Value = u32;

    fn parse(&self, text: &str) -> Result<u32, String> {
        mode(text)
    }

    fn check(&self, value: &u32) -> Result<(), String> {
        match value {
            0..=0o777 => Ok(()),
            _ => Err("must be permission bits, 0 to 0777 in octal".into()),
        }
    }

    fn show(&self, value: &u32) -> Option<String> {
        Some(format!("{value:04o}"))
    }
}

/// The name of a user or a group.
#[derive(Debug)]
pub(super) struct Name;

impl Kind for Name {
    type Value = String;

    fn parse(&self, value: &str) -> Result<String, String> {
        text(value)
    }

    fn check(&self, value: &String) -> Result<(), String> {
        not_empty(value.is_empty())
    }

    fn show(&self, value: &String) -> Option<String> {
        Some(value.clone())
    }
}

/// A path.
#[derive(Debug)]
pub(super) struct FilePath;

impl Kind for FilePath {
    type Value = PathBuf;

    fn parse(&self, value: &str) -> Result<PathBuf, String> {
        text(value).map(Into::into)
    }

    fn check(&self, value: &PathBuf) -> Result<(), String> {
        not_empty(value.as_os_str().is_empty())
    }

    fn show(&self, value: &PathBuf) -> Option<String> {
        Some(value.display().to_string())
    }
}

/// The value of a header field, in visible ASCII.
#[derive(Debug)]
pub(super) struct FieldValue;

impl Kind for FieldValue {
    type Value = String;

    fn parse(&self, value: &str) -> Result<String, String> {
        text(value)
    }

    fn check(&self, value: &String) -> Result<(), String> {
        not_empty(value.is_empty())?;
        match is_visible(value) {
            true => Ok(()),
            false => Err("must be visible ASCII, as in max-age=600".to_owned()),
        }
    }

    fn show(&self, value: &String) -> Option<String> {
        Some(value.clone())
    }
}

/// An address.
#[derive(Debug)]
pub(super) struct OneAddress;

impl Kind for OneAddress {
    type Value = Address;

    fn parse(&self, text: &str) -> Result<Address, String> {
        text.parse()
    }

    fn show(&self, value: &Address) -> Option<String> {
        Some(value.to_string())
    }
}

/// Host names, without ports.
#[derive(Debug)]
pub(super) struct HostNames;

impl Kind for HostNames {
    type Value = Vec<String>;

    fn parse(&self, text: &str) -> Result<Vec<String>, String> {
        Ok(list(text).map(str::to_owned).collect())
    }

    fn check(&self, value: &Vec<String>) -> Result<(), String> {
        value.iter().try_for_each(|name| host_name(name))
    }

    fn show(&self, value: &Vec<String>) -> Option<String> {
        (!value.is_empty()).then(|| value.join(","))
    }
}

/// Patterns of paths, separated by commas.
#[derive(Debug)]
pub(super) struct Patterns;

impl Kind for Patterns {
    type Value = Vec<String>;

    fn parse(&self, text: &str) -> Result<Vec<String>, String> {
        Ok(text.split(',').map(|pattern| pattern.trim().to_owned()).collect())
    }

    fn check(&self, value: &Vec<String>) -> Result<(), String> {
        value.iter().try_for_each(|pattern| not_empty(pattern.is_empty()))
    }

    fn show(&self, value: &Vec<String>) -> Option<String> {
        (!value.is_empty()).then(|| value.join(","))
    }
}

/// Rules, one on each line.
#[derive(Debug)]
pub(super) struct Lines<R>(PhantomData<R>);

impl<R> Lines<R> {
    pub(super) const fn new() -> Lines<R> {
        Lines(PhantomData)
    }
}

impl<R: Clone + Debug + Display + FromStr<Err = String> + Sync> Kind for Lines<R> {
    type Value = Vec<R>;

    fn parse(&self, text: &str) -> Result<Vec<R>, String> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        lines.map(|line| line.parse().map_err(|problem| format!("{line}: {problem}"))).collect()
    }

    fn show(&self, value: &Vec<R>) -> Option<String> {
        let lines: Vec<String> = value.iter().map(R::to_string).collect();
        (!lines.is_empty()).then(|| lines.join("\n"))
    }
}

/// Networks, addresses, and the word `unix`.
#[derive(Debug)]
pub(super) struct Networks;

impl Kind for Networks {
    type Value = Proxies;

    fn parse(&self, text: &str) -> Result<Proxies, String> {
        Proxies::parse(text)
    }

    fn show(&self, value: &Proxies) -> Option<String> {
        (!value.is_empty()).then(|| value.to_string())
    }
}

/// A value with a syntax of its own.
#[derive(Debug)]
pub(super) struct Custom<V>(PhantomData<V>);

impl<V> Custom<V> {
    pub(super) const fn new() -> Custom<V> {
        Custom(PhantomData)
    }
}

/// What a type must have for [`Custom`].
pub(super) trait Syntax: Clone + Debug + Display + Sync {
    /// The words among its values.
    fn words() -> Vec<&'static str>;

    /// # Errors
    ///
    /// What is wrong with the text, and what would be right.
    fn parse(text: &str) -> Result<Self, String>;

    /// Whether it is valid, however it was made.
    fn check(&self) -> Result<(), String>;
}

impl<V: Syntax> Kind for Custom<V> {
    type Value = V;

    fn parse(&self, text: &str) -> Result<V, String> {
        V::parse(text)
    }

    fn check(&self, value: &V) -> Result<(), String> {
        value.check()
    }

    fn show(&self, value: &V) -> Option<String> {
        Some(value.to_string())
    }

    fn words(&self) -> Vec<&'static str> {
        V::words()
    }
}

impl Syntax for Readiness {
    fn words() -> Vec<&'static str> {
        vec!["auto", "listen", "notify"]
    }

    fn parse(text: &str) -> Result<Readiness, String> {
        Readiness::parse(text)
    }

    fn check(&self) -> Result<(), String> {
        self.check()
    }
}

impl Syntax for AccessLogFormat {
    fn words() -> Vec<&'static str> {
        AccessLogFormat::NAMES.iter().map(|(name, _)| *name).collect()
    }

    fn parse(text: &str) -> Result<AccessLogFormat, String> {
        AccessLogFormat::parse(text)
    }

    fn check(&self) -> Result<(), String> {
        self.check()
    }
}

pub(super) fn not_empty(is_empty: bool) -> Result<(), String> {
    match is_empty {
        true => Err("must not be empty".into()),
        false => Ok(()),
    }
}
