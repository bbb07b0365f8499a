//! PURE. The consequences of a worker's failure: when its slot is started again, and whether a restart or the pool
//! ends.

use crate::parent::supervisor::event::{Failure, KillReason, Notice, Outcome, Respawn, SlotId, Stop};
use crate::parent::supervisor::slot::{Hold, Process, Slot, Stage};
use crate::parent::supervisor::Supervisor;
use crate::time::Time;

/// A process that ended, or had to be killed, without having been asked to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failed {
    pub(super) slot: SlotId,
    /// Its state before.
    pub(super) process: Process,
    pub(super) reason: Failure,
    /// Whether it has accepted a connection, by its own report. A false report gains no more than the limited rate of
    /// restarts.
    pub(super) has_served: bool,
    /// What the application wants for the slot.
    pub(super) respawn: Respawn,
}

impl Failed {
    /// A failure that the pool detects, of a worker that has not served yet.
    pub(super) fn early(slot: SlotId, process: Process, reason: Failure) -> Failed {
        Failed { slot, process, reason, has_served: false, respawn: Respawn::Backoff }
    }

    pub(super) fn killed(slot: SlotId, process: Process, why: KillReason) -> Failed {
        let has_served = why == KillReason::Stalled;
        Failed { has_served, ..Failed::early(slot, process, Failure::Kill(why)) }
    }
}

impl Supervisor {
    pub(super) fn fail(&mut self, failed: Failed, now: Time) {
        let Failed { slot: id, process, reason, has_served, respawn } = failed;
        if self.shutdown.is_stopping() || id >= self.slots.wanted() {
            return;
        }
        if respawn == Respawn::Stop && !self.shutdown.was_requested() {
            self.request_stop(Stop::Drain, now);
        }
        if self.shutdown.is_stopping() || self.slots.get(id).is_none() {
            return;
        }
        let was_stable = now.since(process.since) >= self.policy.backoff.stable;
        let has_served = process.stage == Stage::Ready && (has_served || was_stable);
        self.delay(Failed { has_served, ..failed }, now);
        if self.shutdown.is_stopping() {
            return;
        }
        if matches!(process.stage, Stage::Spawning | Stage::Starting) && !process.stale {
            let delay = self.policy.backoff.max;
            self.rollout.replacement_failed(id, reason, delay, &mut self.slots, &mut self.effects, now);
        }
        if !self.starts.ever_ready && self.slots.wanted_slots().all(|(_, slot)| slot.failures > 0) {
            self.stop(Stop::Quick, Outcome::BootFailed { last: reason });
        }
    }

    /// Decides when the slot is started again. The failure of a replacement delays nothing while the old worker serves.
    fn delay(&mut self, failed: Failed, now: Time) {
        let Failed { slot: id, reason, has_served, respawn, .. } = failed;
        let Some(slot) = self.slots.get_mut(id) else { return };
        if has_served {
            (slot.failures, slot.start_at) = (0, now);
        }
        if slot.is_ready() {
            return;
        }
        let is_last = slot.staying().next().is_none();
        if !has_served && std::mem::take(&mut self.rollout.is_scaling) {
            self.effects.notice(Notice::ScalingFailed { slot: id, wanted: self.slots.wanted(), reason });
        }
        let Some(slot) = self.slots.get_mut(id) else { return };
        match respawn {
            Respawn::Never if is_last => {
                slot.hold = Hold::ForGood;
                self.effects.notice(Notice::LeftEmpty { slot: id });
            }
            Respawn::Now => slot.start_as_asked(now),
            Respawn::After(delay) => slot.start_as_asked(now + delay),
            // A client that can crash a worker by a request must not be able to keep the slot empty.
            _ if has_served => slot.hold = Hold::Backoff,
            Respawn::Backoff | Respawn::Never | Respawn::Stop => self.back_off(id, reason, now),
        }
    }

    /// Makes the slot wait. Gives up if too many of its workers have failed in a row.
    fn back_off(&mut self, id: SlotId, reason: Failure, now: Time) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        let delay = self.starts.back_off(&self.policy, slot, reason, now);
        let (failures, give_up) = (slot.failures, self.policy.backoff.give_up);
        if give_up > 0 && failures >= give_up && self.starts.ever_ready {
            self.effects.notice(Notice::GaveUp { slot: id, failures, reason });
            return self.stop(Stop::Drain, Outcome::GaveUp { slot: id, failures, last: reason });
        }
        if !delay.is_zero() {
            let start = |slot: &Slot| self.starts.start_of(&self.policy, &self.slots, slot).since(now);
            let delay = self.slots.get(id).map_or(delay, start);
            self.effects.notice(Notice::BackingOff { slot: id, delay, failures });
        }
    }
}
