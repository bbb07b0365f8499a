//! PURE. When a vacant slot is started: first starts take turns, the rates are limited, and slots that fail back off.
//! The module's documentation of `policy.rs` has the reasons.

use std::time::Duration;

use crate::parent::supervisor::effects::Effects;
use crate::parent::supervisor::event::{Effect, Failure, SlotId};
use crate::parent::supervisor::policy::{Policy, SplitMix64};
use crate::parent::supervisor::slot::{Hold, Process, Slot};
use crate::parent::supervisor::slots::Slots;
use crate::shared::pace::Pace;
use crate::time::Time;

#[derive(Debug)]
pub(super) struct Starts {
    /// Whether some worker was ever ready. Then the program works, and the pool no longer gives up.
    pub(super) ever_ready: bool,
    /// When the latest fork was requested.
    last: Time,
    /// The rate of starts that no operator has asked for.
    respawns: Pace,
    /// When a slot whose workers fail to serve was last tried; `None` once a worker tried since then serves.
    retried: Option<Time>,
    /// When a worker last failed without having served.
    failed: Option<Time>,
    random: SplitMix64,
}

impl Starts {
    pub(super) fn new(seed: u64, now: Time) -> Starts {
        let random = SplitMix64::new(seed);
        Starts { ever_ready: false, last: now, respawns: Pace::default(), retried: None, failed: None, random }
    }

    /// A worker is ready, which reaches its age at the time returned.
    pub(super) fn ready(&mut self, policy: &Policy, now: Time) -> Option<Time> {
        self.ever_ready = true;
        policy.expires(now, self.random.next())
    }

    /// When the next slot is due, if nothing else happens.
    pub(super) fn next(&self, policy: &Policy, slots: &Slots) -> Option<Time> {
        let due = slots.startable().map(|(_, slot)| self.start_of(policy, slots, slot));
        due.chain(self.last_resort(policy, slots).map(|(_, at)| at)).min()
    }

    /// Starts a worker in every vacant slot that is due.
    pub(super) fn start_vacant(&mut self, policy: &Policy, slots: &mut Slots, effects: &mut Effects, now: Time) {
        if self.has_recovered(policy, slots, now) {
            self.retried = None;
        }
        // Each start may delay the others.
        let next = |it: &Starts, slots: &Slots| {
            let due = slots.startable().filter(|(_, slot)| slot.listened && it.start_of(policy, slots, slot) <= now);
            Some(due.min_by_key(|(id, slot)| (slot.start_at, *id))?.0)
        };
        while let Some(id) = next(self, slots) {
            self.start_again(id, policy, slots, effects, now);
        }
        if let Some((id, _)) = self.last_resort(policy, slots).filter(|(_, at)| *at <= now) {
            self.start_again(id, policy, slots, effects, now);
        }
        // First starts take turns. If one fails, the others go first.
        let first = slots.startable().filter(|(_, slot)| self.start_of(policy, slots, slot) <= now && !slot.listened);
        if let Some((id, _)) = first.min_by_key(|(id, slot)| (slot.failures, slot.start_at, *id)) {
            self.start_again(id, policy, slots, effects, now);
        }
    }

    /// When a vacant slot, or one whose worker is to be replaced, may be started.
    pub(super) fn start_of(&self, policy: &Policy, slots: &Slots, slot: &Slot) -> Time {
        slot.start_at.max(self.earliest_start(policy, slots, slot))
    }

    /// When the slot may be started by the limits on rates: of the slot, of the pool, and of crash loops.
    fn earliest_start(&self, policy: &Policy, slots: &Slots, slot: &Slot) -> Time {
        let Some(started) = slot.started else { return Time::default() };
        let at = (started + policy.rates.floor).max(self.respawns.next(policy.rates.of_pool(slots.wanted())));
        let at = at.max(slot.respawns.next(policy.rates.of_slot()));
        match self.retried.filter(|_| slot.is_retried()) {
            Some(retried) => at.max(retried + policy.backoff.retry),
            None => at,
        }
    }

    /// If no worker serves or is starting, the next slot to try, and when to start it regardless of its backoff.
    fn last_resort(&self, policy: &Policy, slots: &Slots) -> Option<(SlotId, Time)> {
        let is_dark = self.ever_ready && slots.all().all(|slot| slot.staying().next().is_none());
        let (id, slot) = slots
            .startable()
            .filter(|(_, slot)| is_dark && slot.hold == Hold::Backoff)
            .min_by_key(|(_, slot)| slot.start_at)?;
        let at = slot.start_at.min(self.last + policy.backoff.retry);
        Some((id, at.max(self.earliest_start(policy, slots, slot))))
    }

    /// Whether a worker has begun to serve since the last failure to, and has served for a while.
    fn has_recovered(&self, policy: &Policy, slots: &Slots, now: Time) -> bool {
        let is_stable = |it: &Process| it.serves() && now.since(it.since) >= policy.backoff.stable;
        slots.processes().any(|(_, it)| is_stable(it) && self.failed.is_some_and(|failed| failed < it.since))
    }

    /// Starts a slot on the pool's own initiative, or for the first time.
    pub(super) fn start_again(
        &mut self,
        id: SlotId,
        policy: &Policy,
        slots: &mut Slots,
        effects: &mut Effects,
        now: Time,
    ) {
        let of_pool = policy.rates.of_pool(slots.wanted());
        let has_recovered = self.has_recovered(policy, slots, now);
        let Some(slot) = slots.get_mut(id) else { return };
        if slot.started.is_some() {
            slot.respawns.count(policy.rates.of_slot(), now);
            self.respawns.count(of_pool, now);
        }
        if slot.is_retried() && !has_recovered {
            self.retried = Some(now);
        }
        self.start(id, slots, effects, now);
    }

    /// Starts a slot because an operator has asked for it.
    pub(super) fn start(&mut self, id: SlotId, slots: &mut Slots, effects: &mut Effects, now: Time) {
        let Some(slot) = slots.get_mut(id) else { return };
        self.last = now;
        effects.push(Effect::Spawn { slot: id, generation: slot.start(now) });
    }

    /// Makes the slot wait, longer after each worker in a row that never served.
    pub(super) fn back_off(&mut self, policy: &Policy, slot: &mut Slot, reason: Failure, now: Time) -> Duration {
        self.failed = Some(now);
        // After a failed fork, do not try again at once, since nothing has changed.
        slot.failures = if reason == Failure::Spawn { slot.failures.max(1) + 1 } else { slot.failures + 1 };
        let delay = policy.backoff.delay(slot.failures, self.random.next());
        (slot.start_at, slot.hold) = (now + delay, Hold::Backoff);
        delay
    }

    pub(super) fn frozen(&mut self, span: Duration) {
        self.last = self.last + span;
        self.respawns.frozen(span);
        self.retried = self.retried.map(|at| at + span);
        self.failed = self.failed.map(|at| at + span);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parent::supervisor::event::Exit;
    use crate::parent::supervisor::slot::Stage;

    fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    /// Vacant slots of a pool that has served. Each has its sockets, and was started long ago.
    fn slots(count: usize) -> (Starts, Slots, Effects) {
        let (mut starts, mut slots) = (Starts::new(1, at(0)), Slots::new(count));
        starts.ever_ready = true;
        slots.add_wanted(at(0));
        slots.all_mut().for_each(|slot| (slot.listened, slot.started) = (true, Some(at(0))));
        (starts, slots, Effects::default())
    }

    /// The slots that were started, and whose workers have failed at once.
    fn fail_all(slots: &mut Slots, effects: &mut Effects) -> Vec<SlotId> {
        slots.all_mut().for_each(|slot| slot.processes.clear());
        let spawned = std::iter::from_fn(|| effects.pop());
        spawned.filter_map(|effect| if let Effect::Spawn { slot, .. } = effect { Some(slot) } else { None }).collect()
    }

    #[test]
    fn a_pool_without_workers_tries_one_slot_four_times_a_second_whatever_the_backoff() {
        let policy = Policy::default();
        let (mut starts, mut slots, mut effects) = slots(3);
        for slot in slots.all_mut() {
            slot.failures = 10;
            starts.back_off(&policy, slot, Failure::Exit(Exit::Code(1)), at(1_000));
            assert!(slot.start_at >= at(3_500), "{slot:?}");
        }
        let mut tried = 0;
        for millis in 1_000..2_000 {
            starts.start_vacant(&policy, &mut slots, &mut effects, at(millis));
            tried += fail_all(&mut slots, &mut effects).len();
        }
        assert_eq!(tried, 4);
        // One that serves needs no other to be tried early.
        slots.get_mut(0).expect("it is wanted").start(at(2_000));
        starts.start_vacant(&policy, &mut slots, &mut effects, at(3_000));
        assert_eq!(effects.pop(), None);
    }

    #[test]
    fn first_starts_take_turns_and_one_that_failed_goes_last() {
        let policy = Policy::default();
        let (mut starts, mut slots, mut effects) = (Starts::new(1, at(0)), Slots::new(3), Effects::default());
        slots.add_wanted(at(0));
        let mut turn = |slots: &mut Slots, millis| {
            starts.start_vacant(&policy, slots, &mut effects, at(millis));
            let spawned = std::iter::from_fn(|| effects.pop()).filter_map(|effect| match effect {
                Effect::Spawn { slot, .. } => Some(slot),
                _ => None,
            });
            spawned.collect::<Vec<_>>()
        };
        assert_eq!(turn(&mut slots, 1_000), [0]);
        assert_eq!(turn(&mut slots, 2_000), [0usize; 0], "it has no sockets yet");
        let failed = slots.get_mut(0).expect("it is wanted");
        (failed.failures, failed.start_at) = (1, at(2_000));
        failed.processes.clear();
        for expected in [1, 2] {
            assert_eq!(turn(&mut slots, 3_000), [expected]);
            slots.get_mut(expected).expect("it is wanted").listened = true;
        }
        assert_eq!(turn(&mut slots, 3_000), [0]);
    }

    #[test]
    fn a_start_waits_for_the_slot_s_own_rate_but_not_if_an_operator_asks() {
        let policy = Policy::default();
        let (mut starts, mut slots, mut effects) = slots(1);
        let mut begun = Vec::new();
        for millis in 1_000..1_100 {
            starts.start_vacant(&policy, &mut slots, &mut effects, at(millis));
            if !fail_all(&mut slots, &mut effects).is_empty() {
                begun.push(millis);
            }
        }
        assert_eq!(begun, [1_000, 1_030, 1_060, 1_090], "30 ms apart");
        starts.start(0, &mut slots, &mut effects, at(1_100));
        assert_eq!(slots.get(0).map(|slot| slot.processes[0].stage), Some(Stage::Spawning));
    }
}
