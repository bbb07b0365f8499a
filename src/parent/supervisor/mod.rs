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
//! second. *replaced*: another process starts in its slot while it stays. *late*: its stage has lasted for longer than
//! its timeout, or a signal has stopped it for a while before it was ready.
//!
//! A failure is counted once, when it is noticed: at the exit, or when the kill is decided. So the exit of a worker
//! that was told to leave is never a failure, and a slot need not wait for a killed process that does not die. The
//! application may decide what follows an exit that nobody asked for ([`Respawn`]); then it does not count as a
//! failure.

#![forbid(unsafe_code)]

mod effects;
mod event;
mod failure;
mod gone;
mod life;
mod policy;
mod rollout;
mod shutdown;
mod slot;
mod slots;
mod starts;
mod upgrade;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use self::effects::Effects;
use self::failure::Failed;
use self::life::Life;
use self::rollout::Rollout;
use self::shutdown::Shutdown;
use self::starts::Starts;
use self::upgrade::Upgrade;
use crate::time::Time;

pub(crate) use self::event::{
    Effect, Event, Exit, Failure, KillReason, Notice, Outcome, Pid, Recycle, SlotId, Stop, UpgradeFailure,
};
pub use self::event::{PoolState, Respawn};
pub(crate) use self::gone::{Departure, Gone};
pub(crate) use self::policy::{jittered, Policy};
pub(crate) use self::slot::{Process, Stage};
pub(crate) use self::slots::Slots;

/// The actual state, the wanted state, and the effects that were not returned yet.
#[derive(Debug)]
pub(crate) struct Supervisor {
    policy: Policy,
    slots: Slots,
    starts: Starts,
    rollout: Rollout,
    upgrade: Upgrade,
    shutdown: Shutdown,
    /// Whether [`Notice::AllReady`] was returned.
    all_ready: bool,
    effects: Effects,
}

/// For the parent.
impl Supervisor {
    /// The supervisor of a pool that wants this number of workers, at least one. Its first effect is pending.
    pub(crate) fn new(policy: Policy, workers: usize, seed: u64, now: Time) -> Supervisor {
        let mut supervisor = Supervisor {
            policy,
            slots: Slots::new(workers.max(1)),
            starts: Starts::new(seed, now),
            rollout: Rollout::default(),
            upgrade: Upgrade::default(),
            shutdown: Shutdown::default(),
            all_ready: false,
            effects: Effects::default(),
        };
        supervisor.reconcile(now);
        supervisor
    }

    /// Sets new limits.
    pub(crate) fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// Handles one event, then compares the actual state with the wanted one.
    pub(crate) fn handle(&mut self, event: Event, now: Time) {
        self.rollout.note_scaled(&self.policy, &self.slots, now);
        if let Some(failed) = self.learn(event, now) {
            self.fail(failed, now);
        }
        self.reconcile(now);
    }

    /// The next effect, or `None` if there is none. Events may be handled between effects: an effect that an event
    /// makes obsolete is not returned.
    pub(crate) fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop()
    }

    /// When the next [`Event::Tick`] is due; `None` if only other events can change anything.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let ages = self.slots.processes().filter_map(|(_, process)| process.expires).map(|(at, _)| at);
        ages.chain(self.time_out()).min()
    }

    /// The next deadline that [`Event::Frozen`] would postpone. While there is one, the parent must look at the clock
    /// often enough to notice a freeze.
    pub(crate) fn time_out(&self) -> Option<Time> {
        let (policy, timeouts) = (&self.policy, &self.policy.timeouts);
        let processes = self.slots.processes().filter_map(|(_, process)| process.deadline(timeouts)).map(|(at, _)| at);
        let next = processes.chain(self.upgrade.deadline(timeouts)).chain(self.shutdown.lame_duck());
        if self.shutdown.is_stopping() {
            return next.min();
        }
        let suspended = self.slots.suspended().map(|(_, slot)| self.starts.start_of(policy, &self.slots, slot));
        let next = next.chain(self.starts.next(policy, &self.slots)).chain(suspended);
        next.chain(self.next_to_recycle().map(|(_, _, at)| at)).min()
    }

    /// The slots and their processes.
    pub(crate) fn slots(&self) -> &Slots {
        &self.slots
    }

    /// Whether requests in progress are finished before the pool ends.
    pub(crate) fn is_draining(&self) -> bool {
        self.shutdown.is_draining()
    }

    /// Whether the new binary may still become ready or exit.
    pub(crate) fn awaits_successor(&self) -> bool {
        self.upgrade.is_in_progress()
    }

    /// What a request to stop means at this time; `None` if it adds nothing to earlier requests.
    pub(crate) fn escalation(&self, how: Stop, now: Time) -> Option<Stop> {
        self.shutdown.escalation(&self.policy.shutdown, how, now)
    }

    /// Whether a worker has ever been ready.
    pub(crate) fn was_ready(&self) -> bool {
        self.starts.ever_ready
    }

    pub(crate) fn state(&self) -> PoolState {
        if self.shutdown.is_stopping() {
            PoolState::Stopping
        } else if self.shutdown.was_requested() {
            PoolState::LameDuck
        } else if self.upgrade.is_in_progress() {
            PoolState::Upgrading
        } else if self.rollout.is_restarting {
            PoolState::Restarting
        } else if self.all_ready {
            PoolState::Serving
        } else {
            PoolState::Starting
        }
    }
}

/// Events.
impl Supervisor {
    /// Applies the event to the part that it concerns. Returns the failure of a worker, if it is one.
    fn learn(&mut self, event: Event, now: Time) -> Option<Failed> {
        let mut life = Life { slots: &mut self.slots, effects: &mut self.effects, now };
        match event {
            Event::Spawned { slot, pid } => life.spawned(slot, pid),
            Event::SpawnFailed { slot } => return life.spawn_failed(slot),
            Event::Listening { pid } => life.listening(pid),
            Event::Ready { pid } => {
                let process = life.ready(pid)?;
                process.expires = self.starts.ready(&self.policy, now).map(|at| (at, Recycle::Age));
            }
            Event::Stalled { pid } => return life.stalled(pid, self.policy.abort_stalled),
            Event::Misbehaved { pid } => return life.misbehaved(pid),
            Event::Suspended { pid } => life.suspend(pid, true),
            Event::Resumed { pid } => life.suspend(pid, false),
            Event::Recycle { pid, why } => life.recycle(pid, why),
            Event::Disconnected { pid } => life.drain(pid),
            Event::Leaves { pid } => life.leaves(pid, self.policy.rates.of_requests()),
            Event::Exited { pid, exit, has_served, respawn } => return life.exited(pid, exit, has_served, respawn),
            Event::Restart if self.accepts_changes() => {
                self.rollout.restart(&mut self.slots, &mut self.effects, now);
            }
            Event::Scale { workers } if self.accepts_changes() => {
                self.rollout.scale(workers.max(1), &mut self.slots, &mut self.effects, now);
            }
            Event::Upgrade if !self.shutdown.was_requested() && self.accepts_changes() => {
                self.upgrade.begin(&mut self.effects, now);
            }
            Event::Restart | Event::Scale { .. } | Event::Upgrade => {}
            Event::SuccessorSpawned { pid } => self.upgrade.spawned(pid, now),
            Event::SuccessorReady => {
                if self.upgrade.ready(&mut self.effects) {
                    self.stop(Stop::Drain, Outcome::Replaced);
                }
            }
            Event::SuccessorGone { exit } => self.upgrade.gone(exit, &mut self.effects),
            Event::Stop(how) => self.request_stop(how, now),
            Event::Frozen(span) => {
                self.slots.all_mut().for_each(|slot| slot.frozen(span));
                self.starts.frozen(span);
                self.shutdown.frozen(span);
                self.upgrade.frozen(span);
            }
            Event::Tick => self.expire(now),
        }
        None
    }

    /// Whether workers may be replaced or added on request: not while the pool stops, nor during an upgrade.
    fn accepts_changes(&mut self) -> bool {
        !self.shutdown.is_stopping() && !self.upgrade.refuses(&mut self.effects)
    }

    fn request_stop(&mut self, how: Stop, now: Time) {
        self.shutdown.request(&self.policy.shutdown, how, &mut self.effects, now);
        self.rollout.is_restarting &= !self.shutdown.is_stopping();
    }

    fn stop(&mut self, how: Stop, outcome: Outcome) {
        self.shutdown.stop(how, outcome, &mut self.effects);
        self.rollout.is_restarting = false;
    }

    /// Applies the timeouts: kills processes that have been in their stage for too long.
    fn expire(&mut self, now: Time) {
        if self.shutdown.lame_duck().is_some_and(|at| at <= now) {
            self.stop(Stop::Drain, Outcome::Stopped);
        }
        self.upgrade.expire(&self.policy.timeouts, &mut self.effects, now);
        for process in self.slots.processes_mut() {
            if let Some((_, why)) = process.expires.take_if(|(at, _)| *at <= now) {
                process.due = Some(why);
            }
        }
        let late = |process: &Process| match process.deadline(&self.policy.timeouts) {
            Some((at, why)) if at <= now => process.pid.map(|pid| (pid, why)),
            _ => None,
        };
        let late: Vec<(Pid, KillReason)> = self.slots.processes().filter_map(|(_, process)| late(process)).collect();
        for (pid, why) in late {
            let mut life = Life { slots: &mut self.slots, effects: &mut self.effects, now };
            if let Some(failed) = life.kill(pid, why) {
                self.fail(failed, now);
            }
        }
    }
}

/// What follows from the state, after every event.
impl Supervisor {
    /// Queues effects for the difference between the actual state and the wanted one. Does nothing if they agree.
    fn reconcile(&mut self, now: Time) {
        if self.shutdown.is_stopping() {
            return self.wind_down(now);
        }
        if self.shutdown.was_requested() {
            // A request to stop before the new binary serves also ends the new binary, which would otherwise go on for
            // ever.
            self.upgrade.stop(Stop::Drain, &mut self.effects, now);
        }
        // While a new binary is starting, the pool does not end.
        if !self.upgrade.is_in_progress() && self.slots.all_wanted(|_| false) {
            self.effects.notice(Notice::AllLeftEmpty);
            self.stop(Stop::Drain, Outcome::Stopped);
            return self.wind_down(now);
        }
        self.remove_surplus(now);
        self.slots.add_wanted(now);
        let (policy, slots, effects) = (&self.policy, &mut self.slots, &mut self.effects);
        self.starts.start_vacant(policy, slots, effects, now);
        rollout::stop_replaced(slots, effects, now);
        rollout::replace_suspended(policy, slots, &mut self.starts, effects, now);
        if !self.upgrade.is_in_progress() {
            self.rollout.replace(policy, slots, &mut self.starts, effects, now);
        }
        if !self.all_ready && slots.ready_workers() > 0 && slots.all_wanted(|slot| slot.is_ready()) {
            self.all_ready = true;
            effects.notice(Notice::AllReady { workers: slots.wanted() });
        }
    }

    /// Tells every process to leave, as strongly as last requested.
    fn wind_down(&mut self, now: Time) {
        let Some(how) = self.shutdown.in_progress() else { return };
        for id in self.slots.ids_from(0) {
            self.slots.stop(id, how, &mut self.effects, now);
        }
        if self.shutdown.takes_resumption() {
            let suspended = self.slots.processes().filter(|(_, process)| process.is_suspended);
            let pids = suspended.filter_map(|(_, process)| process.pid);
            pids.for_each(|pid| self.effects.push(Effect::Resume { pid }));
        }
        self.upgrade.stop(how, &mut self.effects, now);
        if self.slots.processes().next().is_none() && !self.upgrade.is_in_progress() {
            self.shutdown.finish(&mut self.effects);
        }
    }

    /// Drains the slots removed by scaling, and retires them once they are empty.
    fn remove_surplus(&mut self, now: Time) {
        for id in self.slots.ids_from(self.slots.wanted()) {
            self.slots.stop(id, Stop::Drain, &mut self.effects, now);
            if self.slots.get(id).is_some_and(|slot| slot.processes.is_empty()) {
                self.slots.retire(id);
                self.effects.push(Effect::Retire { slot: id });
            }
        }
    }

    fn next_to_recycle(&self) -> Option<(SlotId, Recycle, Time)> {
        if self.upgrade.is_in_progress() {
            return None;
        }
        self.rollout.next_to_recycle(&self.policy, &self.slots, &self.starts)
    }
}
