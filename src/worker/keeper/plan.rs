//! PURE. What happens to a program and to the processes that it has started: events in, effects out.
//!
//! ```text
//!              it is ready              asked to finish, or to end
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
const LEFTOVER_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the keeper leaves it to the parent, while there is one, to notice the end of the drain timeout.
const PARENT_GRACE: Duration = Duration::from_secs(2);

/// The interval between two rounds of killing.
const KILL_INTERVAL: Duration = Duration::from_millis(20);

/// The interval between two checks of what the program waits for: the first, and the maximum.
const CHECK_INTERVAL: Duration = Duration::from_millis(2);
const CHECK_INTERVAL_MAX: Duration = Duration::from_millis(50);

/// After how long a running program counts as ready if its waiting cannot be observed.
const ASSUMED_READY: Duration = Duration::from_secs(1);

/// How long most programs take to be ready. That one is stopped earlier says nothing about it.
const START_TIME: Duration = Duration::from_secs(5);

/// How long a connection may wait before the keeper checks that the program still has the socket.
const QUEUE_TIME_MAX: Duration = Duration::from_secs(1);

/// The pause after such a check.
const CHECK_PAUSE: Duration = Duration::from_secs(10);

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

/// What a check has found about the tree's processes. Each is better evidence than the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Observation {
    /// No process has the pool's socket open.
    #[default]
    Nothing,
    /// The same, and one has accepted a connection before.
    Closed,
    /// A process has it open, and does not wait for connections.
    Holds,
    /// A process may wait where that cannot be observed: it may not be inspected, or uses io_uring(7).
    Hidden,
    /// A process waits for connections on it, or has accepted one.
    WaitingCall,
}

/// How the keeper finds out that its program is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadyCheck {
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
    End { exit: Exit, why: Option<EndReason> },
}

/// What is known about the end of a program besides its exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndReason {
    Closed,
    CoreDumped,
    LeftOthers,
    /// It has exited before it was ready.
    Early,
    /// It was not ready when it was ended.
    NoSocket,
    NotWaiting,
}

impl EndReason {
    pub(super) fn text(self) -> &'static str {
        match self {
            EndReason::Closed => "it had closed the pool's socket, and nobody took its connections",
            EndReason::CoreDumped => "core dumped",
            EndReason::LeftOthers => {
                "it left others to run in the background; have it stay in the foreground, not become a daemon"
            }
            EndReason::Early => "before it waited for connections",
            EndReason::NoSocket => "it did not have the pool's socket open",
            EndReason::NotWaiting => "it had the pool's socket open and was not seen to wait for connections",
        }
    }
}

/// The plan for one program.
#[derive(Debug)]
pub(super) struct Plan {
    drain_timeout: Duration,
    started: Time,
    checks: Option<Checks>,
    /// Whether a program that waits for connections is then asked if it is ready.
    is_asked: bool,
    /// Set once the program was seen to wait for connections.
    check: Option<SocketCheck>,
    suspension: Suspension,
    /// The latest order to stop, if there was one.
    ordered: Option<Stop>,
    /// When all of them are killed.
    until: Option<Time>,
    /// Whether the parent may kill them earlier.
    defers: bool,
    exit: Option<Exit>,
    circumstances: Circumstances,
    effects: VecDeque<Effect>,
}

/// What explains the end of a program, besides its exit status. Nothing here is ever taken back.
#[derive(Debug, Default)]
struct Circumstances {
    /// Whether the program has closed the pool's socket.
    has_closed: bool,
    /// Whether it has exited by itself.
    is_own_end: bool,
    /// Whether it was asked to end so soon that it need not have been ready.
    is_hasty: bool,
    /// Whether it has left other processes behind.
    has_left: bool,
}

/// Whether a signal has stopped the program, and what the parent knows about that.
#[derive(Debug, Default)]
struct Suspension {
    is_stopped: bool,
    /// What was reported last.
    reported: bool,
    pace: Pace,
}

impl Suspension {
    /// When to report a change.
    fn due(&self) -> Option<Time> {
        (self.is_stopped != self.reported).then(|| self.pace.next(STOPPING))
    }

    /// What to report now, if it has changed. A program that is stopped and continued all the time is reported at a
    /// limited rate, by its latest state.
    fn take(&mut self, now: Time) -> Option<bool> {
        if self.is_stopped == self.reported || self.pace.take(STOPPING, now).is_err() {
            return None;
        }
        self.reported = self.is_stopped;
        Some(self.reported)
    }
}

/// When to check that a program that serves still has the socket: only after a connection has waited, and rarely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SocketCheck {
    /// When a connection has waited for a while.
    Ready,
    /// A connection waits.
    Due { at: Time },
    /// After a check.
    Paused { until: Time },
}

/// The checks of a program that is not ready yet.
#[derive(Clone, Copy, Debug)]
struct Checks {
    next: Time,
    pause: Duration,
    latest: Observation,
}

impl Plan {
    /// For a program that begins to run now. `ready_check` says how it shows that it is ready. A timeout of zero is
    /// none.
    pub(super) fn new(drain_timeout: Duration, ready_check: ReadyCheck, now: Time) -> Plan {
        let checks = ready_check != ReadyCheck::Elsewhere;
        Plan {
            drain_timeout,
            started: now,
            checks: checks.then_some(Checks { next: now, pause: CHECK_INTERVAL, latest: Observation::default() }),
            is_asked: ready_check == ReadyCheck::Answer,
            check: None,
            suspension: Suspension::default(),
            ordered: None,
            until: None,
            defers: false,
            exit: None,
            circumstances: Circumstances::default(),
            effects: VecDeque::new(),
        }
    }

    pub(super) fn handle(&mut self, fact: Fact, now: Time) {
        match fact {
            Fact::Asked(stop) => self.asked(stop, now),
            Fact::Observed(observation) => self.observed(observation, now),
            Fact::Answered if self.ordered.is_none() => self.effects.push_back(Effect::Ready),
            Fact::Answered => {}
            Fact::Queued if self.check == Some(SocketCheck::Ready) => {
                self.check = Some(SocketCheck::Due { at: now + QUEUE_TIME_MAX });
            }
            Fact::Queued => {}
            Fact::Suspended(is_stopped) => self.suspension.is_stopped = is_stopped,
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
        let stops = self.suspension.due();
        let rest = match self.check {
            Some(SocketCheck::Paused { until }) if self.ordered.is_none() => Some(until),
            _ => None,
        };
        self.until.into_iter().chain(self.next_look()).chain(stops).chain(rest).min()
    }

    /// When to check the processes next.
    pub(super) fn next_look(&self) -> Option<Time> {
        let check = match self.check {
            Some(SocketCheck::Due { at }) => Some(at),
            _ => None,
        };
        self.checks.map(|checks| checks.next).or(check).filter(|_| self.ordered.is_none())
    }

    /// Whether the processes were told to finish or to end. That the lifeline ends says no more.
    pub(super) fn is_told(&self) -> bool {
        self.ordered.is_some()
    }

    /// Whether it matters that a connection waits.
    pub(super) fn watches_queues(&self) -> bool {
        self.check == Some(SocketCheck::Ready) && self.ordered.is_none()
    }

    fn asked(&mut self, stop: Stop, now: Time) {
        if self.ordered >= Some(stop) {
            return;
        }
        if self.ordered.is_none() {
            self.effects.push_back(Effect::LetGo);
            self.defers = true;
            self.circumstances.is_hasty = stop != Stop::Kill && now.since(self.started) < START_TIME;
            self.until = (!self.drain_timeout.is_zero()).then(|| now + self.drain_timeout);
        }
        self.ordered = Some(stop);
        self.effects.push_back(Effect::Tell(stop));
        if stop == Stop::Kill {
            self.defers = false;
            self.until = Some(now + KILL_INTERVAL);
        }
    }

    fn exited(&mut self, exit: Exit, now: Time) {
        self.exit = Some(exit);
        if self.ordered.is_none() {
            self.circumstances.is_own_end = true;
            self.asked(Stop::Finish, now);
            self.defers = false;
            self.until = Some(
                now + if self.drain_timeout.is_zero() {
                    LEFTOVER_TIMEOUT
                } else {
                    LEFTOVER_TIMEOUT.min(self.drain_timeout)
                },
            );
        }
    }

    fn observed(&mut self, observation: Observation, now: Time) {
        if let Some(SocketCheck::Due { .. }) = self.check {
            self.check = Some(SocketCheck::Paused { until: now + CHECK_PAUSE });
            if observation <= Observation::Closed && self.ordered.is_none() {
                self.circumstances.has_closed = true;
                self.asked(Stop::Finish, now);
                self.defers = false;
            }
            return;
        }
        let Some(checks) = self.checks.as_mut().filter(|_| self.ordered.is_none()) else { return };
        if observation == Observation::Closed {
            self.circumstances.has_closed = true;
            self.asked(Stop::Finish, now);
            self.defers = false;
            return;
        }
        let is_ready = observation == Observation::WaitingCall
            || observation == Observation::Hidden && now >= self.started + ASSUMED_READY;
        checks.latest = observation;
        checks.next = now + checks.pause;
        checks.pause = (checks.pause * 5 / 4 + Duration::from_millis(1)).min(CHECK_INTERVAL_MAX);
        if is_ready {
            self.checks = None;
            self.check = (observation == Observation::WaitingCall).then_some(SocketCheck::Ready);
            self.effects.push_back(if self.is_asked { Effect::Ask } else { Effect::Ready });
        }
    }

    fn expire(&mut self, has_parent: bool, now: Time) {
        if self.check.is_some_and(|check| matches!(check, SocketCheck::Paused { until } if until <= now)) {
            self.check = Some(SocketCheck::Ready);
        }
        if self.until.is_none_or(|until| now < until) {
            return;
        }
        if has_parent && std::mem::take(&mut self.defers) {
            self.until = Some(now + PARENT_GRACE);
            return;
        }
        self.ordered = Some(Stop::Kill);
        self.effects.push_back(Effect::Tell(Stop::Kill));
        self.until = Some(now + KILL_INTERVAL);
    }

    fn tell_of_stops(&mut self, now: Time) {
        if self.exit.is_none() {
            self.effects.extend(self.suspension.take(now).map(Effect::Suspended));
        }
    }

    /// The program has exited, and other processes remain.
    pub(super) fn left_behind(&mut self) {
        self.circumstances.has_left |= self.exit.is_some();
    }

    /// What is known besides how it has ended.
    fn reason(&self, exit: Exit) -> Option<EndReason> {
        let observation = self.checks.map(|checks| checks.latest);
        let Circumstances { has_closed, is_own_end, is_hasty, has_left } = self.circumstances;
        match (exit, observation) {
            _ if has_closed => Some(EndReason::Closed),
            (Exit::Signal { core_dumped: true, .. }, _) => Some(EndReason::CoreDumped),
            (Exit::Code(0), _) if is_own_end && has_left => Some(EndReason::LeftOthers),
            (Exit::Code(_), Some(_)) if is_own_end => Some(EndReason::Early),
            (_, Some(_)) if is_hasty => None,
            (_, Some(Observation::Nothing)) if !is_own_end => Some(EndReason::NoSocket),
            (_, Some(Observation::Holds)) if !is_own_end => Some(EndReason::NotWaiting),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
