//! PURE. Decides which worker processes should run: facts in, effects out.
//!
//! [`Supervisor::handle`] learns one [`Event`], then compares what is with what should be and queues the difference as
//! [`Effect`]s. It forks, waits and kills nothing, reads no clock and knows a pid only as a name: `parent.rs` performs
//! the effects, and their results are the next events.
//!
//! The life of a process, and what each event does to it (`·` nothing, `×` impossible: the event names a pid, and a
//! process that is still to be forked has none):
//!
//! ```text
//!              Spawned            Ready
//!   Spawning ───────────► Starting ────► Ready ─┐ drained by a rolling restart, scaling down, Stop
//!      │                     │  │          │    │
//!      │ SpawnFailed         │  └──────────┼────┴──► Draining ───────► Quitting
//!      │                     │             │            │ drain         │ quick
//!      ▼        boot time-out│     Stalled │            │ time-out      │ time-out
//!   (gone)                   └────────┬────┘            │               │
//!                                     ▼                 ▼               │
//!                                  Killing ◄────────────┴───────────────┘     Stop::Force kills from any stage
//!
//!   event \ stage   Spawning   Starting   Ready        Draining   Quitting   Killing
//!   Spawned         Starting   ·          ·            ·          ·          ·
//!   SpawnFailed     failure    ·          ·            ·          ·          ·
//!   Listening       ×          custody    custody      custody    custody    custody
//!   Ready           ×          Ready      ·            ·          ·          ·
//!   Stalled         ×          ·          failure, K   ·          ·          ·
//!   Exited          ×          failure    failure *    gone       gone       gone
//!   Tick, too late  ·          failure, K ·            K          K          ·
//!   Stop(Drain)     withdrawn† Draining   Draining     ·          ·          ·
//!   Stop(Quick)     withdrawn† Quitting   Quitting     Quitting   ·          ·
//!   Stop(Force)     withdrawn† K          K            K          K          ·
//! ```
//!
//! K: Killing. *: an exit with code 0 after a stable time is no failure: the worker recycled itself. †: if its effect
//! was not given out yet; else the process is told as soon as its pid is known.
//!
//! A failure is counted once, when it is noticed: at the exit, or when the kill is decided. So the exit of a worker
//! that was told to leave is never one, and a slot need not wait for a killed process that will not die.

#![forbid(unsafe_code)]

mod event;
mod policy;
mod slot;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use self::policy::SplitMix64;
use self::slot::Slot;
use crate::time::Time;

pub(crate) use self::event::{Effect, Event, Exit, Failure, KillReason, Notice, Outcome, Pid, SlotId, Stop};
pub(crate) use self::policy::Policy;
pub(crate) use self::slot::{Process, Stage};

/// What runs, what should run, and the effects that have not been given out yet.
#[derive(Debug)]
pub(crate) struct Supervisor {
    policy: Policy,
    /// The slots that should have a worker are those numbered below this.
    wanted: usize,
    /// Those, and the ones scaled away whose processes still live.
    slots: BTreeMap<SlotId, Slot>,
    restart: Option<Restart>,
    stopping: Option<Stopping>,
    /// Some worker has been ready: the program works, and the pool does not give up any more.
    ever_ready: bool,
    /// [`Notice::AllReady`] has been given.
    all_ready: bool,
    random: SplitMix64,
    effects: VecDeque<Effect>,
}

/// A rolling restart: every process that ran when it began is replaced, slot by slot.
#[derive(Debug)]
struct Restart {
    /// The slot whose turn it is; those below are done.
    slot: SlotId,
    /// Another was asked for since this one began. It cannot be merged into this one, whose first workers may have read
    /// what was changed in between.
    again: bool,
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
            restart: None,
            stopping: None,
            ever_ready: false,
            all_ready: false,
            random: SplitMix64::new(seed),
            effects: VecDeque::new(),
        };
        supervisor.reconcile(now);
        supervisor
    }

    /// Learns one fact, then reconciles what is with what should be.
    pub(crate) fn handle(&mut self, event: Event, now: Time) {
        match event {
            Event::Spawned { slot, pid } => self.spawned(slot, pid, now),
            Event::SpawnFailed { slot } => self.spawn_failed(slot, now),
            Event::Listening { pid } => self.listening(pid),
            Event::Ready { pid } => self.ready(pid, now),
            Event::Stalled { pid } => self.stalled(pid, now),
            Event::Exited { pid, exit } => self.exited(pid, exit, now),
            Event::Restart => self.restart(),
            Event::Scale { workers } => self.scale(workers.max(1)),
            Event::Stop(how) => self.stop(how, Outcome::Stopped),
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
        let time_outs = self.processes().filter_map(|(_, process)| process.deadline(&self.policy)).map(|(at, _)| at);
        let starts = self.startable().map(|(_, slot)| slot.start_at);
        time_outs.chain(starts).min()
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
}

/// What each event does to the process or the plan it is about.
impl Supervisor {
    fn spawned(&mut self, id: SlotId, pid: Pid, now: Time) {
        if self.process(pid).is_some() {
            return;
        }
        if let Some(process) = self.spawning(id) {
            process.pid = Some(pid);
            process.enter(Stage::Starting, now);
        }
    }

    fn spawn_failed(&mut self, id: SlotId, now: Time) {
        if let Some(&mut process) = self.spawning(id) {
            self.remove(id, None);
            self.fail(id, process, Failure::Spawn, now);
        }
    }

    /// The process of the slot whose [`Effect::Spawn`] has been given out and not been answered.
    fn spawning(&mut self, id: SlotId) -> Option<&mut Process> {
        if self.queued_spawn(id).is_some() {
            return None;
        }
        self.slots.get_mut(&id)?.processes.iter_mut().find(|process| process.stage == Stage::Spawning)
    }

    /// A fact about the slot, whatever has become of the process: custody outlives it.
    fn listening(&mut self, pid: Pid) {
        let id = self.process(pid).map(|(id, _)| id);
        if let Some(slot) = id.and_then(|id| self.slots.get_mut(&id)) {
            slot.listened = true;
        }
    }

    fn ready(&mut self, pid: Pid, now: Time) {
        if let Some(process) = self.process_mut(pid) {
            if process.stage == Stage::Starting {
                process.enter(Stage::Ready, now);
                self.ever_ready = true;
            }
        }
    }

    fn stalled(&mut self, pid: Pid, now: Time) {
        if self.process(pid).is_some_and(|(_, process)| process.stage == Stage::Ready) {
            self.kill(pid, KillReason::Stalled, now);
        }
    }

    fn exited(&mut self, pid: Pid, exit: Exit, now: Time) {
        let Some((id, &process)) = self.process(pid) else { return };
        self.remove(id, Some(pid));
        self.effects.retain(|effect| effect.pid() != Some(pid));
        if !process.stage.is_leaving() {
            self.fail(id, process, Failure::Exit(exit), now);
        }
    }

    fn restart(&mut self) {
        if self.is_stopping() {
            return;
        }
        match &mut self.restart {
            Some(restart) => {
                restart.again = true;
                self.notice(Notice::RestartQueued);
            }
            None => self.begin_restart(),
        }
    }

    fn scale(&mut self, workers: usize) {
        if workers != self.wanted && !self.is_stopping() {
            self.notice(Notice::Scaled { from: self.wanted, to: workers });
            self.wanted = workers;
        }
    }

    fn stop(&mut self, how: Stop, outcome: Outcome) {
        match &mut self.stopping {
            Some(stopping) => stopping.how = stopping.how.max(how),
            None => self.stopping = Some(Stopping { how, outcome, finished: false }),
        }
        self.restart = None;
    }

    /// Kills what has been in its stage for too long.
    fn expire(&mut self, now: Time) {
        let late = |process: &Process| match process.deadline(&self.policy) {
            Some((at, why)) if at <= now => process.pid.map(|pid| (pid, why)),
            _ => None,
        };
        let late: Vec<(Pid, KillReason)> = self.processes().filter_map(|(_, process)| late(process)).collect();
        for (pid, why) in late {
            self.kill(pid, why, now);
        }
    }

    /// Kills a process; a failure if it was not leaving anyway.
    fn kill(&mut self, pid: Pid, why: KillReason, now: Time) {
        let Some((id, &process)) = self.process(pid) else { return };
        if let Some(process) = self.process_mut(pid) {
            process.enter(Stage::Killing(why), now);
            self.effects.push_back(Effect::Kill { pid, why });
        }
        if !process.stage.is_leaving() {
            self.fail(id, process, Failure::Kill(why), now);
        }
    }

    /// A process of the slot ended, or had to be ended, and nobody had asked it to. `process` is as it was before.
    fn fail(&mut self, id: SlotId, process: Process, reason: Failure, now: Time) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        if self.stopping.is_some() || id >= self.wanted {
            return;
        }
        let was_stable = process.stage == Stage::Ready && now.since(process.since) >= self.policy.stable;
        if was_stable {
            slot.failures = 0;
            slot.start_at = now;
        }
        if was_stable && reason == Failure::Exit(Exit::Code(0)) {
            return;
        }
        // A replacement is not tried again, so its failure delays nothing while its predecessor serves.
        if !slot.is_ready() {
            // A fork that failed is not repeated at once: nothing has changed.
            slot.failures = if reason == Failure::Spawn { slot.failures.max(1) + 1 } else { slot.failures + 1 };
            let (failures, delay) = (slot.failures, self.policy.backoff(slot.failures, self.random.next()));
            slot.start_at = now + delay;
            if !delay.is_zero() {
                self.notice(Notice::BackingOff { slot: id, delay, failures });
            }
        }
        // The turn passes on when the slot's fresh worker is ready: one that fails in its turn never was.
        let in_turn = self.restart.as_ref().is_some_and(|restart| restart.slot == id);
        if in_turn && !process.stale {
            self.end_restart(Notice::RestartAborted { slot: id, reason });
        }
        if !self.ever_ready && self.slots.range(..self.wanted).all(|(_, slot)| slot.failures > 0) {
            self.stop(Stop::Quick, Outcome::BootFailed { last: reason });
        }
    }
}

/// From what is to what should be. Asked after every event; says nothing where both agree.
impl Supervisor {
    fn reconcile(&mut self, now: Time) {
        if self.stopping.is_some() {
            return self.wind_down(now);
        }
        self.shed(now);
        self.fill(now);
        self.roll(now);
        if !self.all_ready && self.ready_workers() == self.wanted {
            self.all_ready = true;
            self.notice(Notice::AllReady { workers: self.wanted });
        }
    }

    /// Has every process leave, as firmly as was asked last.
    fn wind_down(&mut self, now: Time) {
        let Some(Stopping { how, outcome, finished: false }) = self.stopping else { return };
        let slots: Vec<SlotId> = self.slots.keys().copied().collect();
        for id in slots {
            self.dismiss(id, how, now);
        }
        if self.processes().next().is_none() {
            self.stopping = Some(Stopping { how, outcome, finished: true });
            self.effects.push_back(Effect::Finish(outcome));
        }
    }

    /// Drains the slots that were scaled away, and retires them when they are empty.
    fn shed(&mut self, now: Time) {
        let surplus: Vec<SlotId> = self.slots.range(self.wanted..).map(|(&id, _)| id).collect();
        for id in surplus {
            self.dismiss(id, Stop::Drain, now);
            if self.slots.get(&id).is_some_and(|slot| slot.processes.is_empty()) {
                self.slots.remove(&id);
                self.effects.push_back(Effect::Retire { slot: id });
            }
        }
    }

    /// Starts a worker in every vacant slot whose time has come.
    fn fill(&mut self, now: Time) {
        for id in 0..self.wanted {
            self.slots.entry(id).or_insert_with(|| Slot::new(now));
        }
        let due: Vec<SlotId> =
            self.startable().filter(|(_, slot)| slot.start_at <= now && slot.listened).map(|(id, _)| id).collect();
        for id in due {
            self.spawn(id, now);
        }
        // First starts take turns; one that failed lets the others go first.
        let first = self.startable().filter(|(_, slot)| slot.start_at <= now && !slot.listened);
        if let Some((id, _)) = first.min_by_key(|(id, slot)| (slot.failures, *id)) {
            self.spawn(id, now);
        }
    }

    /// The slots that may be started as soon as their time has come: wanted, vacant, and not waiting for their turn.
    fn startable(&self) -> impl Iterator<Item = (SlotId, &Slot)> {
        let wanted = if self.is_stopping() { 0 } else { self.wanted };
        let turn_is_free = !self.slots.values().any(Slot::holds_turn);
        let slots = self.slots.range(..wanted).map(|(&id, slot)| (id, slot));
        slots.filter(move |(_, slot)| slot.is_vacant() && (slot.listened || turn_is_free))
    }

    /// Moves the rolling restart on, as far as it goes without waiting.
    fn roll(&mut self, now: Time) {
        while let Some(restart) = &mut self.restart {
            let Some(slot) = self.slots.get_mut(&restart.slot).filter(|_| restart.slot < self.wanted) else {
                self.end_restart(Notice::RestartDone);
                continue;
            };
            if slot.staying().any(|process| !process.stale && process.stage == Stage::Ready) {
                for process in slot.processes.iter_mut().filter(|process| process.stale) {
                    tell(process, Stop::Drain, now, &mut self.effects);
                }
                restart.slot += 1;
                continue;
            }
            // A vacant slot's next start is its replacement; a worker that is starting is awaited, whichever it is.
            if slot.is_ready() && slot.processes.len() < Slot::MOST {
                let id = restart.slot;
                self.spawn(id, now);
            }
            return;
        }
    }

    fn begin_restart(&mut self) {
        self.notice(Notice::RestartBegun);
        for process in self.slots.values_mut().flat_map(|slot| &mut slot.processes) {
            process.stale = true;
        }
        self.restart = Some(Restart { slot: 0, again: false });
    }

    fn end_restart(&mut self, notice: Notice) {
        self.notice(notice);
        if self.restart.take().is_some_and(|restart| restart.again) {
            self.begin_restart();
        }
    }

    fn spawn(&mut self, id: SlotId, now: Time) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        assert!(slot.processes.len() < Slot::MOST, "slot {id} is full: {slot:?}");
        slot.generation += 1;
        let generation = slot.generation;
        slot.processes.push(Process { pid: None, generation, stage: Stage::Spawning, since: now, stale: false });
        self.effects.push_back(Effect::Spawn { slot: id, generation });
    }

    /// Tells every process of the slot to leave, and takes back a start that was not given out yet.
    fn dismiss(&mut self, id: SlotId, how: Stop, now: Time) {
        if let Some(index) = self.queued_spawn(id) {
            self.effects.remove(index);
            self.remove(id, None);
        }
        for process in self.slots.get_mut(&id).into_iter().flat_map(|slot| &mut slot.processes) {
            tell(process, how, now, &mut self.effects);
        }
    }

    fn queued_spawn(&self, id: SlotId) -> Option<usize> {
        self.effects.iter().position(|effect| matches!(effect, Effect::Spawn { slot, .. } if *slot == id))
    }

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
