//! PURE. A slot and its processes: at most one that serves, and one that replaces it or leaves.

use std::time::Duration;

use crate::parent::supervisor::effects::Effects;
use crate::parent::supervisor::event::{Effect, KillReason, Pid, Recycle, Stop};
use crate::parent::supervisor::policy::Timeouts;
use crate::shared::pace::Pace;
use crate::shared::state::WorkerState;
use crate::time::Time;

/// A slot of the pool. It outlives the processes that serve it.
#[derive(Debug)]
pub(super) struct Slot {
    /// Whether the parent has its sockets. Then a start need not wait for its turn.
    pub(super) listened: bool,
    /// How many times it has been started.
    pub(super) generation: u64,
    /// When it was last started.
    pub(super) started: Option<Time>,
    /// The number of workers in a row that never served.
    pub(super) failures: u32,
    /// While it is vacant, it is not started before this time.
    pub(super) start_at: Time,
    /// The rate of its starts, except the first and those requested by an operator.
    pub(super) respawns: Pace,
    /// The rate of replacements at the request of its own workers.
    pub(super) requested: Pace,
    /// Who decides how long it waits.
    pub(super) hold: Hold,
    /// In the order of their start; never more than two.
    pub(super) processes: Vec<Process>,
}

impl Slot {
    pub(super) fn new(now: Time) -> Slot {
        let processes = Vec::with_capacity(Slot::MOST);
        Slot {
            listened: false,
            generation: 0,
            started: None,
            failures: 0,
            start_at: now,
            respawns: Pace::default(),
            requested: Pace::default(),
            hold: Hold::Backoff,
            processes,
        }
    }

    /// A worker and its replacement, or a worker and its predecessor.
    pub(super) const MOST: usize = 2;

    /// The processes that were not told to leave: the worker of the slot, and during a replacement the new one.
    pub(super) fn staying(&self) -> impl Iterator<Item = &Process> {
        self.processes.iter().filter(|process| !process.stage.is_leaving())
    }

    /// Whether it has no worker, should have one, and has space for it.
    pub(super) fn is_vacant(&self) -> bool {
        self.hold != Hold::ForGood && self.staying().next().is_none() && self.processes.len() < Slot::MOST
    }

    /// Whether a worker that was not told to leave serves.
    pub(super) fn is_ready(&self) -> bool {
        self.staying().any(Process::serves)
    }

    /// Whether its worker is to be replaced, no replacement was started, and there is space for one.
    pub(super) fn awaits(&self, replaced: impl Fn(&Process) -> bool) -> bool {
        let mut staying = self.staying();
        let worker = staying.next().filter(|process| process.stage == Stage::Ready && replaced(process));
        worker.is_some() && staying.next().is_none() && self.processes.len() < Slot::MOST
    }

    /// Whether its workers fail to serve, and the policy decides when it is tried again.
    pub(super) fn is_retried(&self) -> bool {
        self.failures > 0 && self.hold == Hold::Backoff
    }

    /// Adds a process that is to be forked, and returns its generation.
    pub(super) fn start(&mut self, now: Time) -> u64 {
        assert!(self.processes.len() < Slot::MOST, "the slot is full: {self:?}");
        self.generation += 1;
        self.started = Some(now);
        self.hold = Hold::Backoff;
        self.processes.push(Process::new(self.generation, now));
        self.generation
    }

    /// Waits until this time, whatever the policy says.
    pub(super) fn start_as_asked(&mut self, at: Time) {
        (self.hold, self.start_at) = (Hold::Application, at);
    }

    /// Whether a worker or a replacement is starting.
    pub(super) fn is_starting(&self) -> bool {
        self.staying().any(|process| process.stage != Stage::Ready)
    }

    /// Postpones everything that depends on time.
    pub(super) fn frozen(&mut self, span: Duration) {
        self.start_at = self.start_at + span;
        self.started = self.started.map(|at| at + span);
        self.respawns.frozen(span);
        self.requested.frozen(span);
        for process in &mut self.processes {
            process.since = process.since + span;
            process.suspended_since = process.suspended_since + span;
        }
    }

    /// While a slot's first worker has not called `listen` yet, no other slot's first worker is forked.
    pub(super) fn holds_turn(&self) -> bool {
        !self.listened && self.staying().any(|process| process.stage != Stage::Ready)
    }
}

/// Who decides how long a vacant slot waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// The policy. If no other worker serves, the slot is started earlier.
    Backoff,
    /// The application.
    Application,
    /// The application, until it or an operator asks for a worker. The slot only has processes that are leaving.
    ForGood,
}

/// A worker process, from the decision to fork it until it is reaped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process {
    /// `None` until the fork is done.
    pub(crate) pid: Option<Pid>,
    pub(crate) generation: u64,
    pub(crate) stage: Stage,
    /// When it entered its stage.
    pub(crate) since: Time,
    /// Started before the current rolling restart was requested, and so to be replaced by it.
    pub(super) stale: bool,
    /// Must be replaced because of this limit, when no other slot is being replaced.
    pub(super) due: Option<Recycle>,
    /// Whether its replacement was started because of the limit.
    pub(super) is_recycled: bool,
    /// When it will reach its age.
    pub(super) expires: Option<(Time, Recycle)>,
    /// Whether it is stopped by a signal.
    pub(crate) is_suspended: bool,
    /// Since when it was, or was not.
    pub(super) suspended_since: Time,
}

impl Process {
    pub(super) fn new(generation: u64, now: Time) -> Process {
        Process {
            pid: None,
            generation,
            stage: Stage::Spawning,
            since: now,
            stale: false,
            due: None,
            is_recycled: false,
            expires: None,
            is_suspended: false,
            suspended_since: now,
        }
    }

    /// Whether it is ready, and not stopped by a signal.
    pub(crate) fn serves(&self) -> bool {
        self.stage == Stage::Ready && !self.is_suspended
    }

    /// Its state for people and applications.
    pub(crate) fn state(&self) -> WorkerState {
        match self.stage {
            Stage::Spawning | Stage::Starting => WorkerState::Starting,
            Stage::Ready if self.is_suspended => WorkerState::Suspended,
            Stage::Ready => WorkerState::Ready,
            Stage::Draining => WorkerState::Draining,
            Stage::Quitting | Stage::Aborting | Stage::Killing(_) => WorkerState::Ending,
        }
    }

    pub(super) fn enter(&mut self, stage: Stage, now: Time) {
        self.stage = stage;
        self.since = now;
    }

    /// Tells it to leave, unless it was already told as strongly. A process without a pid is told once it has one.
    pub(super) fn stop(&mut self, how: Stop, effects: &mut Effects, now: Time) {
        let Some(pid) = self.pid.filter(|_| self.stage.ordered() < Some(how)) else { return };
        let (stage, effect) = match how {
            Stop::Drain => (Stage::Draining, Effect::Drain { pid }),
            Stop::Quick => (Stage::Quitting, Effect::Quit { pid }),
            Stop::Force => (Stage::Killing(KillReason::Forced), Effect::Kill { pid, why: KillReason::Forced }),
        };
        self.enter(stage, now);
        effects.push(effect);
    }

    /// When it will have been in its stage for too long, and the reason for which it is killed then.
    pub(super) fn deadline(&self, timeouts: &Timeouts) -> Option<(Time, KillReason)> {
        let is_stopped = self.stage == Stage::Starting && self.is_suspended;
        let stopped = is_stopped.then(|| (self.suspended_since + timeouts.suspended, KillReason::Suspended));
        self.end_of_stage(timeouts).into_iter().chain(stopped).min_by_key(|(at, _)| *at)
    }

    fn end_of_stage(&self, timeouts: &Timeouts) -> Option<(Time, KillReason)> {
        let (limit, reason) = match self.stage {
            Stage::Starting => (timeouts.boot, KillReason::BootTimeout),
            Stage::Draining => (timeouts.drain, KillReason::DrainTimeout),
            Stage::Quitting => (timeouts.quick, KillReason::QuickTimeout),
            Stage::Aborting => (timeouts.quick, KillReason::Stalled),
            Stage::Spawning | Stage::Ready | Stage::Killing(_) => return None,
        };
        (!limit.is_zero()).then(|| (self.since + limit, reason))
    }
}

/// The stage of a process's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// About to be forked.
    Spawning,
    /// Forked, and not ready yet.
    Starting,
    Ready,
    /// Asked to finish its requests.
    Draining,
    /// Asked to exit now.
    Quitting,
    /// Stalled, and asked to log a backtrace.
    Aborting,
    /// Killed, and not reaped yet.
    Killing(KillReason),
}

impl Stage {
    /// Whether it was told to leave. Then its exit is no failure, whatever its status.
    pub(crate) fn is_leaving(self) -> bool {
        self.ordered().is_some()
    }

    /// How strongly it was told to leave.
    pub(super) fn ordered(self) -> Option<Stop> {
        match self {
            Stage::Spawning | Stage::Starting | Stage::Ready => None,
            Stage::Draining => Some(Stop::Drain),
            Stage::Quitting | Stage::Aborting => Some(Stop::Quick),
            Stage::Killing(_) => Some(Stop::Force),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    /// A slot with processes in these stages, whose pids are 10, 11.
    fn slot(stages: &[Stage]) -> Slot {
        let mut slot = Slot::new(at(0));
        for (stage, pid) in stages.iter().zip(10..) {
            slot.start(at(0));
            let process = slot.processes.last_mut().expect("it was started");
            (process.stage, process.pid) = (*stage, Some(Pid(pid)));
        }
        slot
    }

    #[test]
    fn it_has_space_for_a_worker_and_one_that_replaces_it_or_leaves() {
        use Stage::{Draining, Ready, Starting};
        // Vacant, starting, and waiting for a replacement if its worker is to be replaced.
        let cases: [(&[Stage], _); 6] = [
            (&[], (true, false, false)),
            (&[Starting], (false, true, false)),
            (&[Ready], (false, false, true)),
            (&[Draining], (true, false, false)),
            (&[Ready, Starting], (false, true, false)),
            (&[Draining, Draining], (false, false, false)),
        ];
        for (stages, expected) in cases {
            let slot = slot(stages);
            assert_eq!((slot.is_vacant(), slot.is_starting(), slot.awaits(|_| true)), expected, "{stages:?}");
        }
        assert!(!slot(&[Ready, Draining]).awaits(|_| true), "there is no space until the second has gone");
        let mut left_empty = slot(&[]);
        left_empty.hold = Hold::ForGood;
        assert!(!left_empty.is_vacant());
    }

    #[test]
    fn a_first_start_holds_its_turn_until_the_parent_has_the_sockets() {
        let mut slot = slot(&[Stage::Starting]);
        assert!(slot.holds_turn());
        slot.listened = true;
        assert!(!slot.holds_turn());
    }

    #[test]
    fn a_process_is_told_once_and_again_only_more_strongly() {
        let (mut effects, mut process) = (Effects::default(), Process::new(1, at(0)));
        process.stop(Stop::Drain, &mut effects, at(1));
        assert_eq!(effects.pop(), None, "it has no pid yet");
        process.pid = Some(Pid(10));
        for how in [Stop::Drain, Stop::Drain, Stop::Quick, Stop::Drain, Stop::Force, Stop::Quick] {
            process.stop(how, &mut effects, at(2));
        }
        let (pid, why) = (Pid(10), KillReason::Forced);
        let told: Vec<_> = std::iter::from_fn(|| effects.pop()).collect();
        assert_eq!(told, [Effect::Drain { pid }, Effect::Quit { pid }, Effect::Kill { pid, why }]);
    }

    #[test]
    fn each_stage_has_its_own_timeout_and_zero_is_none() {
        let [boot, suspended, quick] = [1, 2, 3].map(Duration::from_secs);
        let timeouts = Timeouts { boot, suspended, drain: Duration::ZERO, quick };
        let deadline = |stage| Process { stage, ..Process::new(1, at(0)) }.deadline(&timeouts);
        assert_eq!(deadline(Stage::Starting), Some((at(1_000), KillReason::BootTimeout)));
        assert_eq!(deadline(Stage::Draining), None);
        assert_eq!(deadline(Stage::Quitting), Some((at(3_000), KillReason::QuickTimeout)));
        assert_eq!(deadline(Stage::Aborting), Some((at(3_000), KillReason::Stalled)));
        for stage in [Stage::Spawning, Stage::Ready, Stage::Killing(KillReason::Forced)] {
            assert_eq!(deadline(stage), None, "{stage:?}");
        }
    }
}
