//! PURE. What happens to a program and to the processes that it has started: events in, effects out.
//!
//! ```text
//!              its sign                 asked to finish, or to end
//!   Starting ───────────► Serving ───────────────────────────────► Leaving ───┐ the drain timeout is over
//!      │                     │                                        │       ▼
//!      └──────────┬──────────┘                                        │    Killing ◄── told so by the parent, from
//!                 │ the program has ended by itself                   │       │        any of these
//!                 ▼                                                   ▼       ▼
//!              Leaving, for a second at most                         the last process has ended: End
//! ```
//!
//! *Leaving*: every process of the tree was told once to finish (or to exit), and the pool's sockets were closed.
//! *Killing*: every process is killed, repeatedly, since they may have forked meanwhile.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::time::Duration;

use crate::shared::channel::STOPPING;
use crate::shared::pace::Pace;
use crate::time::Time;

/// How long the program's processes may stay when the program has exited by itself. Its slot waits meanwhile.
const REST: Duration = Duration::from_secs(1);

/// How long the keeper leaves it to the parent, while there is one, to notice the end of the drain timeout.
const PARENT_GRACE: Duration = Duration::from_secs(2);

/// The interval between two rounds of killing.
const ROUND: Duration = Duration::from_millis(20);

/// The interval between two checks of what the program waits for: the first, and the maximum.
const LOOK: Duration = Duration::from_millis(2);
const LOOK_MOST: Duration = Duration::from_millis(50);

/// After how long a running program counts as ready if its waiting cannot be observed.
const ASSUMED_READY: Duration = Duration::from_secs(1);

/// How long most programs take to be ready. That one is stopped earlier says nothing about it.
const BOOT: Duration = Duration::from_secs(5);

/// How long a connection may wait before the keeper checks that the program still has the socket.
const QUEUED: Duration = Duration::from_secs(1);

/// The least time between two such checks.
const CALM: Duration = Duration::from_secs(10);

/// How a program has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    Code(i32),
    Signal { signal: i32, core_dumped: bool },
}

/// What the keeper tells all processes of the tree. Each is stronger than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stop {
    /// Finish your requests (SIGTERM).
    Finish,
    /// Exit now (SIGINT).
    Quick,
    /// Be killed (SIGKILL).
    Kill,
}

/// What a check has found about the tree's processes. Each is a better sign than the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Observation {
    /// No process has the pool's socket open.
    #[default]
    Nothing,
    /// A process has it open, and does not wait for connections.
    Holds,
    /// A process may wait where that cannot be observed: it may not be inspected, or uses io_uring(7).
    Hidden,
    /// A process waits for connections on it.
    Waits,
}

/// How the keeper finds out that its program is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// The program waits for connections.
    Observation,
    /// The program waits for connections and answers a request.
    Answer,
    /// The parent finds out by itself.
    Elsewhere,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fact {
    /// The lifeline or a signal asked it to end.
    Asked(Stop),
    Observed(Observation),
    /// The program has answered the request that asks whether it is ready.
    Answered,
    /// A connection waits to be accepted.
    Queued,
    /// A signal has stopped or continued the program.
    Suspended(bool),
    /// The program has exited. Other processes of its tree may remain.
    Exited(Exit),
    /// The tree has no process left.
    Childless,
    /// Time has passed. `has_parent` tells whether the parent may watch the timeout as well.
    Tick {
        has_parent: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Tell this to every process of the tree.
    Tell(Stop),
    /// Report that the program is serving.
    Ready,
    /// Report that the program waits for connections, and send it the request that asks whether it is ready.
    Ask,
    /// Report that the program was stopped or continued.
    Suspended(bool),
    /// Close the pool's sockets, so that the ports are free once the program has closed its own sockets.
    LetGo,
    /// Exit the way the program did.
    End { exit: Exit, why: Option<Why> },
}

/// What is known about the end of a program besides its exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    Closed,
    CoreDumped,
    LeftOthers,
    /// It has exited before it was ready.
    Early,
    /// It was not ready when it was ended.
    NoSocket,
    NotWaiting,
}

impl Why {
    pub(super) fn text(self) -> &'static str {
        match self {
            Why::Closed => "it had closed the pool's socket, and nobody took its connections",
            Why::CoreDumped => "core dumped",
            Why::LeftOthers => {
                "it left others to run in the background; have it stay in the foreground, not become a daemon"
            }
            Why::Early => "before it waited for connections",
            Why::NoSocket => "it did not have the pool's socket open",
            Why::NotWaiting => "it had the pool's socket open and was not seen to wait for connections",
        }
    }
}

/// The plan for one program.
#[derive(Debug)]
pub(super) struct Plan {
    drain_timeout: Duration,
    started: Time,
    looks: Option<Looks>,
    /// Whether a program that waits for connections is then asked if it is ready.
    is_asked: bool,
    /// Set once the program was seen to wait for connections.
    vigil: Option<Vigil>,
    /// Whether the program has closed the pool's socket.
    has_closed: bool,
    /// Whether it is stopped, and whether the parent thinks so.
    is_stopped: (bool, bool),
    stops: Pace,
    told: Option<Stop>,
    /// When all of them are killed.
    until: Option<Time>,
    /// Whether the parent may kill them earlier.
    defers: bool,
    exit: Option<Exit>,
    /// Whether the program has exited by itself.
    is_own_end: bool,
    /// Whether it was asked to end so soon that it need not have been ready.
    is_hasty: bool,
    /// Whether it has left other processes behind.
    has_left: bool,
    effects: VecDeque<Effect>,
}

/// When to check that a program that serves still has the socket: only after a connection has waited, and rarely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Vigil {
    Armed,
    Doubt { look: Time },
    Calm { until: Time },
}

/// The checks of a program that is not ready yet.
#[derive(Clone, Copy, Debug)]
struct Looks {
    next: Time,
    pause: Duration,
    latest: Observation,
}

impl Plan {
    /// For a program that begins to run now. `sign` shows that it is ready. A timeout of zero is none.
    pub(super) fn new(drain_timeout: Duration, sign: Sign, now: Time) -> Plan {
        let looks = sign != Sign::Elsewhere;
        Plan {
            drain_timeout,
            started: now,
            looks: looks.then_some(Looks { next: now, pause: LOOK, latest: Observation::default() }),
            is_asked: sign == Sign::Answer,
            vigil: None,
            has_closed: false,
            is_stopped: (false, false),
            stops: Pace::default(),
            told: None,
            until: None,
            defers: false,
            exit: None,
            is_own_end: false,
            is_hasty: false,
            has_left: false,
            effects: VecDeque::new(),
        }
    }

    pub(super) fn handle(&mut self, fact: Fact, now: Time) {
        match fact {
            Fact::Asked(stop) => self.asked(stop, now),
            Fact::Observed(observation) => self.observed(observation, now),
            Fact::Answered if self.told.is_none() => self.effects.push_back(Effect::Ready),
            Fact::Answered => {}
            Fact::Queued if self.vigil == Some(Vigil::Armed) => self.vigil = Some(Vigil::Doubt { look: now + QUEUED }),
            Fact::Queued => {}
            Fact::Suspended(is_stopped) => self.is_stopped.0 = is_stopped,
            Fact::Exited(exit) => self.exited(exit, now),
            Fact::Childless => {
                if let Some(exit) = self.exit {
                    self.effects.push_back(Effect::End { exit, why: self.reason(exit) });
                }
            }
            Fact::Tick { has_parent } => self.expire(has_parent, now),
        }
        self.tell_of_stops(now);
    }

    pub(super) fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When time matters next.
    pub(super) fn deadline(&self) -> Option<Time> {
        let stops = (self.is_stopped.0 != self.is_stopped.1).then(|| self.stops.next(STOPPING));
        let rest = match self.vigil {
            Some(Vigil::Calm { until }) if self.told.is_none() => Some(until),
            _ => None,
        };
        self.until.into_iter().chain(self.next_look()).chain(stops).chain(rest).min()
    }

    /// When to check the processes next.
    pub(super) fn next_look(&self) -> Option<Time> {
        let doubt = match self.vigil {
            Some(Vigil::Doubt { look }) => Some(look),
            _ => None,
        };
        self.looks.map(|looks| looks.next).or(doubt).filter(|_| self.told.is_none())
    }

    /// Whether it matters that a connection waits.
    pub(super) fn is_vigilant(&self) -> bool {
        self.vigil == Some(Vigil::Armed) && self.told.is_none()
    }

    fn asked(&mut self, stop: Stop, now: Time) {
        if self.told >= Some(stop) {
            return;
        }
        if self.told.is_none() {
            self.effects.push_back(Effect::LetGo);
            self.defers = true;
            self.is_hasty = stop != Stop::Kill && now.since(self.started) < BOOT;
            self.until = (!self.drain_timeout.is_zero()).then(|| now + self.drain_timeout);
        }
        self.told = Some(stop);
        self.effects.push_back(Effect::Tell(stop));
        if stop == Stop::Kill {
            self.defers = false;
            self.until = Some(now + ROUND);
        }
    }

    fn exited(&mut self, exit: Exit, now: Time) {
        self.exit = Some(exit);
        if self.told.is_none() {
            self.is_own_end = true;
            self.asked(Stop::Finish, now);
            self.defers = false;
            self.until = Some(now + if self.drain_timeout.is_zero() { REST } else { REST.min(self.drain_timeout) });
        }
    }

    fn observed(&mut self, observation: Observation, now: Time) {
        if let Some(Vigil::Doubt { .. }) = self.vigil {
            self.vigil = Some(Vigil::Calm { until: now + CALM });
            if observation == Observation::Nothing && self.told.is_none() {
                self.has_closed = true;
                self.asked(Stop::Finish, now);
                self.defers = false;
            }
            return;
        }
        let Some(looks) = self.looks.as_mut().filter(|_| self.told.is_none()) else { return };
        let is_ready = observation == Observation::Waits
            || observation == Observation::Hidden && now >= self.started + ASSUMED_READY;
        looks.latest = observation;
        looks.next = now + looks.pause;
        looks.pause = (looks.pause * 5 / 4 + Duration::from_millis(1)).min(LOOK_MOST);
        if is_ready {
            self.looks = None;
            self.vigil = (observation == Observation::Waits).then_some(Vigil::Armed);
            self.effects.push_back(if self.is_asked { Effect::Ask } else { Effect::Ready });
        }
    }

    fn expire(&mut self, has_parent: bool, now: Time) {
        if self.vigil.is_some_and(|vigil| matches!(vigil, Vigil::Calm { until } if until <= now)) {
            self.vigil = Some(Vigil::Armed);
        }
        if self.until.is_none_or(|until| now < until) {
            return;
        }
        if has_parent && std::mem::take(&mut self.defers) {
            self.until = Some(now + PARENT_GRACE);
            return;
        }
        self.told = Some(Stop::Kill);
        self.effects.push_back(Effect::Tell(Stop::Kill));
        self.until = Some(now + ROUND);
    }

    fn tell_of_stops(&mut self, now: Time) {
        let (is, told) = self.is_stopped;
        if is != told && self.exit.is_none() && self.stops.take(STOPPING, now).is_ok() {
            self.is_stopped.1 = is;
            self.effects.push_back(Effect::Suspended(is));
        }
    }

    /// The program has exited, and other processes remain.
    pub(super) fn left_behind(&mut self) {
        self.has_left |= self.exit.is_some();
    }

    /// What is known besides how it has ended.
    fn reason(&self, exit: Exit) -> Option<Why> {
        let observation = self.looks.map(|looks| looks.latest);
        match (exit, observation) {
            _ if self.has_closed => Some(Why::Closed),
            (Exit::Signal { core_dumped: true, .. }, _) => Some(Why::CoreDumped),
            (Exit::Code(0), _) if self.is_own_end && self.has_left => Some(Why::LeftOthers),
            (Exit::Code(_), Some(_)) if self.is_own_end => Some(Why::Early),
            (_, Some(_)) if self.is_hasty => None,
            (_, Some(Observation::Nothing)) if !self.is_own_end => Some(Why::NoSocket),
            (_, Some(Observation::Holds)) if !self.is_own_end => Some(Why::NotWaiting),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
