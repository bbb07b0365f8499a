//! PURE. How the pool is at one moment.

use super::{Counters, Event, Latency, Model, Pool, Process, Reading, Readings, Reason, Slot};

/// A model and the readings that belong to it, put together.
#[derive(Debug)]
pub(crate) struct Snapshot<'m> {
    pub(crate) now: u64,
    pub(crate) is_ready: bool,
    pub(crate) pool: &'m Pool,
    pub(crate) totals: Counters,
    /// Lines of logs that the parent and the admin process could not write.
    pub(crate) lost: [u64; 2],
    pub(crate) latency: &'m Latency,
    pub(crate) restarts: [u64; Reason::ALL.len()],
    pub(crate) workers: Vec<Worker<'m>>,
    /// By number, over all their processes.
    pub(crate) slots: Vec<SlotTotals<'m>>,
    pub(crate) events: Vec<&'m Event>,
}

/// A process, or a slot that waits to get one.
#[derive(Debug)]
pub(crate) struct Worker<'m> {
    pub(crate) id: usize,
    pub(crate) slot: Option<&'m Slot>,
    /// None while the slot backs off.
    pub(crate) process: Option<(&'m Process, &'m Reading)>,
    /// Connections that wait in the slot's own queues.
    pub(crate) queue: Option<u64>,
}

/// What never goes back, whatever becomes of a slot's processes; and its processes.
#[derive(Debug)]
pub(crate) struct SlotTotals<'m> {
    pub(crate) id: usize,
    pub(crate) slot: &'m Slot,
    pub(crate) counters: Counters,
    /// Microseconds.
    pub(crate) cpu: u64,
    /// Connections that wait in its own queues.
    pub(crate) queue: Option<u64>,
    pub(crate) processes: Vec<(&'m Process, &'m Reading)>,
}

impl<'m> Snapshot<'m> {
    pub(crate) fn new(model: &'m Model, readings: &'m Readings) -> Snapshot<'m> {
        let mut processes: Vec<_> =
            model.processes.values().filter_map(|it| Some((it, readings.processes.get(&it.pid)?))).collect();
        processes.sort_unstable_by_key(|(it, _)| (it.slot, it.generation));
        let of = |id: usize| processes.iter().copied().filter(move |(it, _)| it.slot == id);
        let vacant = (0..model.pool.wanted).filter(|id| of(*id).next().is_none());
        let queue = |id: usize| {
            let lengths = model.sockets.get(&id)?.iter().filter_map(|inode| readings.queues.get(inode));
            lengths.copied().reduce(|all, length| all + length)
        };
        let vacant = vacant.map(|id| Worker { id, slot: model.slots.get(&id), process: None, queue: queue(id) });
        let taken = processes.iter().map(|process| Worker {
            id: process.0.slot,
            slot: model.slots.get(&process.0.slot),
            process: Some(*process),
            queue: queue(process.0.slot),
        });
        let mut workers: Vec<_> = taken.chain(vacant).collect();
        workers.sort_unstable_by_key(|worker| (worker.id, worker.process.map(|(it, _)| it.generation)));
        let slots = model.slots.iter().map(|(id, slot)| SlotTotals {
            id: *id,
            slot,
            counters: readings.slots.get(id).copied().unwrap_or_default(),
            cpu: slot.cpu + of(*id).map(|(_, reading)| reading.cpu).sum::<u64>(),
            queue: queue(*id),
            processes: of(*id).collect(),
        });
        let mut totals = Counters::default();
        readings.slots.values().for_each(|counters| totals.add(counters));
        let restarts = std::array::from_fn(|reason| model.slots.values().map(|slot| slot.restarts[reason]).sum());
        Snapshot {
            now: readings.now,
            is_ready: model.unready().is_none(),
            pool: &model.pool,
            totals,
            lost: [model.pool.lost, readings.lost],
            latency: &readings.latency,
            restarts,
            workers,
            slots: slots.collect(),
            events: model.events.iter().collect(),
        }
    }
}

impl Snapshot<'_> {
    /// Lines of logs that no process of the pool could write.
    pub(crate) fn lost(&self) -> u64 {
        self.totals.lost + self.lost.iter().sum::<u64>()
    }
}

impl Worker<'_> {
    pub(crate) fn state(&self) -> &'static str {
        self.process.map_or("backoff", |(process, _)| process.state.as_str())
    }
}
