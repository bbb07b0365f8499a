//! PURE. The state of the pool at one moment.

use super::{Counters, Event, Latency, Model, ParentUse, Pool, Process, Reading, Readings, Reason, Slot};

/// A model combined with its readings.
#[derive(Debug)]
pub(crate) struct Snapshot<'m> {
    pub(crate) now: u64,
    pub(crate) is_ready: bool,
    pub(crate) pool: &'m Pool,
    pub(crate) totals: Counters,
    /// Whether requests and connections are counted. Programs do not count them.
    pub(crate) is_counted: bool,
    /// The number of open connections; `None` if unknown.
    pub(crate) open: Option<u64>,
    /// The kernel's count of them, if it was asked.
    pub(crate) established: Option<u64>,
    /// Log lines that the parent and the admin process could not write.
    pub(crate) lost: [u64; 2],
    pub(crate) parent: ParentUse,
    pub(crate) latency: &'m Latency,
    pub(crate) restarts: [u64; Reason::ALL.len()],
    pub(crate) workers: Vec<Worker<'m>>,
    /// The slots by number, with totals over all their processes.
    pub(crate) slots: Vec<SlotTotals<'m>>,
    pub(crate) events: Vec<&'m Event>,
}

/// A process, or a slot that waits for one.
#[derive(Debug)]
pub(crate) struct Worker<'m> {
    pub(crate) id: usize,
    pub(crate) slot: Option<&'m Slot>,
    /// `None` while the slot backs off.
    pub(crate) process: Option<(&'m Process, &'m Reading)>,
    /// The number of connections in the slot's own queues.
    pub(crate) queue: Option<u64>,
}

/// The processes of a slot, and totals that never go back, whatever happens to its processes.
#[derive(Debug)]
pub(crate) struct SlotTotals<'m> {
    pub(crate) id: usize,
    pub(crate) slot: &'m Slot,
    pub(crate) counters: Counters,
    /// CPU time, in microseconds.
    pub(crate) cpu: u64,
    /// The number of connections in its own queues.
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
        let is_counted = model.slots.is_empty() || model.slots.values().any(|slot| !slot.has_programs);
        let open = if model.has_programs() { readings.established } else { Some(totals.open()) };
        let restarts = std::array::from_fn(|reason| model.slots.values().map(|slot| slot.restarts[reason]).sum());
        Snapshot {
            now: readings.now,
            is_ready: model.unready().is_none(),
            pool: &model.pool,
            totals,
            is_counted,
            open,
            established: readings.established,
            lost: [model.pool.lost, readings.lost],
            parent: readings.parent,
            latency: &readings.latency,
            restarts,
            workers,
            slots: slots.collect(),
            events: model.events.iter().collect(),
        }
    }
}

impl Snapshot<'_> {
    /// Log lines that no process of the pool could write.
    pub(crate) fn lost(&self) -> u64 {
        self.totals.lost + self.lost.iter().sum::<u64>()
    }

    /// Handshakes of TLS: full, resumed, failed; `None` of a pool without.
    pub(super) fn handshakes(&self) -> Option<[u64; 3]> {
        if self.pool.certificates.is_empty() {
            return None;
        }
        let [full12, resumed12, full13, resumed13, failed @ .., _, _] = self.totals.handshakes;
        let sum = |counts: &[u64]| counts.iter().fold(0, |sum: u64, count| sum.saturating_add(*count));
        Some([sum(&[full12, full13]), sum(&[resumed12, resumed13]), sum(&failed)])
    }
}

impl SlotTotals<'_> {
    /// Its counters; `None` if they are unknown.
    pub(crate) fn counted(&self) -> Option<&Counters> {
        Some(&self.counters).filter(|_| !self.slot.has_programs)
    }

    /// A sum over its processes; `None` if they report nothing.
    pub(crate) fn reported(&self, of: impl Fn(&Reading) -> u64) -> Option<u64> {
        let reported = self.processes.iter().filter(|(process, _)| !process.is_program);
        let reported = reported.map(|(_, reading)| of(reading));
        match self.slot.has_programs {
            true => reported.reduce(u64::saturating_add),
            false => Some(reported.fold(0, u64::saturating_add)),
        }
    }
}

impl Worker<'_> {
    /// What its process reports; `None` if there is no process, or it reports nothing.
    pub(crate) fn reported(&self) -> Option<&Reading> {
        self.process.filter(|(process, _)| !process.is_program).map(|(_, reading)| reading)
    }

    pub(crate) fn state(&self) -> &'static str {
        self.process.map_or("backoff", |(process, _)| process.state.as_str())
    }
}
