//! PURE. Which workers pass how many of their *busy* connections to which, so that no worker is busy while others are
//! idle.
//!
//! As many connections need not be as much work: a proxy may use a few of its connections all the time, and keep the
//! others for its peaks. So the parent looks again and again whether each worker is within a turn of its loop or waits.
//! If one is busy far more often than another, it passes on a part of the connections that have had a request lately,
//! as much as brings it to the mean. (Afterwards others have more connections, which `plan.rs` settles.)
//!
//! A worker may be busy because of one connection, or of requests of very different cost. Then this may not help, and
//! must do no harm: a worker never gives away its only busy connection, since it gives a part of them, rounded down.
//! And each time that a decision follows another, it takes twice as many looks, which also makes chance less likely.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use super::plan::{level, Load, Move, Selection};

/// The number of looks for a decision, and for one that follows many.
const SAMPLES: u64 = 48;
const SAMPLES_MAX: u64 = 64 * SAMPLES;

/// Connections move if the busiest worker is busy in this part of the looks more than the idlest, away from workers
/// that are busy in this part of them more than the mean.
const SPREAD_PART: u64 = 2;
const EXCESS_PART: u64 = 10;

/// How often each worker was busy.
#[derive(Debug)]
pub(crate) struct Activity {
    samples: u64,
    needed: u64,
    busy: BTreeMap<usize, u64>,
}

/// Whether a worker is busy now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) slot: usize,
    pub(crate) is_busy: bool,
    /// Whether it takes connections over.
    pub(crate) takes: bool,
}

impl Default for Activity {
    fn default() -> Activity {
        Activity { samples: 0, needed: SAMPLES, busy: BTreeMap::new() }
    }
}

impl Activity {
    /// Adds a look at all workers that serve. Returns the moves, once it has seen enough.
    pub(crate) fn sample(&mut self, workers: impl Iterator<Item = Sample>) -> Vec<Move> {
        self.samples += 1;
        let workers: Vec<Sample> = workers.collect();
        for worker in &workers {
            *self.busy.entry(worker.slot).or_default() += u64::from(worker.is_busy);
        }
        if self.samples < self.needed {
            return Vec::new();
        }
        let (samples, busy) = (std::mem::take(&mut self.samples), std::mem::take(&mut self.busy));
        let has = |slot| busy.get(&slot).copied().unwrap_or(0);
        let loads: Vec<_> =
            workers.iter().map(|it| Load { slot: it.slot, has: has(it.slot), takes: it.takes }).collect();
        let most = loads.iter().map(|load| load.has).max().unwrap_or(0);
        let least = loads.iter().filter(|load| load.takes).map(|load| load.has).min().unwrap_or(most);
        if most - least < samples / SPREAD_PART {
            self.needed = SAMPLES;
            return Vec::new();
        }
        self.needed = (self.needed * 2).min(SAMPLES_MAX);
        let transfers = level(&loads, (samples / EXCESS_PART).max(1), u64::MAX).into_iter();
        let moves = transfers.map(|it| {
            let thousandths = it.count * 1_000 / has(it.from).max(1);
            Move { from: it.from, to: it.to, selection: Selection::Busy(u32::try_from(thousandths).unwrap_or(1_000)) }
        });
        moves.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::random::random_below;

    /// A pool of two or more workers, each with connections that take parts of its time, in thousandths.
    struct Pool {
        random: Box<dyn FnMut(u64) -> u64>,
        workers: Vec<Vec<u64>>,
    }

    impl Pool {
        fn draw(&mut self, below: u64) -> u64 {
            (self.random)(below.max(1))
        }

        fn time(&self, worker: usize) -> u64 {
            self.workers[worker].iter().sum::<u64>().min(1_000)
        }

        fn sample(&mut self, activity: &mut Activity) -> Vec<Move> {
            let count = self.workers.len();
            let sample = |slot| Sample { slot, is_busy: self.draw(1_000) < self.time(slot), takes: true };
            activity.sample((0..count).map(sample))
        }

        /// Passes on what the moves say, by chance, as all orders of a decision count before the first is obeyed.
        fn pass(&mut self, moves: &[Move]) -> usize {
            let counts: Vec<_> = self.workers.iter().map(Vec::len).collect();
            let mut moved = 0;
            for it in moves {
                let Selection::Busy(thousandths) = it.selection else { panic!("not by number: {it:?}") };
                for _ in 0..counts[it.from] * thousandths as usize / 1_000 {
                    let len = self.workers[it.from].len();
                    if len == 0 {
                        break;
                    }
                    let at = self.draw(len as u64) as usize;
                    let connection = self.workers[it.from].swap_remove(at);
                    self.workers[it.to].push(connection);
                    moved += 1;
                }
            }
            moved
        }

        /// How many connections move within this many looks.
        fn run(&mut self, activity: &mut Activity, samples: usize) -> usize {
            (0..samples)
                .map(|_| {
                    let moves = self.sample(activity);
                    self.pass(&moves)
                })
                .sum()
        }
    }

    #[test]
    fn a_busy_worker_gives_a_part_of_its_busy_connections_to_idle_ones() {
        for seed in 0..50 {
            let mut workers = vec![Vec::new(); 2 + seed as usize % 7];
            workers[0] = vec![950 / 64; 64];
            let mut pool = Pool { random: Box::new(random_below(seed)), workers };
            let mut activity = Activity::default();
            pool.run(&mut activity, 10 * SAMPLES as usize);
            let times: Vec<_> = (0..pool.workers.len()).map(|worker| pool.time(worker)).collect();
            let (most, least) = (times.iter().max().expect("some"), times.iter().min().expect("some"));
            assert!(most - least < 500, "{seed}: {times:?}");
            let moved = pool.run(&mut activity, 100 * SAMPLES as usize);
            assert_eq!(moved, 0, "{seed}: nothing moves any more: {times:?}");
        }
    }

    #[test]
    fn chance_moves_next_to_nothing() {
        for seed in 0..20 {
            // Each worker is busy for half of its time: the most noise there is.
            let mut pool = Pool { random: Box::new(random_below(seed)), workers: vec![vec![5; 100]; 8] };
            let moved = pool.run(&mut Activity::default(), 200 * SAMPLES as usize);
            assert!(moved < 100, "{seed}: {moved} of 800 connections in half an hour");
        }
    }

    #[test]
    fn what_cannot_be_shared_is_left_alone() {
        // One connection is all the load.
        let mut pool = Pool { random: Box::new(random_below(1)), workers: vec![vec![900], vec![]] };
        assert_eq!(pool.run(&mut Activity::default(), 1_000), 0);
        // All are as busy as can be.
        let mut pool = Pool { random: Box::new(random_below(1)), workers: vec![vec![100; 20]; 4] };
        assert_eq!(pool.run(&mut Activity::default(), 1_000), 0);
    }

    /// A heavy connection among light ones makes any worker the busiest that has it.
    #[test]
    fn decisions_in_vain_become_rare() {
        for seed in 0..10 {
            let mut workers = vec![vec![1; 20]; 2];
            workers[0].push(800);
            let mut pool = Pool { random: Box::new(random_below(seed)), workers };
            let mut activity = Activity::default();
            // Four looks a second, for three hours.
            let decisions = (0..4 * 3 * 3_600).filter(|_| {
                let moves = pool.sample(&mut activity);
                pool.pass(&moves) > 0
            });
            let decisions = decisions.count();
            assert!(decisions < 60, "{seed}: {decisions}");
        }
    }
}
