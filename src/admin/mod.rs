//! The admin process: it shows the pool and passes commands on, so that the parent need not speak with anybody.
//!
//! In come facts from the parent, the memory that workers count in, and requests; out go pages and commands. It has
//! no secrets and no rights of its own, and may not know how the parent does what it is asked for.
//!
//! # Files
//!
//! - `control.rs`: commands
//! - `readings.rs` and `queues.rs`: what it reads of the workers
//! - `status/`: PURE. what is known about a pool, as a model and facts that change it; snapshot.rs: both with
//!   counters, at one moment; json.rs, text.rs and metrics.rs show it
//!
//! # How it works
//!
//! **The admin process** is forked like a worker, without a slot, and serves with the same server, on a listener that
//! the parent has made and keeps. It is born with the parent's model of the pool; from then on the parent sends it
//! each *fact* that changes, and takes commands back, over the pair that carries messages elsewhere. One that does
//! not read is killed: its successor is born with everything. What workers count, it reads in shared memory, and what
//! the system knows, in /proc, so it asks none of them. Per-slot counters outlive processes: the parent moves a dead
//! one's into its slot's under a sequence number, which the reader checks. An upgrade hands the listener on; the new
//! pool starts its admin process when it serves. Like a worker it is not trusted: what is no command kills it, and
//! sixteen commands a second are obeyed. It answers at once, so whoever keeps a place does so by silence, by a byte
//! now and then or by not reading, and makes room for a newcomer at its limit of 256; only the 64 who are told events
//! do not, of which the oldest makes room, but no operator for anybody else.

mod control;
mod queues;
mod readings;
pub(crate) mod status;

use std::cell::RefCell;
use std::error::Error as StdError;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::rc::Rc;
use std::time::Duration;

use crate::admin::status::{event_line, Fact, Model, Snapshot};
use crate::server::answer::response::Response;
use crate::server::answer::stream::BodyWriter;
use crate::server::http::{Limits, Request};
use crate::shared::config::{Config, ServerConfig};
use crate::shared::scoreboard::Scoreboard;
use crate::sys::clock;
use crate::worker::Worker;

pub(crate) use self::control::decode;
#[cfg(any(fuzzing, test))]
pub(crate) use self::control::{encode, parse};
use self::queues::Queues;

/// Clients that are told events as they happen: the others' places are for those who ask and are answered at once.
const STREAMS_MAX: usize = 64;

/// What answers to any name: it changes nothing and says little.
const PROBES: [&str; 3] = ["/metrics", "/healthz", "/readyz"];

/// What the status page may do: nothing but show itself and ask this process.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                           connect-src 'self'; img-src data:; frame-ancestors 'none'";

/// How long it may take to finish: answers are made at once, and what is told as it happens has no end of its own.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_millis(100);

/// What its clients may do.
pub(crate) fn server_config() -> ServerConfig {
    // No request has anything to say in its body.
    let limits = Limits { body: 1 << 10, ..Config::default().server.limits };
    let patience = Duration::from_secs(5);
    ServerConfig {
        limits,
        max_connections: 256,
        // What only stays must not keep a probe out. All answers are made at once, so whoever has a place for longer than
        // that keeps it by silence, by a byte now and then, or by not reading; only what is told events does not.
        evicts_unfinished: true,
        head_timeout: patience,
        body_timeout: patience,
        write_timeout: patience,
        // What asks does so every few seconds.
        idle_timeout: Duration::from_secs(15),
        ..Config::default().server
    }
}

/// What an admin process is born with, and learns.
#[derive(Debug)]
pub(crate) struct Desk {
    model: Model,
    board: Scoreboard,
    /// The names by which it may be asked over TCP, besides its address.
    hosts: Rc<[String]>,
    /// What says over TCP that a client may give commands; nobody may without one.
    token: Option<Rc<str>>,
    /// It is a Unix socket, whose mode says who may.
    is_unix: bool,
    /// What it has shown last.
    last: readings::Last,
    /// Who is told events, the oldest first.
    streams: Vec<Stream>,
    /// None where the kernel does not tell.
    queues: Option<Queues>,
}

/// A client that is told events.
#[derive(Debug)]
struct Stream {
    writer: BodyWriter,
    /// It may give commands, so it may be waiting for what becomes of one.
    is_operator: bool,
}

impl Desk {
    pub(crate) fn new(
        model: Model,
        board: Scoreboard,
        hosts: Rc<[String]>,
        token: Option<Rc<str>>,
        is_unix: bool,
    ) -> Desk {
        Desk { model, board, hosts, token, is_unix, last: readings::Last::default(), streams: Vec::new(), queues: None }
    }

    /// Serves until the pool ends.
    pub(crate) fn serve(mut self, worker: &Worker) -> Result<(), Box<dyn StdError>> {
        self.queues = Queues::open().ok();
        let desk = Rc::new(RefCell::new(self));
        let learner = Rc::clone(&desk);
        // Neither calls the other.
        worker.on_message(move |message| learner.borrow_mut().learn(message));
        worker.serve(move |request| desk.borrow_mut().answer(worker, request))?;
        Ok(())
    }

    /// Learns what the parent says; bytes that say nothing are ignored.
    fn learn(&mut self, message: &[u8]) {
        match Fact::decode(message) {
            Some(Fact::End) => self.streams.clear(),
            Some(fact) => {
                if let Fact::Event(event) = &fact {
                    let line = event_line(event);
                    self.streams.retain_mut(|stream| is_whole(&mut stream.writer, &line));
                }
                if let Fact::Gone(pid, ..) = &fact {
                    self.last.forget(*pid);
                }
                self.model.learn(fact);
            }
            None => {}
        }
    }

    fn answer(&mut self, worker: &Worker, request: &Request<'_>) -> Response {
        let path = request.path();
        let is_command = control::PATHS.contains(&path);
        let response = match (request.method(), is_command) {
            _ if !self.may_ask(path, request.host()) => {
                Response::text("ask by IP address, by localhost, or by a name that --admin-host allows\n").status(421)
            }
            ("POST", true) => self.command(worker, request),
            (_, true) => Response::text("POST\n").status(405).header("Allow", "POST"),
            ("GET" | "HEAD", false) => self.show(path, request),
            ("POST", false) => Response::text("GET or HEAD\n").status(405).header("Allow", "GET, HEAD"),
            (_, false) => Response::text("no such method here\n").status(405).header("Allow", "GET, HEAD"),
        };
        // The verbs take nothing else for an admin process.
        let response = response.header("Server", concat!("forkpool-admin/", env!("CARGO_PKG_VERSION")));
        response.header("Cache-Control", "no-store").header("X-Content-Type-Options", "nosniff")
    }

    /// Whether a client may ask for this by that name. A page that was loaded from a name may have that name resolved to
    /// us next, so that its scripts may read our answers (DNS rebinding); the browser goes on to send the name. Probes and
    /// scrapers use the names of a cluster; what they ask for is not worth the trouble.
    fn may_ask(&self, path: &str, host: Option<&str>) -> bool {
        let Some(name) = host.map(name_of).filter(|_| !self.is_unix) else { return true };
        PROBES.contains(&path) || is_own(name) || self.hosts.iter().any(|host| name_of(host).eq_ignore_ascii_case(name))
    }

    /// How many connections programs have, which only the kernel knows.
    fn established(&self) -> Option<u64> {
        let queues = self.queues.as_ref().filter(|_| self.model.has_programs())?;
        self.model.pool.ports().into_iter().try_fold(0, |all, port| Some(all + queues.established(port).ok()?))
    }

    fn show(&mut self, path: &str, request: &Request<'_>) -> Response {
        match path {
            "/" => Response::html(include_str!("page.html")).header("Content-Security-Policy", PAGE_POLICY),
            "/status.json" => Response::json(self.snapshot(|it| it.to_json())),
            "/status.txt" => Response::text(self.snapshot(|it| it.to_text())),
            "/metrics" => Response::bytes(
                "text/plain; version=0.0.4; charset=utf-8",
                self.snapshot(|it| it.to_metrics()).into_bytes(),
            ),
            "/healthz" => Response::text("ok\n"),
            "/readyz" => match self.model.unready() {
                None => Response::text("ready\n"),
                Some(reason) => Response::text(format!("{reason}\n")).status(503),
            },
            "/events" => self.stream(request),
            _ => Response::text("no such page\n").status(404),
        }
    }

    fn snapshot(&mut self, render: impl Fn(&Snapshot<'_>) -> String) -> String {
        let mut readings = readings::read(&self.model, &self.board, &mut self.last, clock::unix_millis());
        readings.queues = self.queues.as_ref().and_then(|queues| queues.read().ok()).unwrap_or_default();
        readings.established = self.established();
        render(&Snapshot::new(&self.model, &readings))
    }

    /// The events after the one that the client names, and then each as it happens.
    fn stream(&mut self, request: &Request<'_>) -> Response {
        let after = match control::parameter(request.query(), "after").map(str::parse::<u64>) {
            Some(Err(_)) => return Response::text("after must be an event's number\n").status(400),
            Some(Ok(after)) => after,
            None => 0,
        };
        let is_operator = self.may_command(request);
        if !self.has_stream_for(is_operator) {
            return Response::text("operators are told events, and nobody else can be now\n").status(503);
        }
        let (mut writer, response) = Response::stream("application/x-ndjson");
        let missed = self.model.events.iter().filter(|event| event.seq > after);
        if is_whole(&mut writer, &missed.map(event_line).collect::<String>()) {
            self.streams.push(Stream { writer, is_operator });
        }
        response
    }

    /// Whether one more client can be told events. The oldest stream makes room, but no operator's for anybody else.
    fn has_stream_for(&mut self, is_operator: bool) -> bool {
        self.streams.retain(|stream| !stream.writer.is_gone());
        if self.streams.len() < STREAMS_MAX {
            return true;
        }
        let other = self.streams.iter().position(|stream| !stream.is_operator);
        let oldest = other.or(is_operator.then_some(0));
        oldest.map(|index| self.streams.remove(index)).is_some()
    }
}

/// The name in a Host field, which has been checked: without the port, and without the dot that says that a name is whole.
fn name_of(host: &str) -> &str {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    name.strip_suffix('.').filter(|name| !name.is_empty()).unwrap_or(name)
}

/// Whether a name means this host whoever resolves it.
fn is_own(name: &str) -> bool {
    let is_ipv6 = |name: &str| Some(name.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().is_ok());
    name.is_empty()
        || name.eq_ignore_ascii_case("localhost")
        || name.parse::<Ipv4Addr>().is_ok()
        || is_ipv6(name).unwrap_or(false)
}

/// Writes a whole text; a client that is behind with reading is given up.
fn is_whole(stream: &mut BodyWriter, text: &str) -> bool {
    !stream.is_gone() && stream.try_write_all(text.as_bytes()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_be_anybody_s() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:9000",
            "localhost",
            "LOCALHOST:9000",
            "[::1]",
            "[fe80::1]:80",
            "10.0.0.1:",
            "",
            "localhost.",
            "LOCALHOST.:9000",
        ] {
            assert!(is_own(name_of(host)), "{host}");
        }
        for host in [
            "a",
            "evil.example",
            "evil.example:9000",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "[::1",
            "localhost..",
            ".",
            "localhost.a.",
        ] {
            assert!(!is_own(name_of(host)), "{host}");
        }
    }
}
