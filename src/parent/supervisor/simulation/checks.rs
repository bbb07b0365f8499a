//! The invariants of every history.

use super::*;
use crate::parent::supervisor::slot::Hold;

impl World {
    /// Checks that the state is as wanted once nothing is due and nothing will happen by itself.
    pub(super) fn check_settled(&mut self) {
        assert_eq!(self.supervisor.poll_effect(), None);
        assert_eq!(self.finished, self.supervisor.shutdown.is_stopping(), "a stopped pool ends");
        if self.finished {
            return assert!(self.workers.is_empty());
        }
        let mut slots: Vec<SlotId> = self.workers.values().map(|worker| worker.slot).collect();
        slots.sort_unstable();
        let filled = self.supervisor.slots.wanted_slots().filter(|(_, slot)| slot.hold != Hold::ForGood);
        assert_eq!(
            slots,
            filled.map(|(id, _)| id).collect::<Vec<_>>(),
            "a worker a slot, but for those left empty, and no other"
        );
        assert_eq!(self.supervisor.slots().ready_workers(), slots.len(), "all of them ready");
        assert!(!slots.is_empty(), "a pool without workers ends");
        assert!(!self.supervisor.rollout.is_restarting, "a restart ends");
        assert!(!self.supervisor.awaits_successor(), "an upgrade ends");
        if self.mood == Mood::Peace {
            assert_eq!(self.first_listens, slots, "the group's order is the slots' order");
            assert_eq!(self.forks.len(), slots.len(), "nobody was replaced without need");
        }
    }

    /// Checks the limits that the policy sets on starts that no operator asks for.
    pub(super) fn check_start(&mut self, slot: SlotId) {
        let policy = self.supervisor.policy;
        let millis = |span: Duration| span.as_millis() as u64;
        let lately = |at: &u64| *at + SECOND > self.now;
        let forks = self.forks.iter().filter(|(_, at)| lately(at)).count() as u64;
        let wanted = self.supervisor.slots().wanted() as u64;
        let started = self.forks.iter().rfind(|(id, _)| *id == slot).map(|(_, at)| *at);
        if let Some(started) = started {
            assert!(self.now >= started + millis(policy.rates.floor), "slot {slot} is started again too soon");
        }
        if let Some((has_served, ended)) = self.ends.get(&slot).copied() {
            if has_served {
                let at = ended.max(started.unwrap_or(0) + millis(policy.rates.floor));
                let wait = self.now - at;
                assert!(wait == 0 || forks >= wanted, "slot {slot} was left empty for {wait} ms");
                assert!(wait < wanted * millis(policy.rates.pool), "slot {slot} was left empty for {wait} ms");
            } else {
                self.retries.push(self.now);
            }
        }
        let retries = self.retries.iter().filter(|at| lately(at)).count();
        assert!(retries <= RETRIES_A_SECOND, "{retries} retries in a second");
        // The burst of first starts, then the sustained rate.
        assert!(forks <= SECOND / millis(policy.rates.pool) + 2 * wanted, "{forks} forks in a second");
    }

    pub(super) fn check(&mut self, event: Event, before: &BTreeMap<i32, (SlotId, Stage)>) {
        let after = self.stages();
        assert!(after.keys().eq(self.workers.keys()), "the supervisor knows who lives");
        self.ever_ready |= after.values().any(|(_, stage)| *stage == Stage::Ready);
        for (pid, (slot, stage)) in &after {
            let Some((_, earlier)) = before.get(pid) else { continue };
            assert!(earlier.ordered() <= stage.ordered(), "{pid} was told to leave and is back");
            let it = Pid(*pid);
            let asked = [Event::Disconnected { pid: it }, Event::Leaves { pid: it }].contains(&event);
            let drained = *earlier == Stage::Ready && *stage == Stage::Draining && !asked;
            let serving = |(id, stage): &(SlotId, Stage)| id == slot && *stage == Stage::Ready;
            if drained && *slot < self.supervisor.slots().wanted() && !self.supervisor.shutdown.is_stopping() {
                assert!(after.values().any(serving), "{pid} is drained before its replacement is ready");
            }
        }
        for slot in self.supervisor.slots.all() {
            assert!(slot.processes.len() <= 2, "two processes a slot at most");
        }
        let starting = |slot: &&Slot| slot.is_ready() && slot.staying().any(|process| process.stage == Stage::Starting);
        let replaced = self.supervisor.slots.all().filter(starting).count();
        // Workers that an aborted restart has begun to replace may be due anyway, and are then not cancelled.
        self.ever_restarted |= self.supervisor.rollout.is_restarting;
        let most = if self.ever_restarted { self.supervisor.policy.surge } else { 1 };
        self.ever_suspended |= matches!(event, Event::Suspended { .. });
        assert!(replaced <= most || self.ever_suspended, "{replaced} slots are replaced at a time");
        let holding = self.supervisor.slots.all().filter(|slot| slot.holds_turn()).count();
        assert!(holding <= 1, "first starts take turns");
        if event == Event::Tick {
            let deadline = self.supervisor.deadline();
            assert!(deadline.is_none_or(|at| at > Time::from_millis(self.now)), "a tick leaves nothing that is due");
        }
    }
}
