//! Commands: which exist, who may give them, and how they are sent to the parent.

use log::LevelFilter;

use super::Service;
use crate::admin::status::{accepted, refused, State};
use crate::server::answer::response::Response;
use crate::server::http;
use crate::shared::config::Config;
use crate::shared::request::{Asker, Request};
use crate::worker::Worker;

const LEVELS: [LevelFilter; 6] = [
    LevelFilter::Off,
    LevelFilter::Error,
    LevelFilter::Warn,
    LevelFilter::Info,
    LevelFilter::Debug,
    LevelFilter::Trace,
];

/// The paths of the commands, in the order of their codes.
pub(super) const PATHS: [&str; 5] = ["/restart", "/scale", "/stop", "/upgrade", "/log"];

/// # Errors
///
/// What is wrong with the request.
pub(crate) fn parse(path: &str, query: Option<&str>) -> Result<Request, String> {
    match path {
        "/restart" => Ok(Request::Restart),
        "/scale" => {
            let workers = parameter(query, "workers").and_then(|value| value.parse().ok());
            let workers = workers.filter(|workers| (1..=Config::WORKERS_MAX).contains(workers));
            workers
                .map(Request::Scale)
                .ok_or_else(|| format!("workers must be 1 to {}, as in /scale?workers=4", Config::WORKERS_MAX))
        }
        "/stop" => Ok(Request::Drain(Asker::AdminClient)),
        "/upgrade" => Ok(Request::Upgrade),
        _ => {
            let level = parameter(query, "level").and_then(|value| value.parse().ok());
            let wrong = || "level must be off, error, warn, info, debug or trace, as in /log?level=debug".to_owned();
            level.map(Request::Log).ok_or_else(wrong)
        }
    }
}

/// Returns `None` for a request that clients cannot make.
pub(crate) fn encode(request: Request) -> Option<Vec<u8>> {
    let (code, number) = match request {
        Request::Restart => (0, 0),
        Request::Scale(workers) => (1, workers),
        Request::Drain(Asker::AdminClient) => (2, 0),
        Request::Upgrade => (3, 0),
        Request::Log(level) => (4, LEVELS.iter().position(|it| *it == level)?),
        _ => return None,
    };
    let mut bytes = vec![code];
    bytes.extend((number as u64).to_le_bytes());
    Some(bytes)
}

/// Returns `None` if the bytes are no request, or one that clients cannot make.
pub(crate) fn decode(bytes: &[u8]) -> Option<Request> {
    let (code, number) = bytes.split_first()?;
    let number = usize::try_from(u64::from_le_bytes(number.try_into().ok()?)).ok()?;
    match (code, number) {
        (0, 0) => Some(Request::Restart),
        (1, workers) => Some(Request::Scale(workers)),
        (2, 0) => Some(Request::Drain(Asker::AdminClient)),
        (3, 0) => Some(Request::Upgrade),
        (4, level) => LEVELS.get(level).copied().map(Request::Log),
        _ => None,
    }
}

impl Service {
    /// Passes a command on to the parent, if this client may give it and the state of the pool allows it.
    pub(super) fn command(&self, worker: &Worker, request: &http::Request<'_>) -> Response {
        let refuse = |status, problem: &str| Response::json_text(refused(problem)).status(status);
        if !self.may_command(request) {
            let problem = match self.token {
                Some(_) => "the field Authorization: Bearer TOKEN is missing or wrong",
                None => "read-only over TCP without a token (admin-token-file); a Unix socket needs none",
            };
            return refuse(403, problem);
        }
        let asked = match parse(request.path(), request.query()) {
            Ok(asked) => asked,
            Err(problem) => return refuse(400, &problem),
        };
        match (self.model.pool.state, asked) {
            (_, Request::Drain(_) | Request::Log(_)) => {}
            (State::LameDuck | State::Draining | State::Stopping, _) => return refuse(409, "the pool is stopping"),
            (State::Upgrading, _) => return refuse(409, "an upgrade is under way"),
            _ => {}
        }
        let Some(asked) = encode(asked) else { return refuse(403, "clients cannot request that") };
        match worker.send(&asked) {
            Ok(()) => Response::json_text(accepted(&request.path()[1..], self.model.seq())).status(202),
            Err(error) => refuse(503, &error.to_string()),
        }
    }

    pub(super) fn may_command(&self, request: &http::Request<'_>) -> bool {
        let Some(token) = self.token.as_deref().filter(|_| !self.is_unix) else { return self.is_unix };
        let credentials = request.header("Authorization").and_then(|value| value.split_once(' '));
        credentials.is_some_and(|(scheme, given)| {
            scheme.eq_ignore_ascii_case("Bearer") && is_same(given.trim_matches(' ').as_bytes(), token.as_bytes())
        })
    }
}

/// Compares in constant time, so that the time does not reveal where the two differ.
fn is_same(given: &[u8], token: &[u8]) -> bool {
    let differences = given.iter().zip(token).fold(0, |all, (one, other)| all | (one ^ other));
    given.len() == token.len() && std::hint::black_box(differences) == 0
}

/// Returns the value of a query parameter.
pub(super) fn parameter<'q>(query: Option<&'q str>, name: &str) -> Option<&'q str> {
    let mut parameters = query?.split('&').filter_map(|parameter| parameter.split_once('='));
    parameters.find(|(key, _)| *key == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_come_through_and_other_bytes_do_not() {
        let levels = LEVELS.map(Request::Log);
        let stop = Request::Drain(Asker::AdminClient);
        for request in [Request::Restart, Request::Scale(7), stop, Request::Upgrade].into_iter().chain(levels) {
            let bytes = encode(request).expect("a client may ask for it");
            assert_eq!(decode(&bytes), Some(request));
            assert_eq!(decode(&bytes[1..]), None);
        }
        for bytes in [&b""[..], b"\x05\0\0\0\0\0\0\0\0", b"\x04\x06\0\0\0\0\0\0\0", b"\0\x01\0\0\0\0\0\0\0", b"hello"] {
            assert_eq!(decode(bytes), None, "{bytes:?}");
        }
        for request in [Request::Reap, Request::Reopen, Request::Disconnect(7), Request::Drain(Asker::Application)] {
            assert_eq!(encode(request), None, "{request:?}");
        }
    }

    #[test]
    fn what_is_asked_for() {
        for (path, query, command) in [
            ("/restart", None, Some(Request::Restart)),
            ("/scale", Some("workers=3"), Some(Request::Scale(3))),
            ("/scale", Some("a=1&workers=1024"), Some(Request::Scale(1024))),
            ("/scale", Some("workers=0"), None),
            ("/scale", Some("workers=1025"), None),
            ("/scale", Some("workers="), None),
            ("/scale", None, None),
            ("/log", Some("level=DEBUG"), Some(Request::Log(LevelFilter::Debug))),
            ("/log", Some("level=loud"), None),
        ] {
            assert_eq!(parse(path, query).ok(), command, "{path} {query:?}");
        }
    }

    #[test]
    fn a_token_is_whole_and_right() {
        for (given, same) in [("secret", true), ("secreT", false), ("secre", false), ("secrets", false), ("", false)] {
            assert_eq!(is_same(given.as_bytes(), b"secret"), same, "{given}");
        }
    }
}
