//! PURE. When a program that a worker executes counts as ready.
#![forbid(unsafe_code)]

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::values::{duration, shown_duration};
use crate::error::{Error, Result};

/// When the program that a worker runs by [`Worker::exec`](crate::Worker::exec) counts as ready:
/// [`Builder::ready`](crate::Builder::ready).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Readiness {
    /// When the program, or another process that it has started, waits for connections on one of the pool's sockets, or
    /// reports that it is ready as with [`Notify`](Readiness::Notify). While connections queue, it need not wait: it is
    /// ready when it has accepted one. If the wait cannot be observed, because the processes may not be inspected or
    /// use io_uring(7), the program counts as ready after a second.
    #[default]
    Auto,
    /// Once it is executed. Its sockets listen already, so connections wait until it accepts. A program that cannot
    /// serve because of a bug counts as ready, too.
    Listen,
    /// When the program, or another process of its user or of root, sends `READY=1` to the socket in `NOTIFY_SOCKET`
    /// (sd_notify(3)).
    Notify,
    /// This time after it is executed, at most 24 h.
    Delay(Duration),
    /// When it waits for connections, as with [`Auto`](Readiness::Auto), and answers a GET request with a status of 200
    /// to 399. Needs a TCP address.
    Http(Probe),
}

/// The request of [`Readiness::Http`]. It is read from `/path`, or from `//host/path` to send another Host field than
/// `localhost`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Probe {
    host: Option<String>,
    path: String,
}

impl Probe {
    /// The Host field of the request; `None` for `localhost`.
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// The path, with the query if there is one.
    pub fn path(&self) -> &str {
        &self.path
    }

    fn parse(text: &str) -> std::result::Result<Probe, String> {
        let (host, path) = match text.strip_prefix("//") {
            Some(rest) => {
                let (host, _) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                (Some(host.to_owned()), rest.get(host.len()..).unwrap_or_default())
            }
            None => (None, text),
        };
        let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
        let is_path = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
        match () {
            () if host.as_ref().is_some_and(|host| host.is_empty() || !host.bytes().all(is_host)) => {
                Err("http: must name a host between // and the path, as in http://example.org/ready".to_owned())
            }
            () if !path.starts_with('/') || !path.bytes().all(is_path) || path.len() > PATH_MAX => {
                Err("http: must be followed by a path without blanks, as in http:/ready".to_owned())
            }
            () => Ok(Probe { host, path: path.to_owned() }),
        }
    }
}

/// The maximum length of the path.
const PATH_MAX: usize = 1024;

/// Reads what follows `http:` in a value of the setting `ready`.
impl FromStr for Probe {
    type Err = Error;

    fn from_str(text: &str) -> Result<Probe> {
        Probe::parse(text).map_err(|problem| Error::config(SETTING, problem))
    }
}

/// Writes the value in the form in which it is read.
impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Some(host) => f.pad(&format!("//{host}{}", self.path)),
            None => f.pad(&self.path),
        }
    }
}

/// The maximum delay, which is that of every time setting.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The setting that these values belong to.
const SETTING: &str = "ready";

impl Readiness {
    /// Reads `auto`, `listen`, `notify`, `delay:500ms` and `http:/path`.
    pub(super) fn parse(text: &str) -> std::result::Result<Readiness, String> {
        match text.split_once(':') {
            None if text == "auto" => Ok(Readiness::Auto),
            None if text == "listen" => Ok(Readiness::Listen),
            None if text == "notify" => Ok(Readiness::Notify),
            Some(("delay", delay)) => {
                let read = |delay: &str| duration(delay).map_err(|problem| format!("the delay {problem}"));
                // A bare number has always meant milliseconds here, unlike elsewhere.
                delay.parse().map(Duration::from_millis).or_else(|_| read(delay)).map(Readiness::Delay)
            }
            Some(("http", probe)) => Probe::parse(probe).map(Readiness::Http),
            _ => Err("must be auto, listen, notify, http:PATH or delay:DURATION, as in delay:500ms".to_owned()),
        }
    }

    /// Checks the value, which may come from text or from code.
    pub(super) fn check(&self) -> std::result::Result<(), String> {
        match self {
            Readiness::Delay(delay) if *delay > DAY => Err("the delay must be at most 24h".to_owned()),
            _ => Ok(()),
        }
    }
}

/// Reads a value of the setting `ready`.
impl FromStr for Readiness {
    type Err = Error;

    fn from_str(text: &str) -> Result<Readiness> {
        let read = Readiness::parse(text).and_then(|it| it.check().map(|()| it));
        read.map_err(|problem| Error::config(SETTING, problem))
    }
}

/// Writes a value of the setting `ready`.
impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Readiness::Auto => f.pad("auto"),
            Readiness::Listen => f.pad("listen"),
            Readiness::Notify => f.pad("notify"),
            Readiness::Http(probe) => f.pad(&format!("http:{probe}")),
            Readiness::Delay(delay) => f.pad(&format!("delay:{}", shown_delay(*delay))),
        }
    }
}

/// A bare number would be read as milliseconds.
fn shown_delay(delay: Duration) -> String {
    match shown_duration(delay) {
        zero if zero == "0" => "0s".to_owned(),
        shown => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(host: Option<&str>, path: &str) -> Readiness {
        Readiness::Http(Probe { host: host.map(str::to_owned), path: path.to_owned() })
    }

    #[test]
    fn it_is_read_as_it_is_written() {
        for (text, expected, written) in [
            ("auto", Readiness::Auto, "auto"),
            ("listen", Readiness::Listen, "listen"),
            ("notify", Readiness::Notify, "notify"),
            ("delay:500ms", Readiness::Delay(Duration::from_millis(500)), "delay:500ms"),
            ("delay:500", Readiness::Delay(Duration::from_millis(500)), "delay:500ms"),
            ("delay:2s", Readiness::Delay(Duration::from_secs(2)), "delay:2s"),
            ("delay:0", Readiness::Delay(Duration::ZERO), "delay:0s"),
            ("http:/a?b=c", http(None, "/a?b=c"), "http:/a?b=c"),
            ("http://a.example:81/b", http(Some("a.example:81"), "/b"), "http://a.example:81/b"),
            ("http://[::1]/", http(Some("[::1]"), "/"), "http://[::1]/"),
        ] {
            let read: Readiness = text.parse().expect(text);
            assert_eq!((read.to_string().as_str(), &read), (written, &expected));
            assert_eq!(written.parse::<Readiness>().ok(), Some(expected));
        }
        for text in [
            "http:",
            "http:x",
            "http:/a b",
            "http:/\u{e9}",
            "http://",
            "http:///x",
            "http://a b/",
            "http://a",
            "http:/a\r\nb: c",
        ] {
            assert!(text.parse::<Readiness>().expect_err(text).to_string().starts_with("ready: http: must"), "{text}");
        }
        for text in ["", "soon", "Auto", "delay", "delay:", "delay:x", "delay:-1", "delay:86400001", "delay:25h"] {
            let problem = text.parse::<Readiness>().expect_err(text).to_string();
            assert!(problem.starts_with("ready: ") && problem.contains("must be"), "{problem}");
        }
    }
}
