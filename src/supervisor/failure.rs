//! PURE. What follows when a worker fails: when its slot is started again, and whether a restart or the pool ends.

use super::*;

impl Supervisor {
    /// A process of the slot ended, or had to be ended, and nobody had asked it to. `process` is as it was before.
    pub(super) fn fail(&mut self, id: SlotId, process: Process, reason: Failure, respawn: Respawn, now: Time) {
        if self.stopping.is_some() || id >= self.wanted {
            return;
        }
        if respawn == Respawn::Stop && !self.was_asked_to_stop() {
            self.asked_to_stop(Stop::Drain, now);
        }
        let Some(slot) = self.slots.get_mut(&id).filter(|_| self.stopping.is_none()) else { return };
        let was_stable = process.stage == Stage::Ready && now.since(process.since) >= self.policy.stable;
        if was_stable {
            slot.failures = 0;
            slot.start_at = now;
        }
        // The failure of a replacement delays nothing while its predecessor serves.
        if !slot.is_ready() {
            match respawn {
                Respawn::Never if slot.staying().next().is_none() => {
                    slot.hold = Hold::ForGood;
                    self.notice(Notice::LeftEmpty { slot: id });
                }
                Respawn::Now => slot.start_as_asked(now),
                Respawn::After(delay) => slot.start_as_asked(now + delay),
                _ if was_stable && reason == Failure::Exit(Exit::Code(0)) => {}
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

    /// Has the slot wait the longer the more often it has failed in a row, and the pool give up if that is too often.
    fn back_off(&mut self, id: SlotId, reason: Failure, now: Time) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        // A fork that failed is not repeated at once: nothing has changed.
        slot.failures = if reason == Failure::Spawn { slot.failures.max(1) + 1 } else { slot.failures + 1 };
        let (failures, delay) = (slot.failures, self.policy.backoff(slot.failures, self.random.next()));
        slot.start_at = now + delay;
        slot.hold = Hold::Backoff;
        if self.policy.give_up > 0 && failures >= self.policy.give_up && self.ever_ready {
            self.notice(Notice::GaveUp { slot: id, failures, reason });
            return self.stop(Stop::Drain, Outcome::GaveUp { slot: id, failures, last: reason });
        }
        if !delay.is_zero() {
            self.notice(Notice::BackingOff { slot: id, delay, failures });
        }
    }

    /// Whether the slot was left empty for good, by the application's word.
    pub(super) fn is_left_empty(&self, id: SlotId) -> bool {
        self.slots.get(&id).is_some_and(|slot| slot.hold == Hold::ForGood)
    }

    /// Has the slots that were left empty started again.
    pub(super) fn refill(&mut self, now: Time) {
        for slot in self.slots.values_mut().filter(|slot| slot.hold == Hold::ForGood) {
            (slot.hold, slot.start_at) = (Hold::Backoff, now);
        }
    }

    /// A worker that was started during a restart, or to replace one that was due, was never ready.
    fn replacement_failed(&mut self, id: SlotId, reason: Failure, now: Time) {
        if self.is_restarting {
            self.end_restart(Notice::RestartAborted { slot: id, reason });
            return;
        }
        let delay = self.policy.backoff_max;
        let Some(slot) = self.slots.get_mut(&id) else { return };
        let due = slot.processes.iter_mut().find_map(|process| Some((process.due.take()?, process)));
        if let Some((why, process)) = due {
            process.expires = Some((now + delay, why));
            self.notice(Notice::RecyclingFailed { slot: id, reason, delay });
        }
    }
}
