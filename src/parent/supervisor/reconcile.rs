//! PURE. Compares the actual state with the wanted one, and queues effects for the difference.

use crate::parent::supervisor::event::{Effect, Notice, Outcome, Recycle, SlotId, Stop};
use crate::parent::supervisor::slot::{Hold, Process, Slot, Stage};
use crate::parent::supervisor::{tell, Stopping, Supervisor};
use crate::time::Time;

/// Called after every event. Does nothing if both states agree.
impl Supervisor {
    pub(super) fn reconcile(&mut self, now: Time) {
        if self.stopping.is_some() {
            return self.wind_down(now);
        }
        if self.lame_duck.is_some() {
            // A request to stop before the new binary serves also ends the new binary, which would otherwise go on for
            // ever.
            self.dismiss_successor(Stop::Drain, now);
        }
        // While a new binary is starting, the pool does not end.
        if self.successor.is_none() && (0..self.wanted).all(|id| self.is_left_empty(id)) {
            self.notice(Notice::AllLeftEmpty);
            self.stop(Stop::Drain, Outcome::Stopped);
            return self.wind_down(now);
        }
        self.shed(now);
        self.fill(now);
        self.roll(now);
        let is_done = |id| self.is_left_empty(id) || self.slots.get(&id).is_some_and(Slot::is_ready);
        if !self.all_ready && self.ready_workers() > 0 && (0..self.wanted).all(is_done) {
            self.all_ready = true;
            self.notice(Notice::AllReady { workers: self.wanted });
        }
    }

    /// Tells every process to leave, as strongly as last requested.
    fn wind_down(&mut self, now: Time) {
        let Some(Stopping { how, outcome, finished: false }) = self.stopping else { return };
        let slots: Vec<SlotId> = self.slots.keys().copied().collect();
        for id in slots {
            self.dismiss(id, how, now);
        }
        self.dismiss_successor(how, now);
        if self.processes().next().is_none() && self.successor.is_none() {
            self.stopping = Some(Stopping { how, outcome, finished: true });
            self.effects.push_back(Effect::Finish(outcome));
        }
    }

    /// Drains the slots removed by scaling, and retires them once they are empty.
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

    /// Starts a worker in every vacant slot that is due.
    fn fill(&mut self, now: Time) {
        for id in 0..self.wanted {
            self.slots.entry(id).or_insert_with(|| Slot::new(now));
        }
        if self.has_recovered(now) {
            self.retried = None;
        }
        // Each start may delay the others.
        let next = |it: &Supervisor| {
            let due = it.startable().filter(|(_, slot)| slot.listened && it.start_of(slot) <= now);
            Some(due.min_by_key(|(id, slot)| (slot.start_at, *id))?.0)
        };
        while let Some(id) = next(self) {
            self.start_again(id, now);
        }
        if let Some((id, _)) = self.last_resort().filter(|(_, at)| *at <= now) {
            self.start_again(id, now);
        }
        // First starts take turns. If one fails, the others go first.
        let first = self.startable().filter(|(_, slot)| self.start_of(slot) <= now && !slot.listened);
        if let Some((id, _)) = first.min_by_key(|(id, slot)| (slot.failures, slot.start_at, *id)) {
            self.start_again(id, now);
        }
    }

    /// Whether a worker has begun to serve since the last failure to, and has served for a while.
    fn has_recovered(&self, now: Time) -> bool {
        self.processes().any(|(_, process)| {
            let is_stable = process.serves() && now.since(process.since) >= self.policy.stable;
            is_stable && self.failed.is_some_and(|failed| failed < process.since)
        })
    }

    /// When a vacant slot, or one whose worker is to be replaced, may be started.
    pub(super) fn start_of(&self, slot: &Slot) -> Time {
        slot.start_at.max(self.earliest_start(slot))
    }

    /// When the slot may be started by the limits on rates: of the slot, of the pool, and of crash loops.
    fn earliest_start(&self, slot: &Slot) -> Time {
        let Some(started) = slot.started else { return Time::default() };
        let at = (started + self.policy.floor).max(self.respawns.next(self.policy.starts(self.wanted)));
        let at = at.max(slot.respawns.next(self.policy.starts_of_slot()));
        match self.retried.filter(|_| slot.is_retried()) {
            Some(retried) => at.max(retried + self.policy.retry),
            None => at,
        }
    }

    /// If no worker serves or is starting, the next slot to try, and when to start it regardless of its backoff.
    pub(super) fn last_resort(&self) -> Option<(SlotId, Time)> {
        let is_dark = self.ever_ready && self.slots.values().all(|slot| slot.staying().next().is_none());
        let (id, slot) = self
            .startable()
            .filter(|(_, slot)| is_dark && slot.hold == Hold::Backoff)
            .min_by_key(|(_, slot)| slot.start_at)?;
        let at = slot.start_at.min(self.last_spawn + self.policy.retry);
        Some((id, at.max(self.earliest_start(slot))))
    }

    /// The slots that may be started as soon as they are due: wanted, vacant, and not waiting for their turn.
    pub(super) fn startable(&self) -> impl Iterator<Item = (SlotId, &Slot)> {
        let wanted = if self.is_stopping() { 0 } else { self.wanted };
        let turn_is_free = !self.slots.values().any(Slot::holds_turn);
        let slots = self.slots.range(..wanted).map(|(&id, slot)| (id, slot));
        slots.filter(move |(_, slot)| slot.is_vacant() && (slot.listened || turn_is_free))
    }

    /// Replaces workers, starting the replacement first: workers stopped by a signal at once, those of a restart a few
    /// at a time, and those that have reached a limit one at a time, and only if no other worker is starting.
    fn roll(&mut self, now: Time) {
        self.relieve(now);
        let next = |it: &Supervisor| Some(it.replaceable_at_once().find(|(_, slot)| it.start_of(slot) <= now)?.0);
        while let Some(id) = next(self) {
            self.notice(Notice::Replacing { slot: id });
            self.start_again(id, now);
        }
        if self.successor.is_some() {
            return;
        }
        let is_fresh = |slot: &Slot| slot.is_ready() && slot.staying().all(|process| !process.stale);
        let is_done = |id| self.is_left_empty(id) || self.slots.get(&id).is_some_and(is_fresh);
        if self.is_restarting && (0..self.wanted).all(is_done) {
            self.end_restart(Notice::RestartDone);
        }
        if let Some((id, why, _)) = self.next_to_recycle().filter(|(_, _, at)| *at <= now) {
            self.notice(Notice::Recycling { slot: id, why });
            let own_words = self.policy.own_words();
            if let Some(slot) = self.slots.get_mut(&id) {
                if why.is_own_word() {
                    slot.own_word.count(own_words, now);
                }
                slot.processes.iter_mut().for_each(|process| process.is_recycled |= process.due.is_some());
            }
            self.start_again(id, now);
        }
        while self.is_restarting && self.starting() < self.policy.surge {
            let mut slots = self.slots.range(..self.wanted);
            let next = slots.find(|(_, slot)| slot.awaits(|process| process.stale && process.serves()));
            let Some((&id, _)) = next else { return };
            self.spawn(id, now);
        }
    }

    /// The number of slots with a worker that is starting.
    fn starting(&self) -> usize {
        self.slots.values().filter(|slot| slot.is_starting()).count()
    }

    /// If a slot has two ready workers, tells the older one to leave, or the one stopped by a signal. Cancels a
    /// replacement that is no longer needed, because its restart was aborted or the old worker runs again.
    fn relieve(&mut self, now: Time) {
        let unneeded = |slot: &&mut Slot| {
            let mut staying = slot.staying();
            let kept = staying.next().is_some_and(|it| it.serves() && !it.stale && it.due.is_none());
            kept && staying.next().is_some_and(|process| process.stage != Stage::Ready)
        };
        for slot in self.slots.values_mut().filter(unneeded) {
            let replacement = slot.processes.iter_mut().rfind(|process| !process.stage.is_leaving());
            replacement.into_iter().for_each(|process| tell(process, Stop::Drain, now, &mut self.effects));
        }
        for slot in self.slots.values_mut() {
            let newest = slot.staying().filter(|process| process.serves()).map(|process| process.generation).max();
            for process in slot.processes.iter_mut().filter(|process| process.stage == Stage::Ready) {
                if newest.is_some_and(|newest| process.generation < newest || process.is_suspended) {
                    tell(process, Stop::Drain, now, &mut self.effects);
                }
            }
        }
    }

    /// The slots whose worker is stopped by a signal and not being replaced.
    pub(super) fn replaceable_at_once(&self) -> impl Iterator<Item = (SlotId, &Slot)> {
        let wanted = if self.is_stopping() { 0 } else { self.wanted };
        let slots = self.slots.range(..wanted).map(|(&id, slot)| (id, slot));
        slots.filter(|(_, slot)| slot.awaits(|process| process.is_suspended))
    }

    /// The next slot whose worker is to be replaced because of a limit, the reason, and when.
    pub(super) fn next_to_recycle(&self) -> Option<(SlotId, Recycle, Time)> {
        if self.is_stopping() || self.successor.is_some() || self.is_restarting || self.starting() > 0 {
            return None;
        }
        let slots = self.slots.range(..self.wanted);
        let due = slots.filter(|(_, slot)| slot.awaits(|process| process.due.is_some() && process.serves()));
        let due = due.filter_map(|(&id, slot)| {
            let why = slot.staying().find_map(|process| process.due)?;
            let own_word = slot.own_word.next(self.policy.own_words());
            let at = self.start_of(slot).max(if why.is_own_word() { own_word } else { Time::default() });
            Some((id, why, at))
        });
        due.min_by_key(|(_, _, at)| *at)
    }

    /// Starts a slot on the pool's own initiative, or for the first time.
    fn start_again(&mut self, id: SlotId, now: Time) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        if slot.started.is_some() {
            slot.respawns.count(self.policy.starts_of_slot(), now);
            self.respawns.count(self.policy.starts(self.wanted), now);
        }
        if self.slots.get(&id).is_some_and(Slot::is_retried) && !self.has_recovered(now) {
            self.retried = Some(now);
        }
        self.spawn(id, now);
    }

    fn spawn(&mut self, id: SlotId, now: Time) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        assert!(slot.processes.len() < Slot::MOST, "slot {id} is full: {slot:?}");
        self.last_spawn = now;
        slot.generation += 1;
        slot.started = Some(now);
        slot.hold = Hold::Backoff;
        let generation = slot.generation;
        slot.processes.push(Process::new(generation, now));
        self.effects.push_back(Effect::Spawn { slot: id, generation });
    }

    /// Tells every process of the slot to leave, and withdraws a queued start.
    fn dismiss(&mut self, id: SlotId, how: Stop, now: Time) {
        if let Some(index) = self.queued_spawn(id) {
            self.effects.remove(index);
            self.remove(id, None);
        }
        for process in self.slots.get_mut(&id).into_iter().flat_map(|slot| &mut slot.processes) {
            tell(process, how, now, &mut self.effects);
        }
    }

    pub(super) fn queued_spawn(&self, id: SlotId) -> Option<usize> {
        self.effects.iter().position(|effect| matches!(effect, Effect::Spawn { slot, .. } if *slot == id))
    }
}
