//! Reads what the processes report themselves: the shared counters, and /proc.

use std::collections::BTreeMap;

use nix::unistd::getppid;

use crate::admin::status::{Model, ParentUse, Process, Reading, Readings};
use crate::shared::counters::Counters;
use crate::shared::outlet;
use crate::shared::scoreboard::Scoreboard;
use crate::sys::clock;
use crate::sys::proc;
use crate::time::Time;

/// The last values shown, so that no counter goes back.
#[derive(Debug, Default)]
pub(super) struct LastShown {
    /// CPU time of each process in microseconds. That of a dead process stays until the parent has counted it.
    cpu: BTreeMap<i32, u64>,
    /// The counters of each slot. A worker could take back what it has counted.
    slots: BTreeMap<usize, Counters>,
}

impl LastShown {
    /// Called when the parent has counted the CPU time of a process.
    pub(super) fn forget(&mut self, pid: i32) {
        self.cpu.remove(&pid);
    }
}

/// Reads everything about the pool at one moment.
pub(super) fn read(model: &Model, board: &Scoreboard, last: &mut LastShown, now: u64) -> Readings {
    let mut readings = counters(model, board);
    for (slot, counters) in &mut readings.slots {
        let last = last.slots.entry(*slot).or_default();
        *last = counters.at_least(last);
        *counters = *last;
    }
    (readings.now, readings.lost) = (now, outlet::lost());
    readings.parent = parent_use();
    for process in model.processes.values() {
        let seen = last.cpu.entry(process.pid).or_default();
        // A dead process has no CPU time in /proc.
        *seen = proc::cpu(process.pid).unwrap_or(0).max(*seen);
        if let Some(reading) = readings.processes.get_mut(&process.pid) {
            reading.cpu = *seen;
            reading.rss = proc::resident(process.pid).unwrap_or(0);
        }
    }
    readings
}

/// What the parent of this process uses.
fn parent_use() -> ParentUse {
    let pid = getppid().as_raw();
    ParentUse { cpu: proc::cpu(pid), rss: proc::resident(pid), fds: proc::descriptors(pid) }
}

/// Reads the shared memory while the parent moves nothing in it.
fn counters(model: &Model, board: &Scoreboard) -> Readings {
    let Some(tally) = board.tally() else { return Readings::default() };
    let clock = clock::now();
    tally.steady(|| {
        let mut readings = Readings { latency: tally.latency(), ..Readings::default() };
        // `extend` and not `collect`, which would sort.
        readings.slots.extend(model.slots.keys().map(|slot| (*slot, tally.counters(*slot))));
        let mut owned = BTreeMap::new();
        owned.extend(tally.owned());
        for (row, slot) in &owned {
            readings.slots.entry(*slot).or_default().add(&board.row(*row).counters(clock));
            readings.latency.add(&board.latency(*row, clock));
        }
        // The row of a dead process may already belong to another one.
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
    Reading { counters: it.counters(now), latency, busy, held: it.held(), ..Reading::default() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::admin::status::{Fact, Snapshot};
    use crate::parent::supervisor::Pid;
    use crate::parent::watch::{Sample, Schedule, Watch};
    use crate::shared::scoreboard::ParentBoard;
    use crate::shared::state::WorkerState;
    use crate::shared::steer;

    const WORKERS: usize = 4;

    /// An endless series of pseudo-random numbers (xorshift64) of all sizes, and of numbers at edges.
    fn numbers(seed: u64) -> impl FnMut() -> u64 {
        let mut state = seed;
        move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            match state % 8 {
                0 => u64::MAX,
                1 => 0,
                2 => 1 << 63,
                3 => state % (WORKERS as u64 + 2),
                4 => ((state % 2048) << 32) | ((state >> 32) % 8),
                _ => state >> (state % 64),
            }
        }
    }

    fn model() -> Model {
        let mut model = Model::default();
        model.pool.wanted = WORKERS;
        for slot in 0..WORKERS {
            let pid = slot as i32 + 1;
            let (row, state) = (slot + 1, WorkerState::Ready);
            model.learn(Fact::Process(Process { pid, slot, row, generation: 1, state, since: 1, is_program: false }));
        }
        model
    }

    /// Runs everything that reads this memory. Nothing may panic or loop for ever.
    fn drive(board: &ParentBoard, watch: &mut Watch, now: Time) {
        let model = model();
        let readings = read(&model, board, &mut LastShown::default(), 1);
        let snapshot = Snapshot::new(&model, &readings);
        let shown = snapshot.to_text() + &snapshot.to_json() + &snapshot.to_metrics();
        assert!(!shown.is_empty());
        // The parent: stalls and steering.
        let rows = (1..=WORKERS).map(|row| (Pid(row as i32), board.row(row)));
        let samples = rows.map(|(pid, row)| {
            let (busy_since, progress_count) = (row.busy_since(), row.progress());
            Sample { pid, busy_since, progress_count, schedule: Schedule::default() }
        });
        watch.wake(now);
        watch.look(samples, now);
        (1..=WORKERS).for_each(|row| assert!(watch.is_well(Pid(row as i32)) || board.row(row).busy_since().is_some()));
        let seats = steer::look(board, now);
        assert!(board.seats().next().is_none() || !seats.is_empty());
        let pending = board.settle_idle(&[]);
        board.settle_idle(&pending);
        for row in [0, 1, WORKERS, WORKERS + 1, usize::MAX] {
            board.settle_all(row);
            board.set_crowded(row, false);
            board.row(row).doubt(now);
        }
        // A worker: its neighbours.
        let pending = board.pending(1);
        assert!(pending.len() <= board.seats().count());
        pending.iter().for_each(|then| _ = board.is_left(then));
        for slot in 0..=WORKERS {
            let row = board.row_of(slot).map(|row| board.row(row));
            row.map(|row| (steer::is_stalled(row, now), row.open(), row.is_full(), row.pending()));
        }
        steer::is_outdated(board, now);
        board.rest();
    }

    #[test]
    fn a_worker_takes_nothing_back_that_it_has_counted() {
        let mut board = ParentBoard::new(WORKERS).expect("memory");
        board.keep_tally(WORKERS).expect("memory");
        let (model, mut last) = (model(), LastShown::default());
        board.lend(1, 0, Time::default()).expect("a row");
        for (count, shown) in [(7, 7), (3, 7), (u64::MAX, 7), (9, 9)] {
            board.fill_rows(&mut || count);
            let readings = read(&model, &board, &mut last, 1);
            assert_eq!(readings.slots[&0].requests, shown);
        }
    }

    #[test]
    fn nobody_stumbles_over_what_is_in_the_memory() {
        for seed in 1..=16_u64 {
            let mut board = ParentBoard::new(WORKERS).expect("memory");
            board.keep_tally(WORKERS).expect("memory");
            let now = clock::now();
            let pages: Vec<_> = (1..=WORKERS).map(|row| board.lend(row, row - 1, now).expect("a row")).collect();
            board.seat(&[(0, 1), (1, 2), (2, 0), (3, 4)]);
            let mut watch = Watch::new(Duration::from_secs(1));
            let mut number = numbers(seed);
            // First the part that workers can write, then all of it.
            board.fill_rows(&mut number);
            drive(&board, &mut watch, now);
            let dead = board.dead();
            board.fold(2, now);
            assert!(board.dead().requests <= dead.requests + 1_000_000_000, "a liar counts for little");
            assert_eq!(board.row(2).progress(), 0, "and its row is clean");
            for page in &pages {
                let row = page.row();
                row.count_request();
                row.add_accepted();
                row.settle(i64::MIN);
                row.busy(Time::NEVER);
                page.latency().expect("there is a tally").count(u64::MAX, u64::MAX);
            }
            drive(&board, &mut watch, Time::NEVER);
            board.fill_decided(&mut number);
            drive(&board, &mut watch, now);
            (0..=WORKERS).for_each(|row| board.fold(row, now));
            drive(&board, &mut watch, now);
        }
    }
}
