//! PURE. The table of slots: who serves where, who is starting, and which slots are vacant.

use std::collections::BTreeMap;

use crate::parent::supervisor::effects::Effects;
use crate::parent::supervisor::event::{Pid, SlotId, Stop};
use crate::parent::supervisor::slot::{Hold, Process, Slot, Stage};
use crate::time::Time;

#[derive(Debug)]
pub(crate) struct Slots {
    /// Slots with a smaller number than this should have a worker.
    wanted: usize,
    /// These slots, and those removed by scaling whose processes are still alive.
    by_id: BTreeMap<SlotId, Slot>,
}

/// For the whole parent.
impl Slots {
    /// The number of workers wanted.
    pub(crate) fn wanted(&self) -> usize {
        self.wanted
    }

    /// The number of wanted slots with a ready worker.
    pub(crate) fn ready_workers(&self) -> usize {
        self.wanted_slots().filter(|(_, slot)| slot.is_ready()).count()
    }

    /// All processes, by slot and then in the order of their start. A slot without a process is not listed: it waits
    /// for its turn or backs off.
    pub(crate) fn processes(&self) -> impl Iterator<Item = (SlotId, &Process)> {
        self.by_id.iter().flat_map(|(&id, slot)| slot.processes.iter().map(move |process| (id, process)))
    }

    /// The processes that serve, by slot and then in the order of their start.
    pub(crate) fn serving(&self) -> impl Iterator<Item = (SlotId, Pid)> {
        let serving = self.processes().filter(|(_, process)| process.serves());
        serving.filter_map(|(slot, process)| Some((slot, process.pid?)))
    }

    /// The processes that were not told to leave.
    pub(crate) fn staying(&self) -> impl Iterator<Item = Pid> {
        let staying = self.processes().filter(|(_, process)| !process.stage.is_leaving());
        staying.filter_map(|(_, process)| process.pid)
    }

    /// The stage of the process with this pid.
    pub(crate) fn stage(&self, pid: Pid) -> Option<Stage> {
        Some(self.process(pid)?.1.stage)
    }

    /// The process with this pid, if it belongs to the pool. Before its exit is handled, its stage says whether it ends
    /// on request.
    pub(crate) fn process(&self, pid: Pid) -> Option<(SlotId, &Process)> {
        self.processes().find(|(_, process)| process.pid == Some(pid))
    }
}

/// For the other parts of the supervisor.
impl Slots {
    pub(super) fn new(wanted: usize) -> Slots {
        Slots { wanted, by_id: BTreeMap::new() }
    }

    pub(super) fn want(&mut self, workers: usize) {
        self.wanted = workers;
    }

    /// Adds the wanted slots that do not exist yet.
    pub(super) fn add_wanted(&mut self, now: Time) {
        for id in 0..self.wanted {
            self.by_id.entry(id).or_insert_with(|| Slot::new(now));
        }
    }

    pub(super) fn retire(&mut self, id: SlotId) {
        self.by_id.remove(&id);
    }

    pub(super) fn get(&self, id: SlotId) -> Option<&Slot> {
        self.by_id.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: SlotId) -> Option<&mut Slot> {
        self.by_id.get_mut(&id)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Slot> {
        self.by_id.values()
    }

    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.by_id.values_mut()
    }

    pub(super) fn wanted_slots(&self) -> impl Iterator<Item = (SlotId, &Slot)> {
        self.by_id.range(..self.wanted).map(|(&id, slot)| (id, slot))
    }

    /// The slots from this number on.
    pub(super) fn ids_from(&self, first: SlotId) -> Vec<SlotId> {
        self.by_id.range(first..).map(|(&id, _)| id).collect()
    }

    pub(super) fn processes_mut(&mut self) -> impl Iterator<Item = &mut Process> {
        self.all_mut().flat_map(|slot| &mut slot.processes)
    }

    pub(super) fn process_mut(&mut self, pid: Pid) -> Option<&mut Process> {
        self.processes_mut().find(|process| process.pid == Some(pid))
    }

    /// Removes a process, by its pid if it has one.
    pub(super) fn remove(&mut self, id: SlotId, pid: Option<Pid>) {
        if let Some(slot) = self.get_mut(id) {
            slot.processes.retain(|process| process.pid != pid);
        }
    }

    /// The slots that may be started as soon as they are due: wanted, vacant, and not waiting for their turn.
    pub(super) fn startable(&self) -> impl Iterator<Item = (SlotId, &Slot)> {
        let turn_is_free = !self.all().any(Slot::holds_turn);
        self.wanted_slots().filter(move |(_, slot)| slot.is_vacant() && (slot.listened || turn_is_free))
    }

    /// The slots whose worker is stopped by a signal and not being replaced.
    pub(super) fn suspended(&self) -> impl Iterator<Item = (SlotId, &Slot)> {
        self.wanted_slots().filter(|(_, slot)| slot.awaits(|process| process.is_suspended))
    }

    /// Whether this holds for every wanted slot, apart from those left empty at the application's request.
    pub(super) fn all_wanted(&self, is_done: impl Fn(&Slot) -> bool) -> bool {
        let is_done = |slot: &Slot| slot.hold == Hold::ForGood || is_done(slot);
        (0..self.wanted).all(|id| self.get(id).is_some_and(is_done))
    }

    /// Starts the slots again that were left empty.
    pub(super) fn refill(&mut self, now: Time) {
        for slot in self.all_mut().filter(|slot| slot.hold == Hold::ForGood) {
            (slot.hold, slot.start_at) = (Hold::Backoff, now);
        }
    }

    /// Tells every process of the slot to leave, and withdraws a queued start.
    pub(super) fn stop(&mut self, id: SlotId, how: Stop, effects: &mut Effects, now: Time) {
        if effects.withdraw_spawn(id) {
            self.remove(id, None);
        }
        for process in self.get_mut(id).into_iter().flat_map(|slot| &mut slot.processes) {
            process.stop(how, effects, now);
        }
    }
}
