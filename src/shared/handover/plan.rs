//! PURE. Which workers pass how many of their connections to which, so that all have about as many.
//!
//! New connections are given to the workers that have the fewest, but clients that keep their connections make none. So
//! after scaling up or a restart, the workers that were there before would have all of them for ever.
//!
//! Nothing is moved as long as the fullest worker is within the hysteresis of the mean. Then each worker gets to the
//! mean, in steps of limited size, since a worker that passes on connections answers none meanwhile.
#![forbid(unsafe_code)]

use std::collections::VecDeque;

/// Moving begins when the fullest worker has this part more than the mean, and this number more at least.
const PART: u64 = 32;
const LEAST: u64 = 2;

/// The maximum number of connections that one worker passes on in one step.
const STEP: u64 = 1024;

/// The number of connections of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) slot: usize,
    /// How many it has, as it reports.
    pub(crate) open: u64,
    /// Whether it takes some over.
    pub(crate) takes: bool,
}

/// A worker is to pass this number of connections to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) count: u32,
}

/// The moves of one step; none if the connections are balanced.
pub(crate) fn plan(loads: &[Load]) -> Vec<Move> {
    let total = loads.iter().fold(0_u64, |total, load| total.saturating_add(load.open));
    let Some(count) = u64::try_from(loads.len()).ok().filter(|count| *count > 0) else { return Vec::new() };
    let (low, high) = (total / count, total.div_ceil(count));
    let fullest = loads.iter().map(|load| load.open).max().unwrap_or(0);
    if fullest < high.saturating_add((low / PART).max(LEAST)) {
        return Vec::new();
    }
    // Everybody gets to the mean, rounded down, before somebody gets the one more that is left over.
    let room = |most: u64| loads.iter().filter(move |load| load.takes && load.open < most);
    let first = room(low).map(|load| (load.slot, low - load.open));
    let last = room(high).map(|load| (load.slot, high - load.open.max(low)));
    let mut empty: VecDeque<(usize, u64)> = first.chain(last.filter(|(_, room)| *room > 0)).collect();
    let mut full: Vec<&Load> = loads.iter().filter(|load| load.open > high).collect();
    full.sort_by_key(|load| std::cmp::Reverse(load.open));
    let mut moves = Vec::new();
    for load in full {
        let mut surplus = (load.open - high).min(STEP);
        while surplus > 0 {
            let Some((to, room)) = empty.front_mut() else { return moves };
            let count = surplus.min(*room);
            moves.push(Move { from: load.slot, to: *to, count: u32::try_from(count).unwrap_or(u32::MAX) });
            surplus -= count;
            *room -= count;
            if *room == 0 {
                empty.pop_front();
            }
        }
    }
    moves
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loads(open: &[u64]) -> Vec<Load> {
        open.iter().enumerate().map(|(slot, open)| Load { slot, open: *open, takes: true }).collect()
    }

    /// What is left if all moves are made.
    fn after(loads: &mut [Load], moves: &[Move]) {
        for it in moves {
            loads[it.from].open -= u64::from(it.count);
            loads[it.to].open += u64::from(it.count);
        }
    }

    #[test]
    fn what_is_about_equal_stays() {
        for open in [&[][..], &[5], &[3, 3, 3], &[1, 0, 0, 0], &[3, 2, 2], &[1_030, 1_000, 1_000], &[0, 0], &[2, 1]] {
            assert_eq!(plan(&loads(open)), [], "{open:?}");
        }
        assert_eq!(plan(&loads(&[8, 0])), [Move { from: 0, to: 1, count: 4 }]);
    }

    #[test]
    fn who_takes_none_gets_none_and_may_give() {
        let mut loads = loads(&[90, 0, 0]);
        loads[0].takes = false;
        loads[2].takes = false;
        assert_eq!(plan(&loads), [Move { from: 0, to: 1, count: 30 }]);
    }

    #[test]
    fn impossible_reports_break_nothing() {
        let moves = plan(&loads(&[u64::MAX, u64::MAX, 0, 7]));
        assert!(moves.iter().all(|it| u64::from(it.count) <= STEP), "{moves:?}");
    }

    /// Any pool gets balanced within a few steps, and then nothing moves any more; nobody gets more than the mean.
    #[test]
    fn it_converges_and_does_not_oscillate() {
        let mut random = 5_u64;
        let mut draw = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        for _ in 0..500 {
            let count = 1 + draw(16) as usize;
            let most = [10, 300, 5_000][draw(3) as usize];
            let open: Vec<u64> = (0..count).map(|_| if draw(2) == 0 { 0 } else { draw(most) }).collect();
            let mut loads = loads(&open);
            let high = open.iter().sum::<u64>().div_ceil(count as u64);
            let mut steps = 0;
            loop {
                let moves = plan(&loads);
                if moves.is_empty() {
                    break;
                }
                let before = loads.clone();
                after(&mut loads, &moves);
                for (before, after) in before.iter().zip(&loads) {
                    assert!(after.open <= before.open.max(high), "{before:?} {after:?}");
                }
                steps += 1;
                assert!(steps <= 8, "{open:?} {loads:?}");
            }
            let fullest = loads.iter().map(|load| load.open).max().expect("one at least");
            let bound = high + (high / PART).max(LEAST);
            assert!(fullest <= bound, "{open:?} {loads:?}");
        }
    }

    /// Clients come and go, reports are a step late, and some moves are not made. The difference stays small, and few are
    /// moved once the pool is balanced.
    #[test]
    fn a_changing_pool_stays_balanced_with_few_moves() {
        let mut random = 11_u64;
        let mut draw = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        let mut now = loads(&[8_000, 0, 0, 0, 0, 0, 0, 0]);
        let mut seen = now.clone();
        let (mut moved, mut pending) = (0, Vec::new());
        for step in 0..200 {
            // What was ordered in the step before is done now, but for a part of it.
            let orders: Vec<Move> = std::mem::take(&mut pending);
            for mut it in orders {
                it.count -= draw(u64::from(it.count) / 8 + 1) as u32;
                it.count = it.count.min(u32::try_from(now[it.from].open).unwrap_or(u32::MAX));
                moved += if step > 20 { it.count } else { 0 };
                after(&mut now, &[it]);
            }
            for load in &mut now {
                load.open = load.open + draw(4) - draw(4).min(load.open);
            }
            // The parent plans only when nothing is on its way.
            seen.clone_from(&now);
            pending = plan(&seen);
            if step > 20 {
                let mean = now.iter().map(|load| load.open).sum::<u64>() / 8;
                let fullest = now.iter().map(|load| load.open).max().unwrap_or(0);
                assert!(fullest <= mean + mean / 20, "{step}: {now:?}");
            }
        }
        assert!(moved < 800, "{moved}");
    }
}
