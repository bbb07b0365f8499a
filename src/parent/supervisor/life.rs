//! PURE. The effect of each event on the process or the pool that it concerns.

use std::time::Duration;

use crate::parent::supervisor::event::{Effect, Failure, KillReason, Notice, Outcome, Pid, Recycle, SlotId, Stop};
use crate::parent::supervisor::failure::Failed;
use crate::parent::supervisor::gone::Departure;
use crate::parent::supervisor::policy::Policy;
use crate::parent::supervisor::slot::{Process, Stage};
use crate::parent::supervisor::{tell, Stopping, Supervisor};
use crate::time::Time;

impl Supervisor {
    pub(super) fn spawned(&mut self, id: SlotId, pid: Pid, now: Time) {
        if self.process(pid).is_some() {
            return;
        }
        if let Some(process) = self.spawning(id) {
            process.pid = Some(pid);
            process.enter(Stage::Starting, now);
        }
    }

    pub(super) fn spawn_failed(&mut self, id: SlotId, now: Time) {
        if let Some(&mut process) = self.spawning(id) {
            self.remove(id, None);
            self.fail(id, process, Failed::early(Failure::Spawn), now);
        }
    }

    /// The process of the slot whose [`Effect::Spawn`] was returned and has no result yet.
    pub(super) fn spawning(&mut self, id: SlotId) -> Option<&mut Process> {
        if self.queued_spawn(id).is_some() {
            return None;
        }
        self.slots.get_mut(&id)?.processes.iter_mut().find(|process| process.stage == Stage::Spawning)
    }

    /// Marks the slot, whatever becomes of the process, since the parent keeps the sockets.
    pub(super) fn listening(&mut self, pid: Pid) {
        let id = self.process(pid).map(|(id, _)| id);
        if let Some(slot) = id.and_then(|id| self.slots.get_mut(&id)) {
            slot.listened = true;
        }
    }

    pub(super) fn ready(&mut self, pid: Pid, now: Time) {
        if let Some(process) = self.process_mut(pid) {
            if process.stage == Stage::Starting {
                process.enter(Stage::Ready, now);
                self.ever_ready = true;
                let expires = self.policy.expires(now, self.random.next());
                if let Some(process) = self.process_mut(pid) {
                    process.expires = expires.map(|at| (at, Recycle::Age));
                }
            }
        }
    }

    pub(super) fn stalled(&mut self, pid: Pid, now: Time) {
        let Some((id, &process)) = self.process(pid).filter(|(_, process)| process.stage == Stage::Ready) else {
            return;
        };
        if !self.policy.abort_stalled {
            return self.kill(pid, KillReason::Stalled, now);
        }
        if let Some(process) = self.process_mut(pid) {
            process.enter(Stage::Aborting, now);
            self.effects.push_back(Effect::Abort { pid });
        }
        self.fail(id, process, Failed { has_served: true, ..Failed::early(Failure::Kill(KillReason::Stalled)) }, now);
    }

    pub(super) fn misbehaved(&mut self, pid: Pid, now: Time) {
        if self.process(pid).is_some_and(|(_, process)| !matches!(process.stage, Stage::Killing(_))) {
            self.kill(pid, KillReason::Misbehaved, now);
        }
    }

    pub(super) fn suspend(&mut self, pid: Pid, is_suspended: bool) {
        if let Some(process) = self.process_mut(pid) {
            process.is_suspended = is_suspended;
        }
    }

    pub(super) fn recycle(&mut self, pid: Pid, why: Recycle) {
        if let Some(process) = self.process_mut(pid).filter(|process| process.stage == Stage::Ready) {
            process.due = Some(why);
        }
    }

    pub(super) fn disconnected(&mut self, pid: Pid, now: Time) {
        let processes = self.slots.values_mut().flat_map(|slot| &mut slot.processes);
        if let Some(process) = processes.into_iter().find(|process| process.pid == Some(pid)) {
            tell(process, Stop::Drain, now, &mut self.effects);
        }
    }

    /// The worker's wish is granted at once, but its slot may have to wait for the replacement.
    pub(super) fn leaves(&mut self, pid: Pid, now: Time) {
        let Some((id, process)) = self.process(pid) else { return };
        if process.stage.is_leaving() {
            return;
        }
        let rate = self.policy.own_words();
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.start_at = slot.start_at.max(slot.own_word.next(rate));
            slot.own_word.count(rate, now);
        }
        self.disconnected(pid, now);
    }

    pub(super) fn exited(&mut self, pid: Pid, failed: Failed, now: Time) {
        let Some((id, &process)) = self.process(pid) else { return };
        self.remove(id, Some(pid));
        self.effects.retain(|effect| effect.pid() != Some(pid));
        if !Departure::of(process.stage).was_told() {
            self.fail(id, process, failed, now);
        }
    }

    /// Begins a restart. If one is in progress, it now also replaces the workers that it has started, since they may
    /// have read what has changed since.
    pub(super) fn restart(&mut self, now: Time) {
        if self.is_stopping() || self.is_upgrading() {
            return;
        }
        self.notice(if self.is_restarting { Notice::RestartExtended } else { Notice::RestartBegun });
        self.is_restarting = true;
        self.refill(now);
        for process in self.slots.values_mut().flat_map(|slot| &mut slot.processes) {
            process.stale |= process.stage != Stage::Spawning;
        }
    }

    /// Sets new time limits.
    pub(crate) fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    pub(super) fn end_restart(&mut self, notice: Notice) {
        self.notice(notice);
        self.is_restarting = false;
        for process in self.slots.values_mut().flat_map(|slot| &mut slot.processes) {
            process.stale = false;
        }
    }

    pub(super) fn scale(&mut self, workers: usize, now: Time) {
        if self.is_stopping() || self.is_upgrading() {
            return;
        }
        self.refill(now);
        self.is_scaling = true;
        if workers == self.wanted {
            return;
        }
        self.notice(Notice::Scaled { from: self.wanted, to: workers });
        self.wanted = workers;
    }

    pub(super) fn asked_to_stop(&mut self, how: Stop, now: Time) {
        // Drops a pending report that all workers are ready. After a request to stop it would be too late, and after an
        // upgrade it would make the old pool stop.
        self.effects.retain(|effect| !matches!(effect, Effect::Notice(Notice::AllReady { .. })));
        let heeded = self.heeds(how, now);
        self.stop_asked.get_or_insert(now);
        let Some(how) = heeded else { return };
        let delay = self.policy.lame_duck;
        if how == Stop::Drain && !delay.is_zero() {
            self.lame_duck = Some(now + delay);
            return self.notice(Notice::LameDuck { delay });
        }
        self.stop(how, Outcome::Stopped);
    }

    pub(super) fn stop(&mut self, how: Stop, outcome: Outcome) {
        self.lame_duck = None;
        self.is_restarting = false;
        match &mut self.stopping {
            Some(stopping) => stopping.how = stopping.how.max(how),
            None => {
                self.stopping = Some(Stopping { how, outcome, finished: false });
                self.effects.push_back(Effect::LetGo);
            }
        }
    }

    /// Postpones everything that depends on time by this span. What is overdue stays overdue.
    pub(super) fn frozen(&mut self, span: Duration) {
        for slot in self.slots.values_mut() {
            slot.start_at = slot.start_at + span;
            slot.started = slot.started.map(|at| at + span);
            slot.respawns.frozen(span);
            slot.own_word.frozen(span);
            slot.processes.iter_mut().for_each(|process| process.since = process.since + span);
        }
        self.last_spawn = self.last_spawn + span;
        self.respawns.frozen(span);
        self.retried = self.retried.map(|at| at + span);
        self.failed = self.failed.map(|at| at + span);
        self.stop_asked = self.stop_asked.map(|at| at + span);
        self.lame_duck = self.lame_duck.map(|at| at + span);
        if let Some(successor) = &mut self.successor {
            successor.frozen(span);
        }
    }

    /// Applies the timeouts: kills processes that have been in their stage for too long.
    pub(super) fn expire(&mut self, now: Time) {
        if self.lame_duck.is_some_and(|at| at <= now) {
            self.stop(Stop::Drain, Outcome::Stopped);
        }
        self.expire_successor(now);
        for process in self.slots.values_mut().flat_map(|slot| &mut slot.processes) {
            if let Some((_, why)) = process.expires.take_if(|(at, _)| *at <= now) {
                process.due = Some(why);
            }
        }
        let late = |process: &Process| match process.deadline(&self.policy) {
            Some((at, why)) if at <= now => process.pid.map(|pid| (pid, why)),
            _ => None,
        };
        let late: Vec<(Pid, KillReason)> = self.processes().filter_map(|(_, process)| late(process)).collect();
        for (pid, why) in late {
            self.kill(pid, why, now);
        }
    }

    /// Kills a process. Counts as a failure if the process was not about to leave anyway.
    pub(super) fn kill(&mut self, pid: Pid, why: KillReason, now: Time) {
        let Some((id, &process)) = self.process(pid) else { return };
        if let Some(process) = self.process_mut(pid) {
            process.enter(Stage::Killing(why), now);
            self.effects.push_back(Effect::Kill { pid, why });
        }
        if !process.stage.is_leaving() {
            let has_served = why == KillReason::Stalled;
            self.fail(id, process, Failed { has_served, ..Failed::early(Failure::Kill(why)) }, now);
        }
    }
}
