//! PURE. Which connection gives up its place when all are taken: the one that has been idle longest.
//!
//! Nothing is tracked while there are places, so a request costs nothing here. At the limit all connections are
//! examined once, and the best candidates serve for the next new connections, as far as they have stayed idle.
#![forbid(unsafe_code)]

use std::collections::BinaryHeap;
use std::time::Duration;

use crate::time::Time;

/// The number of candidates from one examination of all connections.
const CANDIDATES: usize = 256;

/// A connection that has been idle for less stays, since its client may be about to send the next request.
const IDLE_MIN: Duration = Duration::from_millis(10);

/// The minimum interval between two examinations if the first has found no candidate.
const EXAMINE_INTERVAL: Duration = Duration::from_millis(10);

/// An idle connection. The least goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Idle {
    /// Whether it has not sent any of its first request. That may be on its way, so such a connection goes after those
    /// that are kept alive, whose clients expect them to end.
    pub(crate) is_new: bool,
    pub(crate) since: Time,
    pub(crate) index: usize,
    /// Distinguishes successive connections in one place.
    pub(crate) serial: u32,
}

/// Which connection goes next.
#[derive(Debug, Default)]
pub(crate) struct Eviction {
    /// The first to go is the last.
    candidates: Vec<Idle>,
    /// When to look for candidates again.
    due: Time,
    /// How many times in a row waiting connections were left to other workers.
    yielded: u32,
}

/// How many times in a row waiting connections are left to other workers that report free places.
const YIELDS: u32 = 10;

impl Eviction {
    /// When there may be a candidate.
    pub(crate) fn due(&self) -> Time {
        self.due
    }

    /// The first candidate. Call [`drop_first`](Eviction::drop_first) if it is not idle any more.
    pub(crate) fn first(&self) -> Option<Idle> {
        self.candidates.last().copied()
    }

    pub(crate) fn drop_first(&mut self) {
        self.candidates.pop();
    }

    /// Whether it is time to [`note`](Eviction::note) the idle connections.
    pub(crate) fn is_due(&self, now: Time) -> bool {
        self.due <= now
    }

    /// Notes the best of the idle connections among `count` connections.
    pub(crate) fn note(&mut self, idle: impl Iterator<Item = Idle>, count: usize, now: Time) {
        let mut best = BinaryHeap::with_capacity(CANDIDATES + 1);
        let mut next = None;
        for idle in idle {
            let ripe = idle.since + IDLE_MIN;
            if ripe > now {
                next = Some(next.map_or(ripe, |next: Time| next.min(ripe)));
            } else if best.len() < CANDIDATES {
                best.push(idle);
            } else if best.peek().is_some_and(|worst| idle < *worst) {
                best.pop();
                best.push(idle);
            }
        }
        self.candidates = best.into_sorted_vec();
        self.candidates.reverse();
        if self.candidates.is_empty() {
            // The more connections to examine, the less often.
            let rest = now + EXAMINE_INTERVAL + Duration::from_micros(count as u64);
            self.due = next.map_or(rest, |next| next.min(rest));
        }
    }

    /// Whether to leave waiting connections to other workers once more, instead of making room for them.
    pub(crate) fn yields(&mut self) -> bool {
        self.yielded = (self.yielded + 1) % (YIELDS + 1);
        self.yielded != 0
    }

    /// Nothing waits any more that was left to other workers.
    pub(crate) fn reset(&mut self) {
        self.yielded = 0;
    }

    /// Postpones the next examination until `due`.
    pub(crate) fn pause(&mut self, due: Time) {
        self.due = due;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::random::random_below;

    const NOW: Time = Time::from_millis(100_000);

    fn idle(is_new: bool, since: u64, index: usize) -> Idle {
        Idle { is_new, since: Time::from_millis(since), index, serial: 0 }
    }

    fn order(eviction: &mut Eviction) -> Vec<usize> {
        std::iter::from_fn(|| {
            let first = eviction.first()?;
            eviction.drop_first();
            Some(first.index)
        })
        .collect()
    }

    #[test]
    fn the_longest_idle_go_first_and_new_ones_last() {
        let mut eviction = Eviction::default();
        let all = [idle(true, 1, 0), idle(false, 30, 1), idle(false, 20, 2), idle(true, 2, 3), idle(false, 99_995, 4)];
        eviction.note(all.into_iter(), all.len(), NOW);
        assert_eq!(order(&mut eviction), [2, 1, 0, 3], "the last has not been idle for long enough");
    }

    #[test]
    fn the_best_of_many_are_noted() {
        let mut eviction = Eviction::default();
        let all = (0..10_000_usize).map(|index| idle(false, (index as u64 * 7_919) % 10_000, index));
        eviction.note(all, 10_000, NOW);
        let order = order(&mut eviction);
        assert_eq!(order.len(), CANDIDATES);
        let expected: Vec<usize> =
            (0..256).map(|since| (0..10_000).find(|i| (i * 7_919) % 10_000 == since).expect("one")).collect();
        assert_eq!(order, expected);
    }

    #[test]
    fn others_that_take_nothing_are_not_waited_for_without_end() {
        let mut eviction = Eviction::default();
        let made_room = (0..110).filter(|_| !eviction.yields()).count();
        assert_eq!(made_room, 10);
    }

    #[test]
    fn where_nobody_can_go_it_rests() {
        let mut eviction = Eviction::default();
        assert!(eviction.is_due(NOW));
        eviction.note(std::iter::empty(), 1_000_000, NOW);
        assert!(eviction.first().is_none());
        assert!(!eviction.is_due(NOW + EXAMINE_INTERVAL), "so many are not looked at all the time");
        eviction.note(std::iter::empty(), 60, NOW);
        assert!(eviction.is_due(NOW + EXAMINE_INTERVAL));
        let young = idle(false, NOW.as_millis() - 8, 0);
        eviction.note([young].into_iter(), 60, NOW);
        assert_eq!(eviction.due(), NOW + Duration::from_millis(2), "as soon as that one has been idle for long enough");
    }

    #[test]
    fn of_any_connections_the_candidates_are_the_first_in_order() {
        for seed in 1..=200_u64 {
            let mut below = random_below(seed);
            let (count, spread) = (below(3 * CANDIDATES as u64) as usize, 1 + below(40));
            let all: Vec<Idle> =
                (0..count).map(|index| idle(below(3) == 0, NOW.as_millis() - below(spread), index)).collect();
            let mut eviction = Eviction::default();
            eviction.note(all.iter().copied(), count, NOW);
            let (mut ripe, young): (Vec<Idle>, Vec<Idle>) = all.iter().partition(|idle| idle.since + IDLE_MIN <= NOW);
            ripe.sort_unstable();
            let expected: Vec<usize> = ripe.iter().take(CANDIDATES).map(|idle| idle.index).collect();
            let next = young.iter().map(|idle| idle.since + IDLE_MIN).min();
            assert!(next.is_none_or(|next| eviction.due() <= next), "it may go then, seed {seed}");
            assert_eq!(eviction.is_due(NOW), !expected.is_empty(), "seed {seed}");
            assert_eq!(order(&mut eviction), expected, "seed {seed}");
        }
    }
}
