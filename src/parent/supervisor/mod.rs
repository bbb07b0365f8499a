//! PURE. Decides which worker processes should run: events in, effects out.
//!
//! [`Supervisor::handle`] takes one [`Event`], compares the actual state with the wanted one, and queues the difference
//! as [`Effect`]s. It does not fork, wait, kill or read a clock, and a pid is only a name to it. The parent performs
//! the effects, and their results are the next events.
//!
//! The life of a process, and the effect of each event on it (`·` none). `tests/` walks this table cell by cell:
//!
//! ```text
//!              Spawned            Ready
//!   Spawning ───────────► Starting ────► Ready ─┐ its replacement is ready, scaling down, Stop
//!      │                     │  │          │    │
//!      │ SpawnFailed         │  └──────────┼────┴──► Draining ───────► Quitting
//!      │                     │             │            │ drain         │ quick
//!      ▼        boot timeout │     Stalled │            │ timeout       │ timeout
//!   (gone)                   └────────┬────┘            │               │
//!                                     ▼                 ▼               │
//!                     (Aborting ─►) Killing ◄───────────┴───────────────┘     Stop::Force kills from any stage
//!
//!   event\stage       Queued  Spawning  Starting      Ready         Draining  Quitting  Aborting  Killing
//!   Spawned           ·       Starting  ·             ·             ·         ·         ·         ·
//!   SpawnFailed       ·       gone+fail ·             ·             ·         ·         ·         ·
//!   Listening         ·       ·         custody       custody       custody   custody   custody   custody
//!   Ready             ·       ·         Ready         ·             ·         ·         ·         ·
//!   Stalled           ·       ·         ·             Killing       ·         ·         ·         ·
//!   Stalled(abort)    ·       ·         ·             Aborting      ·         ·         ·         ·
//!   Misbehaved        ·       ·         Killing+fail  Killing+fail  Killing   Killing   Killing   ·
//!   Suspended         ·       ·         ·             replaced      ·         ·         ·         ·
//!   Resumed           ·       ·         ·             ·             ·         ·         ·         ·
//!   Recycle           ·       ·         ·             replaced      ·         ·         ·         ·
//!   Disconnected      ·       ·         Draining      Draining      ·         ·         ·         ·
//!   Leaves            ·       ·         Draining      Draining      ·         ·         ·         ·
//!   Exited(0)         ·       ·         gone+fail     gone+fail     gone      gone      gone      gone
//!   Exited(1)         ·       ·         gone+fail     gone+fail     gone      gone      gone      gone
//!   Exited(served)    ·       ·         gone+fail     gone          gone      gone      gone      gone
//!   Exited(stable)    ·       ·         gone+fail     gone          gone      gone      gone      gone
//!   Exited(stranger)  ·       ·         ·             ·             ·         ·         ·         ·
//!   Frozen            ·       ·         ·             ·             ·         ·         ·         ·
//!   Tick(late)        ·       ·         Killing+fail  ·             Killing   Killing   Killing   ·
//!   Restart           ·       ·         ·             replaced      ·         ·         ·         ·
//!   Scale(up)         ·       ·         ·             ·             ·         ·         ·         ·
//!   Scale(down)       gone    ·         Draining      Draining      ·         ·         ·         ·
//!   Upgrade           ·       ·         ·             ·             ·         ·         ·         ·
//!   SuccessorReady    ·       ·         ·             ·             ·         ·         ·         ·
//!   SuccessorGone     ·       ·         ·             ·             ·         ·         ·         ·
//!   Stop(Drain)       gone    ·         Draining      Draining      ·         ·         ·         ·
//!   Stop(Quick)       gone    ·         Quitting      Quitting      Quitting  ·         ·         ·
//!   Stop(Force)       gone    ·         Killing       Killing       Killing   Killing   Killing   ·
//! ```
//!
//! A process is *queued* until the effect that forks it is returned, and can be withdrawn until then. A process that is
//! being forked has no pid yet, and is told what it was asked as soon as it has one. *fail*: its slot has failed once
//! more without having served. *served*: it reports that it has accepted a connection. *stable*: it was ready for a
//! second. *replaced*: another process starts in its slot while it stays.
//!
//! A failure is counted once, when it is noticed: at the exit, or when the kill is decided. So the exit of a worker
//! that was told to leave is never a failure, and a slot need not wait for a killed process that does not die. The
//! application may decide what follows an exit that nobody asked for ([`Respawn`]); then it does not count as a
//! failure.

#![forbid(unsafe_code)]

mod event;
mod failure;
mod gone;
mod life;
mod policy;
mod reconcile;
mod slot;
mod successor;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use self::failure::Failed;
use self::policy::SplitMix64;
use self::slot::Slot;
use self::successor::Successor;
use crate::shared::pace::Pace;
use crate::time::Time;

pub(crate) use self::event::{
    Effect, Event, Exit, Failure, KillReason, Notice, Outcome, Pid, Recycle, SlotId, Stop, UpgradeFailure,
};
pub use self::event::{PoolState, Respawn};
pub(crate) use self::gone::{Departure, Gone};
pub(crate) use self::policy::{jittered, Policy};
pub(crate) use self::slot::{Process, Stage};

/// The actual state, the wanted state, and the effects that were not returned yet.
#[derive(Debug)]
pub(crate) struct Supervisor {
    policy: Policy,
    /// Slots with a smaller number than this should have a worker.
    wanted: usize,
    /// These slots, and those removed by scaling whose processes are still alive.
    slots: BTreeMap<SlotId, Slot>,
    /// Whether this number of workers was requested, and not all of them have served yet.
    is_scaling: bool,
    /// Whether a rolling restart is in progress, which replaces every stale process.
    is_restarting: bool,
    /// The new binary, during an upgrade.
    successor: Option<Successor>,
    /// When the drain begins.
    lame_duck: Option<Time>,
    stopping: Option<Stopping>,
    /// When a stop was first requested.
    stop_asked: Option<Time>,
    /// Whether some worker was ever ready. Then the program works, and the pool no longer gives up.
    ever_ready: bool,
    /// Whether [`Notice::AllReady`] was returned.
    all_ready: bool,
    /// When the latest fork was requested.
    last_spawn: Time,
    /// The rate of starts that no operator has asked for.
    respawns: Pace,
    /// When a slot whose workers fail to serve was last tried; `None` once a worker tried since then serves.
    retried: Option<Time>,
    /// When a worker last failed without having served.
    failed: Option<Time>,
    random: SplitMix64,
    effects: VecDeque<Effect>,
}

#[derive(Debug)]
struct Stopping {
    how: Stop,
    outcome: Outcome,
    finished: bool,
}

impl Supervisor {
    /// The supervisor of a pool that wants this number of workers, at least one. Its first effect is pending.
    pub(crate) fn new(policy: Policy, workers: usize, seed: u64, now: Time) -> Supervisor {
        let mut supervisor = Supervisor {
            policy,
            wanted: workers.max(1),
            slots: BTreeMap::new(),
            is_scaling: false,
            is_restarting: false,
            successor: None,
            lame_duck: None,
            stopping: None,
            stop_asked: None,
            ever_ready: false,
            all_ready: false,
            last_spawn: now,
            respawns: Pace::default(),
            retried: None,
            failed: None,
            random: SplitMix64::new(seed),
            effects: VecDeque::new(),
        };
        supervisor.reconcile(now);
        supervisor
    }

    /// Handles one event, then compares the actual state with the wanted one.
    pub(crate) fn handle(&mut self, event: Event, now: Time) {
        if self.is_scaling && self.has_scaled(now) {
            self.is_scaling = false;
        }
        match event {
            Event::Spawned { slot, pid } => self.spawned(slot, pid, now),
            Event::SpawnFailed { slot } => self.spawn_failed(slot, now),
            Event::Listening { pid } => self.listening(pid),
            Event::Ready { pid } => self.ready(pid, now),
            Event::Stalled { pid } => self.stalled(pid, now),
            Event::Misbehaved { pid } => self.misbehaved(pid, now),
            Event::Suspended { pid } => self.suspend(pid, true),
            Event::Resumed { pid } => self.suspend(pid, false),
            Event::Recycle { pid, why } => self.recycle(pid, why),
            Event::Disconnected { pid } => self.disconnected(pid, now),
            Event::Leaves { pid } => self.leaves(pid, now),
            Event::Exited { pid, exit, has_served, respawn } => {
                self.exited(pid, Failed { reason: Failure::Exit(exit), has_served, respawn }, now);
            }
            Event::Restart => self.restart(now),
            Event::Scale { workers } => self.scale(workers.max(1), now),
            Event::Upgrade => self.upgrade(now),
            Event::SuccessorSpawned { pid } => self.successor_spawned(pid, now),
            Event::SuccessorReady => self.successor_ready(),
            Event::SuccessorGone { exit } => self.successor_gone(exit),
            Event::Stop(how) => self.asked_to_stop(how, now),
            Event::Frozen(span) => self.frozen(span),
            Event::Tick => self.expire(now),
        }
        self.reconcile(now);
    }

    /// The next effect, or `None` if there is none. Events may be handled between effects: an effect that an event
    /// makes obsolete is not returned.
    pub(crate) fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When the next [`Event::Tick`] is due; `None` if only other events can change anything.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let ages = self.processes().filter_map(|(_, process)| process.expires).map(|(at, _)| at);
        ages.chain(self.time_out()).min()
    }

    /// The next deadline that [`Event::Frozen`] would postpone. While there is one, the parent must look at the clock
    /// often enough to notice a freeze.
    pub(crate) fn time_out(&self) -> Option<Time> {
        let time_outs = self.processes().filter_map(|(_, process)| process.deadline(&self.policy)).map(|(at, _)| at);
        let starts = self.startable().chain(self.replaceable_at_once()).map(|(_, slot)| self.start_of(slot));
        let recycled = self.next_to_recycle().map(|(_, _, at)| at);
        let successor = self.successor.as_ref().and_then(|successor| successor.deadline(&self.policy));
        let last_resort = self.last_resort().map(|(_, at)| at);
        time_outs.chain(starts).chain(recycled).chain(last_resort).chain(successor).chain(self.lame_duck).min()
    }

    /// The number of workers wanted.
    pub(crate) fn wanted(&self) -> usize {
        self.wanted
    }

    /// The number of wanted slots with a ready worker.
    pub(crate) fn ready_workers(&self) -> usize {
        self.slots.range(..self.wanted).filter(|(_, slot)| slot.is_ready()).count()
    }

    /// All processes, by slot and then in the order of their start. A slot without a process is not listed: it waits
    /// for its turn or backs off.
    pub(crate) fn processes(&self) -> impl Iterator<Item = (SlotId, &Process)> {
        self.slots.iter().flat_map(|(&id, slot)| slot.processes.iter().map(move |process| (id, process)))
    }

    /// The process with this pid, if it belongs to the pool. Before its exit is handled, its stage says whether it ends
    /// on request.
    pub(crate) fn process(&self, pid: Pid) -> Option<(SlotId, &Process)> {
        self.processes().find(|(_, process)| process.pid == Some(pid))
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    /// Whether requests in progress are finished before the pool ends.
    pub(crate) fn is_draining(&self) -> bool {
        self.stopping.as_ref().is_some_and(|stopping| stopping.how == Stop::Drain)
    }

    /// Whether the pool is stopping, or will soon (lame duck).
    pub(crate) fn was_asked_to_stop(&self) -> bool {
        self.is_stopping() || self.lame_duck.is_some()
    }

    /// What a request to stop means at this time; `None` if it adds nothing to earlier requests.
    pub(crate) fn heeds(&self, how: Stop, now: Time) -> Option<Stop> {
        let asked = self.stopping.as_ref().map(|stopping| stopping.how).or(self.lame_duck.map(|_| Stop::Drain));
        let is_late = self.stop_asked.is_some_and(|first| now.since(first) >= self.policy.repeat);
        let how = if is_late { Stop::Force } else { how };
        (asked < Some(how)).then_some(how)
    }

    pub(crate) fn state(&self) -> PoolState {
        match () {
            () if self.is_stopping() => PoolState::Stopping,
            () if self.lame_duck.is_some() => PoolState::LameDuck,
            () if self.successor.is_some() => PoolState::Upgrading,
            () if self.is_restarting => PoolState::Restarting,
            () if self.all_ready => PoolState::Serving,
            () => PoolState::Starting,
        }
    }

    /// Whether a worker has ever been ready.
    pub(crate) fn was_ready(&self) -> bool {
        self.ever_ready
    }
}

impl Supervisor {
    fn process_mut(&mut self, pid: Pid) -> Option<&mut Process> {
        self.slots.values_mut().flat_map(|slot| &mut slot.processes).find(|process| process.pid == Some(pid))
    }

    fn remove(&mut self, id: SlotId, pid: Option<Pid>) {
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.processes.retain(|process| process.pid != pid);
        }
    }

    fn notice(&mut self, notice: Notice) {
        self.effects.push_back(Effect::Notice(notice));
    }
}

/// Tells a process to leave, unless it was already told as strongly. A process without a pid is told once it has one.
fn tell(process: &mut Process, how: Stop, now: Time, effects: &mut VecDeque<Effect>) {
    let Some(pid) = process.pid.filter(|_| process.stage.told() < Some(how)) else { return };
    let (stage, effect) = match how {
        Stop::Drain => (Stage::Draining, Effect::Drain { pid }),
        Stop::Quick => (Stage::Quitting, Effect::Quit { pid }),
        Stop::Force => (Stage::Killing(KillReason::Forced), Effect::Kill { pid, why: KillReason::Forced }),
    };
    process.enter(stage, now);
    effects.push_back(effect);
}
