//! PURE. Decides which worker processes should run: facts in, effects out.
//!
//! [`Supervisor::handle`] learns one [`Event`], then compares what is with what should be and queues the difference as
//! [`Effect`]s. It forks, waits and kills nothing, reads no clock and knows a pid only as a name: `parent.rs` performs
//! the effects, and their results are the next events.
//!
//! The life of a process, and what each event does to it (`·` nothing), which `tests/` walks cell by cell:
//!
//! ```text
//!              Spawned            Ready
//!   Spawning ───────────► Starting ────► Ready ─┐ its replacement is ready, scaling down, Stop
//!      │                     │  │          │    │
//!      │ SpawnFailed         │  └──────────┼────┴──► Draining ───────► Quitting
//!      │                     │             │            │ drain         │ quick
//!      ▼        boot time-out│     Stalled │            │ time-out      │ time-out
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
//! A process is *queued* while the effect that forks it has not been given out: then it can be withdrawn. One that is being
//! forked has no pid, and what is asked of it it is told as soon as it has one. *fail*: its slot has failed once more
//! without having served; *served*: it says that it has accepted a connection; *stable*: it was ready for a second.
//! *replaced*: another process starts in its slot while it stays.
//!
//! A failure is counted once, when it is noticed: at the exit, or when the kill is decided. So the exit of a worker
//! that was told to leave is never one, and a slot need not wait for a killed process that will not die. What follows
//! an exit that nobody has asked for, the application may decide ([`Respawn`]): then it is not counted.

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
use std::time::Duration;

use self::failure::Failed;
use self::policy::SplitMix64;
use self::slot::{Hold, Slot};
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

/// What runs, what should run, and the effects that have not been given out yet.
#[derive(Debug)]
pub(crate) struct Supervisor {
    policy: Policy,
    /// The slots that should have a worker are those numbered below this.
    wanted: usize,
    /// Those, and the ones scaled away whose processes still live.
    slots: BTreeMap<SlotId, Slot>,
    /// Somebody has asked for this many workers, and not all have come to serve yet.
    is_scaling: bool,
    /// A rolling restart is under way: every stale process is to be replaced.
    is_restarting: bool,
    /// A new binary is taking over.
    successor: Option<Successor>,
    /// When to begin to drain.
    lame_duck: Option<Time>,
    stopping: Option<Stopping>,
    /// When somebody asked first that the pool stops.
    stop_asked: Option<Time>,
    /// Some worker has been ready: the program works, and the pool does not give up any more.
    ever_ready: bool,
    /// [`Notice::AllReady`] has been given.
    all_ready: bool,
    /// When the latest fork was asked for.
    last_spawn: Time,
    /// Of the starts that no operator has asked for.
    respawns: Pace,
    /// When a slot whose workers do not come to serve was tried last; None once one that was tried since serves.
    retried: Option<Time>,
    /// When a worker that had never served failed last.
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
    /// A pool that wants this many workers, and at least one. Its first effect is there to be asked for.
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

    /// Learns one fact, then reconciles what is with what should be.
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

    /// The next thing to do, or None when all is said. Events may be told in between: an effect they overtake is not
    /// given out any more.
    pub(crate) fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When the next [`Event::Tick`] is due; None if only another event can change anything.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let ages = self.processes().filter_map(|(_, process)| process.expires).map(|(at, _)| at);
        ages.chain(self.time_out()).min()
    }

    /// The same for what [`Event::Frozen`] puts off: while there is something, the parent is to look at the clock often
    /// enough to see that.
    pub(crate) fn time_out(&self) -> Option<Time> {
        let time_outs = self.processes().filter_map(|(_, process)| process.deadline(&self.policy)).map(|(at, _)| at);
        let starts = self.startable().chain(self.replaceable_at_once()).map(|(_, slot)| self.start_of(slot));
        let recycled = self.next_to_recycle().map(|(_, _, at)| at);
        let successor = self.successor.as_ref().and_then(|successor| successor.deadline(&self.policy));
        let last_resort = self.last_resort().map(|(_, at)| at);
        time_outs.chain(starts).chain(recycled).chain(last_resort).chain(successor).chain(self.lame_duck).min()
    }

    /// How many workers there should be.
    pub(crate) fn wanted(&self) -> usize {
        self.wanted
    }

    /// How many of the wanted slots have a ready worker.
    pub(crate) fn ready_workers(&self) -> usize {
        self.slots.range(..self.wanted).filter(|(_, slot)| slot.is_ready()).count()
    }

    /// Every process, by slot and then in the order of their start. A slot that is not named has none: it waits for its
    /// turn or backs off.
    pub(crate) fn processes(&self) -> impl Iterator<Item = (SlotId, &Process)> {
        self.slots.iter().flat_map(|(&id, slot)| slot.processes.iter().map(move |process| (id, process)))
    }

    /// The process of that name, if it is one of ours: asked before its exit is told, its stage says whether it left on
    /// request.
    pub(crate) fn process(&self, pid: Pid) -> Option<(SlotId, &Process)> {
        self.processes().find(|(_, process)| process.pid == Some(pid))
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    /// Whether what has begun is to be finished before the pool ends.
    pub(crate) fn is_draining(&self) -> bool {
        self.stopping.as_ref().is_some_and(|stopping| stopping.how == Stop::Drain)
    }

    /// Whether the pool stops or, as a lame duck, is about to.
    pub(crate) fn was_asked_to_stop(&self) -> bool {
        self.is_stopping() || self.lame_duck.is_some()
    }

    /// What a request to stop comes to if it is made now: None if all of it was asked before.
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

/// Tells a process to leave, unless it was told as firmly before. One without a pid is told once it has one.
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
