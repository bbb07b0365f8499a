//! PURE. Replaces workers that serve, starting the replacement first: in a rolling restart, because of limits, or
//! because a signal has stopped them.

use std::time::Duration;

use crate::parent::supervisor::effects::Effects;
use crate::parent::supervisor::event::{Failure, Notice, Recycle, SlotId, Stop};
use crate::parent::supervisor::policy::Policy;
use crate::parent::supervisor::slot::{Process, Slot, Stage};
use crate::parent::supervisor::slots::Slots;
use crate::parent::supervisor::starts::Starts;
use crate::time::Time;

/// The changes that an operator has asked for and that are not finished.
#[derive(Debug, Default)]
pub(super) struct Rollout {
    /// Whether a rolling restart is in progress, which replaces every stale process.
    pub(super) is_restarting: bool,
    /// Whether this number of workers was requested, and not all of them have served yet.
    pub(super) is_scaling: bool,
}

impl Rollout {
    /// Begins a restart. If one is in progress, it now also replaces the workers that it has started, since they may
    /// have read what has changed since.
    pub(super) fn restart(&mut self, slots: &mut Slots, effects: &mut Effects, now: Time) {
        effects.notice(if self.is_restarting { Notice::RestartExtended } else { Notice::RestartBegun });
        self.is_restarting = true;
        slots.refill(now);
        slots.processes_mut().for_each(|process| process.stale |= process.stage != Stage::Spawning);
    }

    fn end_restart(&mut self, slots: &mut Slots, effects: &mut Effects, notice: Notice) {
        effects.notice(notice);
        self.is_restarting = false;
        slots.processes_mut().for_each(|process| process.stale = false);
    }

    pub(super) fn scale(&mut self, workers: usize, slots: &mut Slots, effects: &mut Effects, now: Time) {
        slots.refill(now);
        self.is_scaling = true;
        if workers != slots.wanted() {
            effects.notice(Notice::Scaled { from: slots.wanted(), to: workers });
            slots.want(workers);
        }
    }

    /// Ends the scaling once every wanted slot has a worker that has been ready for a while. A later failure is not due
    /// to it.
    pub(super) fn note_scaled(&mut self, policy: &Policy, slots: &Slots, now: Time) {
        let is_stable = |it: &Process| it.stage == Stage::Ready && now.since(it.since) >= policy.backoff.stable;
        let is_done = |id| slots.get(id).is_some_and(|slot| slot.staying().any(is_stable));
        if self.is_scaling && (0..slots.wanted()).all(is_done) {
            self.is_scaling = false;
        }
    }

    /// A worker that was started during a restart, or to replace one that was due, failed before it was ready.
    pub(super) fn replacement_failed(
        &mut self,
        id: SlotId,
        reason: Failure,
        delay: Duration,
        slots: &mut Slots,
        effects: &mut Effects,
        now: Time,
    ) {
        if self.is_restarting {
            return self.end_restart(slots, effects, Notice::RestartAborted { slot: id, reason });
        }
        let Some(slot) = slots.get_mut(id) else { return };
        let due = slot.processes.iter_mut().find_map(|process| Some((process.due.take()?, process)));
        if let Some((why, process)) = due {
            (process.expires, process.is_recycled) = (Some((now + delay, why)), false);
            effects.notice(Notice::RecyclingFailed { slot: id, reason, delay });
        }
    }

    /// Replaces the workers of a restart, a few at a time, and those that have reached a limit one at a time, and only
    /// if no other worker is starting.
    pub(super) fn replace(
        &mut self,
        policy: &Policy,
        slots: &mut Slots,
        starts: &mut Starts,
        effects: &mut Effects,
        now: Time,
    ) {
        let is_fresh = |slot: &Slot| slot.is_ready() && slot.staying().all(|process| !process.stale);
        if self.is_restarting && slots.all_wanted(is_fresh) {
            self.end_restart(slots, effects, Notice::RestartDone);
        }
        if let Some((id, why, _)) = self.next_to_recycle(policy, slots, starts).filter(|(_, _, at)| *at <= now) {
            effects.notice(Notice::Recycling { slot: id, why });
            if let Some(slot) = slots.get_mut(id) {
                if why.is_requested() {
                    slot.requested.count(policy.rates.of_requests(), now);
                }
                slot.processes.iter_mut().for_each(|process| process.is_recycled |= process.due.is_some());
            }
            starts.start_again(id, policy, slots, effects, now);
        }
        while self.is_restarting && starting(slots) < policy.surge {
            let is_next = |slot: &Slot| slot.awaits(|process| process.stale && process.serves());
            let Some((id, _)) = slots.wanted_slots().find(|(_, slot)| is_next(slot)) else { return };
            starts.start(id, slots, effects, now);
        }
    }

    /// The next slot whose worker is to be replaced because of a limit, the reason, and when.
    pub(super) fn next_to_recycle(
        &self,
        policy: &Policy,
        slots: &Slots,
        starts: &Starts,
    ) -> Option<(SlotId, Recycle, Time)> {
        if self.is_restarting || starting(slots) > 0 {
            return None;
        }
        let due = slots.wanted_slots().filter_map(|(id, slot)| {
            let is_due = slot.awaits(|process| process.due.is_some() && process.serves());
            let why = slot.staying().find_map(|process| process.due).filter(|_| is_due)?;
            let requested = slot.requested.next(policy.rates.of_requests());
            let at = starts.start_of(policy, slots, slot);
            Some((id, why, at.max(if why.is_requested() { requested } else { Time::default() })))
        });
        due.min_by_key(|(_, _, at)| *at)
    }
}

/// Replaces the workers that a signal has stopped, all at once.
pub(super) fn replace_suspended(
    policy: &Policy,
    slots: &mut Slots,
    starts: &mut Starts,
    effects: &mut Effects,
    now: Time,
) {
    let next = |slots: &Slots, starts: &Starts| {
        Some(slots.suspended().find(|(_, slot)| starts.start_of(policy, slots, slot) <= now)?.0)
    };
    while let Some(id) = next(slots, starts) {
        effects.notice(Notice::Replacing { slot: id });
        starts.start_again(id, policy, slots, effects, now);
    }
}

/// If a slot has two ready workers, tells the older one to leave, or the one stopped by a signal. Cancels a replacement
/// that is no longer needed, because its restart was aborted or the old worker runs again.
pub(super) fn stop_replaced(slots: &mut Slots, effects: &mut Effects, now: Time) {
    let unneeded = |slot: &&mut Slot| {
        let mut staying = slot.staying();
        let kept = staying.next().is_some_and(|it| it.serves() && !it.stale && it.due.is_none());
        kept && staying.next().is_some_and(|process| process.stage != Stage::Ready)
    };
    for slot in slots.all_mut().filter(unneeded) {
        let replacement = slot.processes.iter_mut().rfind(|process| !process.stage.is_leaving());
        replacement.into_iter().for_each(|process| process.stop(Stop::Drain, effects, now));
    }
    for slot in slots.all_mut() {
        let newest = slot.staying().filter(|process| process.serves()).map(|process| process.generation).max();
        for process in slot.processes.iter_mut().filter(|process| process.stage == Stage::Ready) {
            if newest.is_some_and(|newest| process.generation < newest || process.is_suspended) {
                process.stop(Stop::Drain, effects, now);
            }
        }
    }
}

/// The number of slots with a worker that is starting.
fn starting(slots: &Slots) -> usize {
    slots.all().filter(|slot| slot.is_starting()).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parent::supervisor::event::{Effect, Pid};

    fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    /// A pool of one slot with processes in these stages, of which the first is stale; pids are 10 and 11.
    fn slots(stages: &[Stage]) -> (Slots, Effects) {
        let mut slots = Slots::new(1);
        slots.add_wanted(at(0));
        let slot = slots.get_mut(0).expect("it is wanted");
        for (stage, pid) in stages.iter().zip(10..) {
            slot.start(at(0));
            let process = slot.processes.last_mut().expect("it was started");
            (process.stage, process.pid, process.stale) = (*stage, Some(Pid(pid)), pid == 10);
        }
        (slots, Effects::default())
    }

    fn told(effects: &mut Effects) -> Vec<Effect> {
        std::iter::from_fn(|| effects.pop()).collect()
    }

    #[test]
    fn of_two_that_serve_the_older_leaves() {
        let (mut slots, mut effects) = slots(&[Stage::Ready, Stage::Starting]);
        stop_replaced(&mut slots, &mut effects, at(1));
        assert_eq!(told(&mut effects), [], "the replacement does not serve yet");
        slots.process_mut(Pid(11)).expect("it is there").stage = Stage::Ready;
        stop_replaced(&mut slots, &mut effects, at(2));
        stop_replaced(&mut slots, &mut effects, at(3));
        assert_eq!(told(&mut effects), [Effect::Drain { pid: Pid(10) }], "once");
    }

    #[test]
    fn a_replacement_that_nobody_needs_any_more_is_cancelled() {
        let (mut slots, mut effects) = slots(&[Stage::Ready, Stage::Starting]);
        slots.process_mut(Pid(10)).expect("it is there").stale = false;
        stop_replaced(&mut slots, &mut effects, at(1));
        assert_eq!(told(&mut effects), [Effect::Drain { pid: Pid(11) }]);
    }

    #[test]
    fn a_restart_begins_with_as_many_slots_as_it_may_and_ends_when_none_is_stale() {
        let policy = Policy::with(|policy| policy.surge = 2);
        let (mut slots, mut effects) = (Slots::new(3), Effects::default());
        let (mut rollout, mut starts) = (Rollout::default(), Starts::new(1, at(0)));
        slots.add_wanted(at(0));
        for (slot, pid) in slots.all_mut().zip(10..) {
            slot.start(at(0));
            (slot.listened, slot.processes[0].stage, slot.processes[0].pid) = (true, Stage::Ready, Some(Pid(pid)));
        }
        rollout.restart(&mut slots, &mut effects, at(1_000));
        let spawn = |slot| Effect::Spawn { slot, generation: 2 };
        rollout.replace(&policy, &mut slots, &mut starts, &mut effects, at(1_000));
        assert_eq!(told(&mut effects), [Effect::Notice(Notice::RestartBegun), spawn(0), spawn(1)]);
        for slot in slots.all_mut().take(2) {
            slot.processes.remove(0);
            slot.processes[0].enter(Stage::Ready, at(1_100));
        }
        rollout.replace(&policy, &mut slots, &mut starts, &mut effects, at(1_100));
        assert_eq!(told(&mut effects), [spawn(2)]);
        let last = slots.get_mut(2).expect("it is wanted");
        last.processes.remove(0);
        last.processes[0].enter(Stage::Ready, at(1_200));
        rollout.replace(&policy, &mut slots, &mut starts, &mut effects, at(1_200));
        assert_eq!(told(&mut effects), [Effect::Notice(Notice::RestartDone)]);
        assert!(!rollout.is_restarting);
    }
}
