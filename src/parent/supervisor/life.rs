//! PURE. The effect of each event on the process that it concerns. A failure is returned; the supervisor decides what
//! follows.

use crate::parent::supervisor::effects::Effects;
use crate::parent::supervisor::event::{Effect, Exit, Failure, KillReason, Pid, Recycle, Respawn, SlotId, Stop};
use crate::parent::supervisor::failure::Failed;
use crate::parent::supervisor::gone::Departure;
use crate::parent::supervisor::slot::{Process, Stage};
use crate::parent::supervisor::slots::Slots;
use crate::shared::pace::Rate;
use crate::time::Time;

/// The table of slots while one event is handled.
pub(super) struct Life<'a> {
    pub(super) slots: &'a mut Slots,
    pub(super) effects: &'a mut Effects,
    pub(super) now: Time,
}

impl Life<'_> {
    pub(super) fn spawned(&mut self, id: SlotId, pid: Pid) {
        if self.slots.process(pid).is_some() {
            return;
        }
        let now = self.now;
        if let Some(process) = self.spawning(id) {
            process.pid = Some(pid);
            process.enter(Stage::Starting, now);
        }
    }

    pub(super) fn spawn_failed(&mut self, id: SlotId) -> Option<Failed> {
        let process = *self.spawning(id)?;
        self.slots.remove(id, None);
        Some(Failed::early(id, process, Failure::Spawn))
    }

    /// The process of the slot whose [`Effect::Spawn`] was returned and has no result yet.
    fn spawning(&mut self, id: SlotId) -> Option<&mut Process> {
        if self.effects.has_spawn(id) {
            return None;
        }
        self.slots.get_mut(id)?.processes.iter_mut().find(|process| process.stage == Stage::Spawning)
    }

    /// Marks the slot, whatever becomes of the process, since the parent keeps the sockets.
    pub(super) fn listening(&mut self, pid: Pid) {
        let id = self.slots.process(pid).map(|(id, _)| id);
        if let Some(slot) = id.and_then(|id| self.slots.get_mut(id)) {
            slot.listened = true;
        }
    }

    /// Returns the process if this is news.
    pub(super) fn ready(&mut self, pid: Pid) -> Option<&mut Process> {
        let now = self.now;
        let process = self.slots.process_mut(pid).filter(|process| process.stage == Stage::Starting)?;
        process.enter(Stage::Ready, now);
        Some(process)
    }

    pub(super) fn stalled(&mut self, pid: Pid, abort: bool) -> Option<Failed> {
        let (id, &process) = self.slots.process(pid).filter(|(_, process)| process.stage == Stage::Ready)?;
        if !abort {
            return self.kill(pid, KillReason::Stalled);
        }
        self.slots.process_mut(pid)?.enter(Stage::Aborting, self.now);
        self.effects.push(Effect::Abort { pid });
        Some(Failed::killed(id, process, KillReason::Stalled))
    }

    pub(super) fn misbehaved(&mut self, pid: Pid) -> Option<Failed> {
        let (_, process) = self.slots.process(pid)?;
        if matches!(process.stage, Stage::Killing(_)) {
            None
        } else {
            self.kill(pid, KillReason::Misbehaved)
        }
    }

    pub(super) fn suspend(&mut self, pid: Pid, is_suspended: bool) {
        let now = self.now;
        if let Some(process) = self.slots.process_mut(pid) {
            (process.is_suspended, process.suspended_since) = (is_suspended, now);
        }
    }

    pub(super) fn recycle(&mut self, pid: Pid, why: Recycle) {
        if let Some(process) = self.slots.process_mut(pid).filter(|process| process.stage == Stage::Ready) {
            process.due = Some(why);
        }
    }

    pub(super) fn drain(&mut self, pid: Pid) {
        if let Some(process) = self.slots.process_mut(pid) {
            process.stop(Stop::Drain, self.effects, self.now);
        }
    }

    /// Grants the worker's request at once, but its slot may have to wait for the replacement.
    pub(super) fn leaves(&mut self, pid: Pid, rate: Rate) {
        let Some((id, process)) = self.slots.process(pid) else { return };
        if process.stage.is_leaving() {
            return;
        }
        if let Some(slot) = self.slots.get_mut(id) {
            slot.start_at = slot.start_at.max(slot.requested.next(rate));
            slot.requested.count(rate, self.now);
        }
        self.drain(pid);
    }

    pub(super) fn exited(&mut self, pid: Pid, exit: Exit, has_served: bool, respawn: Respawn) -> Option<Failed> {
        let (id, &process) = self.slots.process(pid)?;
        self.slots.remove(id, Some(pid));
        self.effects.forget(pid);
        let failed = Failed { has_served, respawn, ..Failed::early(id, process, Failure::Exit(exit)) };
        (!Departure::of(process.stage).was_told()).then_some(failed)
    }

    /// Kills a process. It has failed if it was not about to leave anyway.
    pub(super) fn kill(&mut self, pid: Pid, why: KillReason) -> Option<Failed> {
        let (id, &process) = self.slots.process(pid)?;
        self.slots.process_mut(pid)?.enter(Stage::Killing(why), self.now);
        self.effects.push(Effect::Kill { pid, why });
        (!process.stage.is_leaving()).then(|| Failed::killed(id, process, why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A slot whose process is to be forked.
    fn slots() -> (Slots, Effects) {
        let mut slots = Slots::new(1);
        slots.add_wanted(Time::default());
        slots.get_mut(0).expect("it is wanted").start(Time::default());
        (slots, Effects::default())
    }

    #[test]
    fn an_event_that_comes_twice_or_about_a_stranger_changes_nothing() {
        let (mut slots, mut effects) = slots();
        let mut life = Life { slots: &mut slots, effects: &mut effects, now: Time::from_millis(1) };
        life.spawned(0, Pid(10));
        life.spawned(0, Pid(10));
        life.spawned(0, Pid(11));
        assert!(life.slots.process(Pid(11)).is_none(), "only one was to be forked");
        assert!(life.ready(Pid(10)).is_some() && life.ready(Pid(10)).is_none() && life.ready(Pid(12)).is_none());
        assert!(life.misbehaved(Pid(10)).is_some() && life.misbehaved(Pid(10)).is_none());
        assert!(life.stalled(Pid(10), true).is_none(), "it is dying");
        assert!(life.exited(Pid(12), Exit::Code(0), true, Respawn::Backoff).is_none());
        assert!(life.exited(Pid(10), Exit::Code(0), true, Respawn::Backoff).is_none(), "its failure was counted");
        assert!(life.slots.process(Pid(10)).is_none());
    }

    #[test]
    fn a_fork_fails_only_if_it_was_asked_for() {
        let (mut slots, mut effects) = slots();
        effects.push(Effect::Spawn { slot: 0, generation: 1 });
        let mut life = Life { slots: &mut slots, effects: &mut effects, now: Time::default() };
        assert!(life.spawn_failed(0).is_none(), "nobody has been asked to fork yet");
        life.effects.pop();
        assert!(life.spawn_failed(0).is_some_and(|failed| failed.reason == Failure::Spawn));
        assert!(life.spawn_failed(0).is_none());
    }

    #[test]
    fn a_worker_that_leaves_is_told_at_once_and_its_slot_waits_for_its_turn() {
        let rate = Rate::new(std::time::Duration::from_secs(1), 1);
        let (mut slots, mut effects) = slots();
        for pid in [10, 11] {
            let mut life = Life { slots: &mut slots, effects: &mut effects, now: Time::from_millis(500) };
            life.spawned(0, Pid(pid));
            life.ready(Pid(pid));
            life.leaves(Pid(pid), rate);
            life.leaves(Pid(pid), rate);
            assert_eq!(effects.pop(), Some(Effect::Drain { pid: Pid(pid) }));
            let slot = slots.get_mut(0).expect("it is wanted");
            assert_eq!(slot.start_at, Time::from_millis(if pid == 10 { 0 } else { 1_500 }), "the second waits");
            slot.processes.clear();
            slot.start(Time::from_millis(500));
        }
        assert_eq!(effects.pop(), None);
    }
}
