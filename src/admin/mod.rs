//! The admin process shows the pool and passes commands on, so that the parent need not talk to clients.
//!
//! Its input: facts from the parent, the memory in which workers count, and requests. Its output: pages and commands.
//! It holds no secrets and has no rights of its own, and does not know how the parent carries out a command.
//!
//! # Files
//!
//! - `control.rs`: commands
//! - `readings.rs`, `queues.rs`: what it reads about the workers
//! - `status/`: PURE. The model of a pool and the facts that change it. `snapshot.rs` joins the model with the counters
//!   of one moment; `history.rs` keeps the last minutes; `json.rs`, `text.rs` and `metrics.rs` render
//!
//! # How it works
//!
//! **The admin process** is forked like a worker, but without a slot. It runs the same server on a listener that the
//! parent creates and keeps.
//!
//! It starts with a copy of the parent's model of the pool. From then on the parent sends it each *fact* that changes
//! the model, and receives commands, over the socket pair that carries messages for workers. If it does not read, it is
//! killed, and its replacement starts with a current copy. It asks no worker anything: it reads their counters in
//! shared memory, and the system's figures in /proc. Counters of a slot outlive its processes: the parent adds a dead
//! process's counters to those of its slot, under a sequence number that readers check.
//!
//! An upgrade hands the listener on, and the new pool starts its admin process once it serves. The parent trusts the
//! admin process no more than a worker: anything but a command gets it killed, and it can give at most sixteen commands
//! a second.
//!
//! It answers every request at once, so a client can only occupy a connection by being silent, by sending a byte now
//! and then, or by not reading. At the limit of 256 connections such clients make room for new ones. Up to 64 event
//! streams are exempt. Beyond that the oldest stream is closed for a new one, but never an operator's for another
//! client's.

mod control;
mod queues;
mod readings;
pub(crate) mod status;

use std::cell::RefCell;
use std::error::Error as StdError;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::rc::Rc;
use std::time::Duration;

use crate::admin::status::{event_line, history, Fact, History, Model, Snapshot};
use crate::server::answer::response::Response;
use crate::server::answer::stream::BodyWriter;
use crate::server::http::{Limits, Request};
use crate::shared::config::{Capacity, Config, ServerConfig, Timeouts};
use crate::shared::scoreboard::Scoreboard;
use crate::sys::clock;
use crate::worker::Worker;

pub(crate) use self::control::decode;
#[cfg(any(fuzzing, test))]
pub(crate) use self::control::{encode, parse};
use self::queues::Queues;

/// The maximum number of event streams. The other connections are left to clients that ask and are answered at once.
const STREAMS_MAX: usize = 64;

/// Paths that accept any host name, since they change nothing and reveal little.
const PROBES: [&str; 3] = ["/metrics", "/healthz", "/readyz"];

/// The policy of the status page: show itself and make requests to this process, and nothing else.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                           connect-src 'self'; img-src data:; frame-ancestors 'none'";

/// The drain timeout. Responses are made at once, and event streams have no end of their own.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_millis(100);

/// The limits of the clients of the admin process.
pub(crate) fn server_config() -> ServerConfig {
    let of_pools = Config::default().server;
    let timeout = Duration::from_secs(5);
    ServerConfig {
        // No request needs a body.
        limits: Limits { body: 1 << 10, ..of_pools.limits },
        // Clients that only stay must not keep a probe out. All responses are made at once, so a client that occupies a
        // connection for longer does so by being silent, by sending a byte now and then, or by not reading. Event
        // streams are the exception.
        capacity: Capacity { max_connections: 256, evicts_unfinished: true, ..of_pools.capacity },
        // Pollers ask every few seconds.
        timeouts: Timeouts {
            head: timeout,
            body: timeout,
            write: timeout,
            idle: Duration::from_secs(15),
            ..of_pools.timeouts
        },
        ..of_pools
    }
}

/// The state of an admin process.
#[derive(Debug)]
pub(crate) struct Service {
    model: Model,
    board: Scoreboard,
    /// The host names that TCP clients may use, besides IP addresses and `localhost`.
    hosts: Rc<[String]>,
    /// The token that lets TCP clients give commands. Without one, none of them can.
    token: Option<Rc<str>>,
    /// Whether it listens on a Unix socket, whose mode says who may connect.
    is_unix: bool,
    /// What was shown last.
    last: readings::LastShown,
    history: History,
    /// The open event streams, oldest first.
    streams: Vec<Stream>,
    /// `None` if the kernel does not offer sock_diag(7).
    queues: Option<Queues>,
}

/// A client that is sent events.
#[derive(Debug)]
struct Stream {
    writer: BodyWriter,
    /// Whether the client may give commands, and so may be waiting for the outcome of one.
    is_operator: bool,
}

impl Service {
    pub(crate) fn new(
        model: Model,
        board: Scoreboard,
        hosts: Rc<[String]>,
        token: Option<Rc<str>>,
        is_unix: bool,
    ) -> Service {
        Service {
            model,
            board,
            hosts,
            token,
            is_unix,
            last: readings::LastShown::default(),
            history: History::default(),
            streams: Vec::new(),
            queues: None,
        }
    }

    /// Serves until the pool ends.
    pub(crate) fn serve(mut self, worker: &Worker) -> Result<(), Box<dyn StdError>> {
        self.queues = Queues::open().ok();
        let service = Rc::new(RefCell::new(self));
        let learner = Rc::clone(&service);
        // Neither closure calls the other, so they never borrow at the same time.
        worker.on_message(move |message| learner.borrow_mut().learn(message));
        worker.serve(move |request| service.borrow_mut().answer(worker, request))?;
        Ok(())
    }

    /// Applies a fact from the parent; ignores bytes that are none.
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
                Response::text("the Host field must be an IP address, localhost or a name allowed by --admin-host\n")
                    .status(421)
            }
            ("POST", true) => self.command(worker, request),
            (_, true) => Response::text("POST\n").status(405).header("Allow", "POST"),
            ("GET" | "HEAD", false) => self.show(path, request),
            ("POST", false) => Response::text("GET or HEAD\n").status(405).header("Allow", "GET, HEAD"),
            (_, false) => Response::text("no such method here\n").status(405).header("Allow", "GET, HEAD"),
        };
        // `forkpool status` and the other verbs recognize an admin process by this field.
        let response = response.header("Server", concat!("forkpool-admin/", env!("CARGO_PKG_VERSION")));
        response.header("Cache-Control", "no-store").header("X-Content-Type-Options", "nosniff")
    }

    /// Whether a client may use this host name for this path. The owner of a web page can make the page's own name
    /// resolve to us, so that its scripts could read our responses (DNS rebinding); the browser still sends that name.
    /// Probes and scrapers use the names of a cluster, and their paths reveal little.
    fn may_ask(&self, path: &str, host: Option<&str>) -> bool {
        let Some(name) = host.map(name_of).filter(|_| !self.is_unix) else { return true };
        PROBES.contains(&path) || is_own(name) || self.hosts.iter().any(|host| name_of(host).eq_ignore_ascii_case(name))
    }

    /// The number of connections of programs, which only the kernel knows.
    fn established(&self) -> Option<u64> {
        let queues = self.queues.as_ref().filter(|_| self.model.has_programs())?;
        self.model.pool.ports().into_iter().try_fold(0, |all, port| Some(all + queues.established(port).ok()?))
    }

    fn show(&mut self, path: &str, request: &Request<'_>) -> Response {
        match path {
            "/" => Response::html(include_str!("page.html")).header("Content-Security-Policy", PAGE_POLICY),
            "/status.json" => Response::json_text(self.snapshot(|it| it.to_json())),
            "/status.txt" => Response::text(self.snapshot(|it| it.to_text())),
            "/metrics" => Response::bytes(
                "text/plain; version=0.0.4; charset=utf-8",
                (self.snapshot(|it| it.to_metrics()) + &self.metrics_of_application()).into_bytes(),
            ),
            "/history.json" => Response::json_text(history(&self.history)),
            "/healthz" => Response::text("ok\n"),
            "/readyz" => {
                if self.history.is_due(clock::unix_millis()) {
                    self.snapshot(|_| String::new());
                }
                match self.model.unready() {
                    None => Response::text("ready\n"),
                    Some(reason) => Response::text(format!("{reason}\n")).status(503),
                }
            }
            "/events" => self.stream(request),
            _ => Response::text("no such page\n").status(404),
        }
    }

    /// The application's own metrics.
    fn metrics_of_application(&self) -> String {
        let words = self.board.tally().map(|tally| tally.steady(|| self.board.all_metric_words()));
        self.board.metrics().render(&words.unwrap_or_default())
    }

    fn snapshot(&mut self, render: impl Fn(&Snapshot<'_>) -> String) -> String {
        let mut readings = readings::read(&self.model, &self.board, &mut self.last, clock::unix_millis());
        readings.queues = self.queues.as_ref().and_then(|queues| queues.read().ok()).unwrap_or_default();
        readings.established = self.established();
        let snapshot = Snapshot::new(&self.model, &readings);
        self.history.learn(&snapshot);
        render(&snapshot)
    }

    /// Sends the events after the one that the client names, then each event as it happens.
    fn stream(&mut self, request: &Request<'_>) -> Response {
        let after = match control::parameter(request.query(), "after").map(str::parse::<u64>) {
            Some(Err(_)) => return Response::text("after must be an event's number\n").status(400),
            Some(Ok(after)) => after,
            None => 0,
        };
        let is_operator = self.may_command(request);
        if !self.has_stream_for(is_operator) {
            return Response::text("too many event streams are open; try again later\n").status(503);
        }
        let (mut writer, response) = Response::stream("application/x-ndjson");
        let missed = self.model.events.iter().filter(|event| event.seq > after);
        if is_whole(&mut writer, &missed.map(event_line).collect::<String>()) {
            self.streams.push(Stream { writer, is_operator });
        }
        response
    }

    /// Whether another client can be sent events. The oldest stream is closed to make room, but never an operator's for
    /// another client's.
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

/// Returns the name in a valid Host field, without the port and without the final dot of a fully qualified name.
fn name_of(host: &str) -> &str {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    name.strip_suffix('.').filter(|name| !name.is_empty()).unwrap_or(name)
}

/// Whether a name means this host, whoever resolves it.
fn is_own(name: &str) -> bool {
    let is_ipv6 = |name: &str| Some(name.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().is_ok());
    name.is_empty()
        || name.eq_ignore_ascii_case("localhost")
        || name.parse::<Ipv4Addr>().is_ok()
        || is_ipv6(name).unwrap_or(false)
}

/// Writes a whole text; gives up on a client that has fallen behind.
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
