//! PURE. The consequences of a worker's failure: when its slot is started again, and whether a restart or the pool
//! ends.

use crate::parent::supervisor::event::{Effect, Failure, Notice, Outcome, Respawn, SlotId, Stop};
use crate::parent::supervisor::slot::{Hold, Process, Stage};
use crate::parent::supervisor::Supervisor;
use crate::time::Time;

/// How a process has failed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failed {
    pub(super) reason: Failure,
    /// Whether it has accepted a connection, by its own report. A false report gains no more than the limited rate of
    /// restarts.
    pub(super) has_served: bool,
    /// What the application wants for the slot.
    pub(super) respawn: Respawn,
}

impl Failed {
    /// A failure that the pool detects, of a worker that has not served yet.
    pub(super) fn early(reason: Failure) -> Failed {
        Failed { reason, has_served: false, respawn: Respawn::Backoff }
    }
}

impl Supervisor {
    /// A process of the slot ended, or had to be killed, without having been asked to. `process` is its state before.
    pub(super) fn fail(&mut self, id: SlotId, process: Process, failed: Failed, now: Time) {
        let Failed { reason, has_served, respawn } = failed;
        if self.stopping.is_some() || id >= self.wanted {
            return;
        }
        if respawn == Respawn::Stop && !self.was_asked_to_stop() {
            self.asked_to_stop(Stop::Drain, now);
        }
        let Some(slot) = self.slots.get_mut(&id).filter(|_| self.stopping.is_none()) else { return };
        let was_stable = now.since(process.since) >= self.policy.stable;
        let has_served = process.stage == Stage::Ready && (has_served || was_stable);
        if has_served {
            slot.failures = 0;
            slot.start_at = now;
        }
        // The failure of a replacement delays nothing while the old worker serves.
        if !slot.is_ready() {
            if !has_served && std::mem::take(&mut self.is_scaling) {
                self.effects.push_back(Effect::Notice(Notice::ScalingFailed { slot: id, wanted: self.wanted, reason }));
            }
            match respawn {
                Respawn::Never if slot.staying().next().is_none() => {
                    slot.hold = Hold::ForGood;
                    self.notice(Notice::LeftEmpty { slot: id });
                }
                Respawn::Now => slot.start_as_asked(now),
                Respawn::After(delay) => slot.start_as_asked(now + delay),
                // A client that can crash a worker by a request must not be able to keep the slot empty.
                _ if has_served => slot.hold = Hold::Backoff,
                Respawn::Backoff | Respawn::Never | Respawn::Stop => self.back_off(id, reason, now),
            }
        }
        if self.stopping.is_some() {
            return;
        }
        if matches!(process.stage, Stage::Spawning | Stage::Starting) && !process.stale {
            self.replacement_failed(id, reason, now);
        }
        if !self.ever_ready && self.slots.range(..self.wanted).all(|(_, slot)| slot.failures > 0) {
            self.stop(Stop::Quick, Outcome::BootFailed { last: reason });
        }
    }

    /// Makes the slot wait, longer after each worker in a row that never served. Gives up if there are too many.
    fn back_off(&mut self, id: SlotId, reason: Failure, now: Time) {
        self.failed = Some(now);
        let Some(slot) = self.slots.get_mut(&id) else { return };
        // After a failed fork, do not try again at once, since nothing has changed.
        slot.failures = if reason == Failure::Spawn { slot.failures.max(1) + 1 } else { slot.failures + 1 };
        let (failures, delay) = (slot.failures, self.policy.backoff(slot.failures, self.random.next()));
        slot.start_at = now + delay;
        slot.hold = Hold::Backoff;
        if self.policy.give_up > 0 && failures >= self.policy.give_up && self.ever_ready {
            self.notice(Notice::GaveUp { slot: id, failures, reason });
            return self.stop(Stop::Drain, Outcome::GaveUp { slot: id, failures, last: reason });
        }
        if !delay.is_zero() {
            let delay = self.slots.get(&id).map_or(delay, |slot| self.start_of(slot).since(now));
            self.notice(Notice::BackingOff { slot: id, delay, failures });
        }
    }

    /// Whether every wanted slot has a worker that has been ready for a while. A later failure is not due to the
    /// scaling.
    pub(super) fn has_scaled(&self, now: Time) -> bool {
        let is_stable = |it: &Process| it.stage == Stage::Ready && now.since(it.since) >= self.policy.stable;
        (0..self.wanted).all(|id| self.slots.get(&id).is_some_and(|slot| slot.staying().any(is_stable)))
    }

    /// Whether the slot was left empty at the application's request.
    pub(super) fn is_left_empty(&self, id: SlotId) -> bool {
        self.slots.get(&id).is_some_and(|slot| slot.hold == Hold::ForGood)
    }

    /// Starts the slots again that were left empty.
    pub(super) fn refill(&mut self, now: Time) {
        for slot in self.slots.values_mut().filter(|slot| slot.hold == Hold::ForGood) {
            (slot.hold, slot.start_at) = (Hold::Backoff, now);
        }
    }

    /// A worker that was started during a restart, or to replace one that was due, failed before it was ready.
    fn replacement_failed(&mut self, id: SlotId, reason: Failure, now: Time) {
        if self.is_restarting {
            self.end_restart(Notice::RestartAborted { slot: id, reason });
            return;
        }
        let delay = self.policy.backoff_max;
        let Some(slot) = self.slots.get_mut(&id) else { return };
        let due = slot.processes.iter_mut().find_map(|process| Some((process.due.take()?, process)));
        if let Some((why, process)) = due {
            (process.expires, process.is_recycled) = (Some((now + delay, why)), false);
            self.notice(Notice::RecyclingFailed { slot: id, reason, delay });
        }
    }
}
