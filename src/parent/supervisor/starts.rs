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
