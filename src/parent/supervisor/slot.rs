//! PURE. A slot and the processes in it: at most one that serves and one that replaces it or leaves.

use super::{KillReason, Pid, Policy, Recycle, Stop};
use crate::shared::pace::Pace;
use crate::shared::state::WorkerState;
use crate::time::Time;

/// A place in the pool. It outlives the processes that serve it.
#[derive(Debug)]
pub(super) struct Slot {
    /// Its sockets are in the parent's custody: a start need not take its turn any more.
    pub(super) listened: bool,
    /// How often it has been started.
    pub(super) generation: u64,
    /// When it was started last.
    pub(super) started: Option<Time>,
    /// Workers in a row that never served.
    pub(super) failures: u32,
    /// While it is vacant: not started before this time.
    pub(super) start_at: Time,
    /// Of its starts but the first and those that an operator asks for.
    pub(super) respawns: Pace,
    /// Of the replacements that its own workers have asked for.
    pub(super) own_word: Pace,
    /// On whose word it waits.
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
            own_word: Pace::default(),
            hold: Hold::Backoff,
            processes,
        }
    }

    /// A worker and its replacement, or a worker and its predecessor: more could not be told apart by anyone.
    pub(super) const MOST: usize = 2;

    /// The processes that were not told to leave: the slot's worker and, during a rolling restart, its replacement.
    pub(super) fn staying(&self) -> impl Iterator<Item = &Process> {
        self.processes.iter().filter(|process| !process.stage.is_leaving())
    }

    /// It has no worker, is to have one, and has room for it.
    pub(super) fn is_vacant(&self) -> bool {
        self.hold != Hold::ForGood && self.staying().next().is_none() && self.processes.len() < Slot::MOST
    }

    /// Whether a worker that was not told to leave serves.
    pub(super) fn is_ready(&self) -> bool {
        self.staying().any(Process::serves)
    }

    /// Its worker is to be replaced, nothing has been started for that yet, and there is room.
    pub(super) fn awaits(&self, replaced: impl Fn(&Process) -> bool) -> bool {
        let mut staying = self.staying();
        let worker = staying.next().filter(|process| process.stage == Stage::Ready && replaced(process));
        worker.is_some() && staying.next().is_none() && self.processes.len() < Slot::MOST
    }

    /// Its workers do not come to serve, and it is the policy's to say when it is tried again.
    pub(super) fn is_retried(&self) -> bool {
        self.failures > 0 && self.hold == Hold::Backoff
    }

    /// Waits until then, whatever the policy says.
    pub(super) fn start_as_asked(&mut self, at: Time) {
        (self.hold, self.start_at) = (Hold::Application, at);
    }

    /// A worker or a replacement is on its way.
    pub(super) fn is_starting(&self) -> bool {
        self.staying().any(|process| process.stage != Stage::Ready)
    }

    /// Between the fork of its first worker and that worker's `listen`, no other slot's first worker is forked.
    pub(super) fn holds_turn(&self) -> bool {
        !self.listened && self.staying().any(|process| process.stage != Stage::Ready)
    }
}

/// On whose word a vacant slot is not started yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// The policy's, which gives way when nobody else serves.
    Backoff,
    /// The application's.
    Application,
    /// The application's, until it or an operator asks for a worker. No process is in the slot but those that leave.
    ForGood,
}

/// A worker process, from the wish to fork it until it is reaped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process {
    /// None until the fork is done.
    pub(crate) pid: Option<Pid>,
    pub(crate) generation: u64,
    pub(crate) stage: Stage,
    /// When it entered the stage.
    pub(crate) since: Time,
    /// Started before the running rolling restart was asked for, and so to be replaced by it.
    pub(super) stale: bool,
    /// To be replaced because of its own limits, when no other slot is.
    pub(super) due: Option<Recycle>,
    /// Its replacement has been started for that.
    pub(super) is_recycled: bool,
    /// When it will be due.
    pub(super) expires: Option<(Time, Recycle)>,
    /// A signal has stopped it.
    pub(crate) is_suspended: bool,
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
        }
    }

    /// Whether it is ready, and able to do what that promises.
    pub(crate) fn serves(&self) -> bool {
        self.stage == Stage::Ready && !self.is_suspended
    }

    /// What it is doing, in the words for people and applications.
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

    /// When it has been in its stage for too long, and why it is killed then.
    pub(super) fn deadline(&self, policy: &Policy) -> Option<(Time, KillReason)> {
        let (limit, reason) = match self.stage {
            Stage::Starting => (policy.boot_timeout, KillReason::BootTimeout),
            Stage::Draining => (policy.drain_timeout, KillReason::DrainTimeout),
            Stage::Quitting => (policy.quick_timeout, KillReason::QuickTimeout),
            Stage::Aborting => (policy.quick_timeout, KillReason::Stalled),
            Stage::Spawning | Stage::Ready | Stage::Killing(_) => return None,
        };
        (!limit.is_zero()).then(|| (self.since + limit, reason))
    }
}

/// Where a process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// To be forked.
    Spawning,
    /// Forked, and not ready yet.
    Starting,
    Ready,
    /// Asked to finish what it has.
    Draining,
    /// Asked to end now.
    Quitting,
    /// Stalled, and asked to say where.
    Aborting,
    /// Killed, and not reaped yet.
    Killing(KillReason),
}

impl Stage {
    /// Whether it was told to leave, so that its exit, whatever its status, is no failure.
    pub(crate) fn is_leaving(self) -> bool {
        self.told().is_some()
    }

    /// How firmly it was told to leave.
    pub(super) fn told(self) -> Option<Stop> {
        match self {
            Stage::Spawning | Stage::Starting | Stage::Ready => None,
            Stage::Draining => Some(Stop::Drain),
            Stage::Quitting | Stage::Aborting => Some(Stop::Quick),
            Stage::Killing(_) => Some(Stop::Force),
        }
    }
}
