//! PURE. Which workers pass how many of their connections to which, so that all have about as many.
//!
//! New connections are given to the workers that have the fewest, but clients that keep their connections make none. So
//! after scaling up or a restart, the workers that were there before would have all of them for ever.
//!
//! Nothing is moved as long as the fullest worker is within the hysteresis of the mean. Then each worker gets to the
//! mean, in steps of limited size, since new connections also change the numbers.
//!
//! As many connections need not be as much work: `activity.rs` has the other measure.
#![forbid(unsafe_code)]

use std::collections::VecDeque;

/// Moving begins when the fullest worker has this part more than the mean, and this number more at least.
const EXCESS_PART: u64 = 32;
const EXCESS_MIN: u64 = 2;

/// The maximum number of connections that one worker passes on in one step.
const MOVES_MAX: u64 = 16 * 1024;

/// What a worker has of something that is to be spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) slot: usize,
    /// How much it has, as it reports.
    pub(crate) has: u64,
    /// Whether it takes connections over.
    pub(crate) takes: bool,
}

/// A worker is to pass connections to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) selection: Selection,
}

/// Which of its connections a worker passes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Selection {
    /// This number, whichever they are.
    Any(u32),
    /// This many thousandths of those that have had a request lately.
    Busy(u32),
}

/// The moves of one step; none if the connections, which the workers have so many of, are balanced.
pub(crate) fn plan(loads: &[Load]) -> Vec<Move> {
    let Some((low, high)) = mean(loads) else { return Vec::new() };
    let fullest = loads.iter().map(|load| load.has).max().unwrap_or(0);
    if fullest < high.saturating_add((low / EXCESS_PART).max(EXCESS_MIN)) {
        return Vec::new();
    }
    let moves = level(loads, 1, MOVES_MAX).into_iter();
    moves
        .map(|it| Move {
            from: it.from,
            to: it.to,
            selection: Selection::Any(u32::try_from(it.count).unwrap_or(u32::MAX)),
        })
        .collect()
}

/// The mean, rounded down and up.
pub(crate) fn mean(loads: &[Load]) -> Option<(u64, u64)> {
    let total = loads.iter().fold(0_u64, |total, load| total.saturating_add(load.has));
    let count = u64::try_from(loads.len()).ok().filter(|count| *count > 0)?;
    Some((total / count, total.div_ceil(count)))
}

/// What passes from one worker to another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transfer {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) count: u64,
}

/// Who gives how much to whom so that nobody has more than the mean. Who has less than `least` too much gives nothing,
/// and nobody gives more than `most`.
pub(crate) fn level(loads: &[Load], least: u64, most: u64) -> Vec<Transfer> {
    let Some((low, high)) = mean(loads) else { return Vec::new() };
    // Everybody gets to the mean, rounded down, before somebody gets the one more that is left over.
    let room = |most: u64| loads.iter().filter(move |load| load.takes && load.has < most);
    let first = room(low).map(|load| (load.slot, low - load.has));
    let last = room(high).map(|load| (load.slot, high - load.has.max(low)));
    let mut empty: VecDeque<(usize, u64)> = first.chain(last.filter(|(_, room)| *room > 0)).collect();
    let mut full: Vec<&Load> = loads.iter().filter(|load| load.has >= high.saturating_add(least)).collect();
    full.sort_by_key(|load| std::cmp::Reverse(load.has));
    let mut transfers = Vec::new();
    for load in full {
        let mut surplus = (load.has - high).min(most);
        while surplus > 0 {
            let Some((to, room)) = empty.front_mut() else { return transfers };
            let count = surplus.min(*room);
            transfers.push(Transfer { from: load.slot, to: *to, count });
            surplus -= count;
            *room -= count;
            if *room == 0 {
                empty.pop_front();
            }
        }
    }
    transfers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::random::random_below;

    fn loads(open: &[u64]) -> Vec<Load> {
        open.iter().enumerate().map(|(slot, open)| Load { slot, has: *open, takes: true }).collect()
    }

    fn count(it: &Move) -> u64 {
        match it.selection {
            Selection::Any(count) => count.into(),
            Selection::Busy(_) => panic!("it knows nothing about requests"),
        }
    }

    /// What is left if all moves are made.
    fn after(loads: &mut [Load], moves: &[Move]) {
        for it in moves {
            loads[it.from].has -= count(it);
            loads[it.to].has += count(it);
        }
    }

    #[test]
    fn what_is_about_equal_stays() {
        for open in [&[][..], &[5], &[3, 3, 3], &[1, 0, 0, 0], &[3, 2, 2], &[1_030, 1_000, 1_000], &[0, 0], &[2, 1]] {
            assert_eq!(plan(&loads(open)), [], "{open:?}");
        }
        assert_eq!(plan(&loads(&[8, 0])), [Move { from: 0, to: 1, selection: Selection::Any(4) }]);
    }

    #[test]
    fn who_takes_none_gets_none_and_may_give() {
        let mut loads = loads(&[90, 0, 0]);
        loads[0].takes = false;
        loads[2].takes = false;
        assert_eq!(plan(&loads), [Move { from: 0, to: 1, selection: Selection::Any(30) }]);
    }

    #[test]
    fn impossible_reports_break_nothing() {
        let moves = plan(&loads(&[u64::MAX, u64::MAX, 0, 7]));
        assert!(moves.iter().all(|it| count(it) <= MOVES_MAX), "{moves:?}");
    }

    /// Any pool gets balanced within a few steps, and then nothing moves any more; nobody gets more than the mean.
    #[test]
    fn it_converges_and_does_not_oscillate() {
        let mut draw = random_below(5);
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
                    assert!(after.has <= before.has.max(high), "{before:?} {after:?}");
                }
                steps += 1;
                assert!(steps <= 8, "{open:?} {loads:?}");
            }
            let fullest = loads.iter().map(|load| load.has).max().expect("one at least");
            let bound = high + (high / EXCESS_PART).max(EXCESS_MIN);
            assert!(fullest <= bound, "{open:?} {loads:?}");
        }
    }

    /// Seeded runs of a pool as the parent drives it: clients come and go, workers too, and orders take several steps,
    /// of which reports tell a step late, and some moves are not made. The parent orders nothing while an order is
    /// under way. Whenever nothing has changed for a while, the pool is balanced, and in all few connections move in
    /// vain.
    #[test]
    fn a_changing_pool_stays_balanced_with_few_moves() {
        (0..40).for_each(simulate);
    }

    fn simulate(seed: u64) {
        let mut random = random_below(seed);
        let mut draw = move |below: u64| random(below.max(1));
        let each = [20, 300, 1_250][draw(3) as usize];
        let mut pool = loads(&[each * 8, 0, 0, 0, 0, 0, 0, 0]);
        let (mut orders, mut moved, mut allowed, mut calm) = (Vec::<(Move, u64)>::new(), 0, each * 8, 0);
        for step in 0..400 {
            // A part of each order, and in the end a few fewer than it says.
            for (it, left) in &mut orders {
                let (from, to) = (position(&pool, it.from), position(&pool, it.to));
                let (Some(from), Some(to)) = (from, to) else { continue };
                let selection = (*left).min(1 + draw(1_500)).min(pool[from].has);
                pool[from].has -= selection;
                pool[to].has += selection;
                moved += selection;
                *left = if draw(20) == 0 { 0 } else { *left - selection };
            }
            orders.retain(|(it, left)| {
                *left > 0
                    && position(&pool, it.from).is_some_and(|from| pool[from].has > 0)
                    && position(&pool, it.to).is_some()
            });
            // Clients come and go: about two in a hundred of them within 20 steps.
            for load in &mut pool {
                let noise = load.has / 1_000 + 1;
                load.has = load.has + draw(noise + 1) - draw(noise + 1).min(load.has);
            }
            calm += 1;
            if step % 100 == 99 {
                let total: u64 = pool.iter().map(|load| load.has).sum();
                match pool.len() {
                    // Its connections have passed to the first, as by a neighbour.
                    8 => pool[0].has += pool.pop().map_or(0, |load| load.has),
                    _ => pool.push(Load { slot: 7, has: 0, takes: true }),
                }
                (allowed, calm) = (allowed + total / 4, 0);
            }
            if orders.is_empty() {
                orders = plan(&pool).into_iter().map(|it| (it, count(&it))).collect();
            }
            let (fullest, mean) = (pool.iter().map(|load| load.has).max().unwrap_or(0), mean(&pool).expect("some").1);
            assert!(calm < 40 || fullest <= mean + (mean / 20).max(4), "{seed}, {step}: {pool:?}");
        }
        // Noise alone makes few moves.
        assert!(moved < allowed + each * 4, "{seed}: {moved} of {allowed}");
    }

    fn position(pool: &[Load], slot: usize) -> Option<usize> {
        pool.iter().position(|load| load.slot == slot)
    }
}
