//! What the processes say themselves: the shared counters, and /proc.

use std::collections::BTreeMap;

use crate::scoreboard::Scoreboard;
use crate::status::{Model, Process, Reading, Readings};
use crate::time::Time;
use crate::{clock, outlet, proc};

/// Reads all there is about the pool, at one moment. `cpu` is what each process had used when it was last seen.
pub(super) fn read(model: &Model, board: &Scoreboard, cpu: &mut BTreeMap<i32, u64>, now: u64) -> Readings {
    let mut readings = counters(model, board);
    (readings.now, readings.lost) = (now, outlet::lost());
    for process in model.processes.values() {
        let seen = cpu.entry(process.pid).or_default();
        // One that is gone has none any more.
        *seen = proc::cpu(process.pid).unwrap_or(0).max(*seen);
        if let Some(reading) = readings.processes.get_mut(&process.pid) {
            reading.cpu = *seen;
            reading.rss = proc::resident(process.pid).unwrap_or(0);
        }
    }
    readings
}

/// The shared memory, at a moment at which the parent moves nothing in it.
fn counters(model: &Model, board: &Scoreboard) -> Readings {
    let Some(tally) = board.tally() else { return Readings::default() };
    let clock = clock::now();
    tally.steady(|| {
        let mut readings = Readings { latency: tally.latency(), ..Readings::default() };
        // Extended, and not collected, which would sort.
        readings.slots.extend(model.slots.keys().map(|slot| (*slot, tally.counters(*slot))));
        let mut owned = BTreeMap::new();
        owned.extend(tally.owned());
        for (row, slot) in &owned {
            readings.slots.entry(*slot).or_default().add(&board.row(*row).counters(clock));
            readings.latency.add(&board.latency(*row, clock));
        }
        // The row of one that is gone may be another's already.
        let reading = |it: &Process| match owned.get(&it.row) {
            Some(slot) if *slot == it.slot => read_row(board, it.row, clock),
            _ => Reading::default(),
        };
        readings.processes.extend(model.processes.values().map(|it| (it.pid, reading(it))));
        readings
    })
}

fn read_row(board: &Scoreboard, row: usize, now: Time) -> Reading {
    let (it, latency) = (board.row(row), board.latency(row, now));
    let busy = it.busy_since().map_or(0, |since| now.since(since).as_millis());
    let busy = u64::try_from(busy).unwrap_or(u64::MAX);
    Reading { counters: it.counters(now), latency, busy, ..Reading::default() }
}
