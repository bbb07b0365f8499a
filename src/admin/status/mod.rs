//! PURE. What is known about a pool, and how it is shown.
//!
//! The parent keeps a [`Model`] and changes it by [`Fact`]s. The admin process starts with a copy of the model, and
//! then receives the same facts as bytes. To show the pool, it combines the model with the [`Readings`] of the moment:
//! counters, and the system's figures for each process.

#![forbid(unsafe_code)]

mod fact;
mod history;
mod json;
mod metrics;
mod snapshot;
mod text;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::{self, Display};

pub(crate) use self::fact::Fact;
pub(crate) use self::history::History;
pub(crate) use self::json::{accepted, event_line, history, refused};
pub(crate) use self::snapshot::Snapshot;
pub use self::text::{shown_span, shown_time};
use crate::shared::counters::Counters;
use crate::shared::latency::Latency;
use crate::shared::state::{Reason, WorkerState};

/// The number of events kept.
const EVENTS_MAX: usize = 100;

/// The bytes of an event's text that are kept.
const EVENT_TEXT_MAX: usize = 400;

/// What the parent knows and the shared memory does not hold. Bounded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) pool: Pool,
    /// The slots that have ever had a worker.
    pub(crate) slots: BTreeMap<usize, Slot>,
    pub(crate) processes: BTreeMap<i32, Process>,
    /// The inodes of each slot's listening sockets.
    pub(crate) sockets: BTreeMap<usize, Vec<u64>>,
    /// The latest events, oldest first.
    pub(crate) events: VecDeque<Event>,
}

/// The pool as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pool {
    pub(crate) state: State,
    pub(crate) pid: i32,
    /// When the pool began. All times here are in milliseconds since 1970.
    pub(crate) started: u64,
    pub(crate) wanted: usize,
    /// The number of slots with a worker that serves.
    pub(crate) serving: usize,
    pub(crate) listening: Vec<String>,
    /// Why the pool has this number of workers.
    pub(crate) because: String,
    pub(crate) balance: String,
    /// Why the latest rolling restart was aborted.
    pub(crate) restart_aborted: Option<String>,
    /// Lines of the log that the parent could not write.
    pub(crate) lost: u64,
    /// The bytes that each worker may hold for requests and responses in progress; 0 for no limit.
    pub(crate) max_held: u64,
    /// The files of certificates, each with the end of its validity in seconds since 1970.
    pub(crate) certificates: Vec<(String, u64)>,
}

/// What a pool is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    #[default]
    Starting,
    Serving,
    Restarting,
    Upgrading,
    /// Still serving; the drain follows.
    LameDuck,
    Draining,
    Stopping,
}

/// A slot, over all its processes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slot {
    /// How often its worker was replaced, by reason.
    pub(crate) restarts: [u64; Reason::ALL.len()],
    /// How its latest dead worker ended.
    pub(crate) last_exit: Option<String>,
    /// CPU time of its dead workers, in microseconds.
    pub(crate) cpu: u64,
    /// Whether it has run a program, whose requests are not counted.
    pub(crate) has_programs: bool,
}

/// A worker process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) slot: usize,
    /// Its row in the scoreboard.
    pub(crate) row: usize,
    pub(crate) generation: u64,
    pub(crate) state: WorkerState,
    /// When it was forked.
    pub(crate) since: u64,
    /// Whether it is a program, which counts nothing for the pool.
    pub(crate) is_program: bool,
}

/// Something that happened in the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) seq: u64,
    pub(crate) time: u64,
    pub(crate) level: Level,
    /// What has happened, in one word.
    pub(crate) kind: String,
    /// The slot and the process concerned.
    pub(crate) worker: Option<usize>,
    pub(crate) generation: Option<u64>,
    pub(crate) pid: Option<i32>,
    /// Why, in one word.
    pub(crate) reason: Option<String>,
    pub(crate) text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Info,
    Warn,
    Error,
}

/// What the processes report themselves, at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Readings {
    pub(crate) now: u64,
    /// Lines of the log that the admin process could not write.
    pub(crate) lost: u64,
    /// The counters of each slot since the pool began.
    pub(crate) slots: BTreeMap<usize, Counters>,
    /// The processes, by pid.
    pub(crate) processes: BTreeMap<i32, Reading>,
    /// Over all slots, since the pool began.
    pub(crate) latency: Latency,
    /// How many connections wait in the queue of each listening socket, by inode.
    pub(crate) queues: BTreeMap<u64, u64>,
    /// The number of connections to the pool's ports, if the kernel was asked.
    pub(crate) established: Option<u64>,
    pub(crate) parent: ParentUse,
}

/// What the pool's parent uses, as far as /proc says.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ParentUse {
    /// CPU time, in microseconds.
    pub(crate) cpu: Option<u64>,
    pub(crate) rss: Option<u64>,
    /// Open file descriptors.
    pub(crate) fds: Option<u64>,
}

/// What one process reports.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reading {
    pub(crate) counters: Counters,
    pub(crate) latency: Latency,
    /// How long it has been busy with the current turn, in milliseconds.
    pub(crate) busy: u64,
    /// CPU time, in microseconds.
    pub(crate) cpu: u64,
    pub(crate) rss: u64,
    /// The bytes that it holds for requests and responses in progress.
    pub(crate) held: u64,
}

/// A time in milliseconds, shown in seconds.
#[derive(Clone, Copy)]
struct Millis(u64);

/// A time in microseconds, shown in seconds.
#[derive(Clone, Copy)]
struct Micros(u64);

impl Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

impl Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

impl Model {
    /// Applies a change.
    pub(crate) fn learn(&mut self, fact: Fact) {
        match fact {
            Fact::Pool(pool) => self.pool = pool,
            Fact::Process(process) => {
                self.slots.entry(process.slot).or_default().has_programs |= process.is_program;
                self.processes.insert(process.pid, process);
            }
            Fact::Gone(pid, id, slot) => {
                self.processes.remove(&pid);
                self.slots.insert(id, slot);
            }
            Fact::Sockets(slot, inodes) => _ = self.sockets.insert(slot, inodes),
            Fact::End => {}
            Fact::Event(event) => {
                if self.events.len() == EVENTS_MAX {
                    self.events.pop_front();
                }
                self.events.push_back(event);
            }
        }
    }

    /// Whether workers are programs. Only the kernel knows how many connections they have.
    pub(crate) fn has_programs(&self) -> bool {
        self.slots.values().any(|slot| slot.has_programs)
    }

    /// The number of the latest event; 0 if there is none.
    pub(crate) fn seq(&self) -> u64 {
        self.events.back().map_or(0, |event| event.seq)
    }

    /// Why load balancers should send no new clients; `None` if the pool is ready.
    pub(crate) fn unready(&self) -> Option<&'static str> {
        match self.pool.state {
            State::Starting => Some("the pool is starting"),
            State::LameDuck => Some("the pool is a lame duck: it serves, and will drain soon"),
            State::Draining => Some("the pool drains"),
            State::Stopping => Some("the pool stops"),
            _ if self.pool.serving == 0 => Some("no worker serves"),
            State::Serving | State::Restarting | State::Upgrading => None,
        }
    }
}

impl Pool {
    /// The TCP ports of the pool.
    pub(crate) fn ports(&self) -> BTreeSet<u16> {
        let addresses = self.listening.iter().filter_map(|address| address.strip_prefix("http://"));
        addresses.filter_map(|address| address.rsplit_once(':')?.1.parse().ok()).collect()
    }
}

impl Event {
    /// The same with no more text than is kept.
    pub(crate) fn shortened(self) -> Event {
        Event { text: fact::beginning(&self.text, EVENT_TEXT_MAX).to_owned(), ..self }
    }
}

impl Slot {
    pub(crate) fn restarted(&self) -> u64 {
        self.restarts.iter().sum()
    }
}

impl State {
    pub(crate) const ALL: [State; 7] = [
        State::Starting,
        State::Serving,
        State::Restarting,
        State::Upgrading,
        State::LameDuck,
        State::Draining,
        State::Stopping,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Serving => "serving",
            State::Restarting => "restarting",
            State::Upgrading => "upgrading",
            State::LameDuck | State::Draining => "draining",
            State::Stopping => "stopping",
        }
    }
}

impl Level {
    pub(crate) const ALL: [Level; 3] = [Level::Info, Level::Warn, Level::Error];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        }
    }
}
