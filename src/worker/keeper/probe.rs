//! Asks a program by HTTP whether it is ready.
//!
//! The probe cannot choose which process accepts a connection to the pool's port: siblings have sockets in the same
//! reuseport group, and a predecessor shares this slot's socket. So the probe connects, and the kernel then tells which
//! socket has accepted the connection. If no process of the program has that socket, the probe closes the connection
//! without sending anything, and connects again.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use socket2::{Domain, Socket, Type};

use super::accepted;
use super::procfs::{self, OpenFile};
use crate::shared::channel::REMARKS;
use crate::shared::config::Probe as Target;
use crate::sys::proc;
use crate::time::Time;

/// The interval between two checks whether a connection was accepted.
const CHECK_INTERVAL: Duration = Duration::from_millis(2);

/// How long a connection may wait to be accepted. It may be in the queue of a sibling that is starting as well.
const ACCEPT_TIMEOUT: Duration = Duration::from_millis(250);

/// How long the program may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The pause after a failed attempt.
const FAILURE_DELAY: Duration = Duration::from_millis(250);

/// The pause after another process has accepted the connection: the first, and the maximum.
const RETRY_DELAY: Duration = Duration::from_millis(2);
const RETRY_DELAY_MAX: Duration = Duration::from_millis(50);

/// The maximum length of the first line of an answer.
const LINE_MAX: usize = 1024;

#[derive(Debug)]
pub(super) struct Probe {
    /// Whether the program waits for connections, so that it can be asked.
    is_begun: bool,
    address: SocketAddr,
    request: Vec<u8>,
    state: State,
    next: Time,
    retry: Duration,
    /// What is wrong with the latest answer.
    latest: Option<String>,
    /// The status of the latest answer, and how many were reported.
    status: (Option<u16>, u32),
    news: Option<u16>,
    path: String,
}

#[derive(Debug)]
enum State {
    Resting,
    /// Connected, but not known to be accepted.
    Queued {
        stream: TcpStream,
        until: Time,
    },
    Asked {
        stream: TcpStream,
        answer: Vec<u8>,
        until: Time,
    },
}

impl Probe {
    /// Creates the probe of a program that listens on this address.
    pub(super) fn new(target: &Target, address: SocketAddr, now: Time) -> Probe {
        let (host, path) = (target.host().unwrap_or("localhost"), target.path());
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: forkpool\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        );
        Probe {
            is_begun: false,
            address: reached(address),
            request: request.into_bytes(),
            state: State::Resting,
            next: now,
            retry: RETRY_DELAY,
            latest: None,
            status: (None, 0),
            news: None,
            path: path.to_owned(),
        }
    }

    /// The program waits for connections.
    pub(super) fn begin(&mut self) {
        self.is_begun = true;
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.is_begun.then_some(self.next)
    }

    /// The connection to wait for, if any.
    pub(super) fn source(&self) -> Option<BorrowedFd<'_>> {
        match &self.state {
            State::Asked { stream, .. } => Some(stream.as_fd()),
            State::Resting | State::Queued { .. } => None,
        }
    }

    /// Why the program is not ready, if it was to be asked.
    pub(super) fn problem(&self) -> Option<String> {
        let path = &self.path;
        self.is_begun.then(|| match &self.latest {
            Some(latest) => format!("GET {path} {latest}"),
            None => format!("it did not accept a connection for GET {path}"),
        })
    }

    /// A status that the program has answered with, and has not before.
    pub(super) fn news(&mut self) -> Option<u16> {
        self.news.take()
    }

    /// Continues as far as possible without blocking. Returns whether the program has answered that it is ready.
    pub(super) fn advance(&mut self, now: Time) -> bool {
        if !self.is_begun {
            return false;
        }
        match std::mem::replace(&mut self.state, State::Resting) {
            State::Resting if now < self.next => {}
            State::Resting => match open(self.address) {
                Ok(stream) => {
                    self.state = State::Queued { stream, until: now + ACCEPT_TIMEOUT };
                    self.next = now + CHECK_INTERVAL;
                }
                Err(error) => self.failed(format!("could not be asked: {error}"), now),
            },
            State::Queued { stream, until } => self.look(stream, until, now),
            State::Asked { stream, answer, until } => return self.read_answer(stream, answer, until, now),
        }
        false
    }

    fn failed(&mut self, latest: String, now: Time) {
        self.latest = Some(latest);
        self.next = now + FAILURE_DELAY;
    }

    fn look(&mut self, stream: TcpStream, until: Time, now: Time) {
        let inode = accepted::by(&stream);
        let again = |it: &mut Probe| {
            it.next = now + it.retry;
            it.retry = (it.retry * 2).min(RETRY_DELAY_MAX);
        };
        match inode {
            Ok(Some(inode)) if has(inode) => match (&stream).write(&self.request) {
                Ok(len) if len == self.request.len() => {
                    self.next = now + ANSWER_TIMEOUT;
                    self.state = State::Asked { stream, answer: Vec::new(), until: self.next };
                    self.retry = RETRY_DELAY;
                }
                Ok(_) | Err(_) => self.failed("could not be asked: the connection was closed".to_owned(), now),
            },
            Ok(Some(_)) => again(self),
            Ok(None) if now < until => {
                self.next = now + CHECK_INTERVAL;
                self.state = State::Queued { stream, until };
            }
            Ok(None) => again(self),
            Err(error) => self.failed(format!("could not be asked: {error}"), now),
        }
    }

    fn read_answer(&mut self, mut stream: TcpStream, mut answer: Vec<u8>, until: Time, now: Time) -> bool {
        let mut bytes = [0; LINE_MAX];
        let read = match stream.read(&mut bytes) {
            Ok(0) => Err("was answered by closing the connection".to_owned()),
            Ok(len) => Ok(len),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(0),
            Err(error) => Err(format!("was not answered: {error}")),
        };
        let result = read.and_then(|len| {
            answer.extend_from_slice(&bytes[..len]);
            status(&answer)
        });
        match result {
            Ok(Some(200..400)) => return true,
            Ok(Some(status)) => {
                let (latest, count) = &mut self.status;
                if latest.replace(status) != Some(status) && *count < REMARKS {
                    *count += 1;
                    self.news = Some(status);
                }
                self.failed(format!("was answered with {status}"), now);
            }
            Ok(None) if now < until => {
                self.next = until;
                self.state = State::Asked { stream, answer, until };
            }
            Ok(None) => self.failed(format!("was not answered within {ANSWER_TIMEOUT:?}"), now),
            Err(problem) => self.failed(problem, now),
        }
        false
    }
}

/// Returns the status of an answer, or `None` if it has not arrived yet.
fn status(answer: &[u8]) -> Result<Option<u16>, String> {
    let problem = || Err("was answered by something else than HTTP/1.1".to_owned());
    let beginning = &answer[..answer.len().min(7)];
    if !b"HTTP/1.".starts_with(beginning) {
        return problem();
    }
    let Some(line) = answer.get(8..13) else { return Ok(None) };
    let number = std::str::from_utf8(&line[1..4]).ok().and_then(|digits| digits.parse::<u16>().ok());
    match number {
        // An interim answer is not expected.
        Some(100..200) => problem(),
        Some(status @ 200..600) if line[0] == b' ' && matches!(line[4], b' ' | b'\r' | b'\n') => Ok(Some(status)),
        _ => problem(),
    }
}

/// Returns the address at which a client on this machine reaches a listener.
fn reached(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip().to_canonical() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        _ => return address,
    };
    SocketAddr::new(ip, address.port())
}

/// Connects without blocking. On this machine, only a full queue could delay the connection.
fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), None)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::EINPROGRESS as i32) => Err(error),
        _ => Ok(socket.into()),
    }
}

/// Whether a process of the program has this socket open. A process that may not be inspected counts as if it had.
fn has(inode: u64) -> bool {
    let own = i32::try_from(std::process::id()).map(proc::descendants).unwrap_or_default();
    own.into_iter().any(|pid| match fs::read_dir(format!("/proc/{pid}/fd")) {
        Ok(links) => links
            .flatten()
            .filter_map(|link| fs::read_link(link.path()).ok())
            .any(|link| procfs::open(&link.to_string_lossy()) == OpenFile::Socket(inode)),
        Err(error) => error.kind() == ErrorKind::PermissionDenied,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_begins_with_its_status() {
        for (answer, expected) in [
            ("", Some(None)),
            ("HTT", Some(None)),
            ("HTTP/1.1 20", Some(None)),
            ("HTTP/1.1 200", Some(None)),
            ("HTTP/1.1 200 ", Some(Some(200))),
            ("HTTP/1.0 503 no\r\n", Some(Some(503))),
            ("HTTP/1.1 204\r\n", Some(Some(204))),
            ("HTTP/1.1 100 Continue", None),
            ("HTTP/1.1 2000 x", None),
            ("HTTP/2 200 x", None),
            ("SSH-2.0", None),
            ("HTTP/1.1 abc x", None),
        ] {
            assert_eq!(status(answer.as_bytes()).ok(), expected, "{answer}");
        }
    }

    #[test]
    fn a_wildcard_is_reached_on_the_loopback_interface() {
        for (listener, client) in [
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("127.0.0.2:80", "127.0.0.2:80"),
            ("[fd00::1]:80", "[fd00::1]:80"),
        ] {
            assert_eq!(reached(listener.parse().expect("valid")).to_string(), client);
        }
    }
}
