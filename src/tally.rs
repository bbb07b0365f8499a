//! The tally: what a pool counts for its admin process only, in shared memory of its own: how long answers took, and
//! what each slot has counted over all its processes.
//!
//! As in the scoreboard, every word has one writer. What a dead process has counted is moved by the parent from its row
//! to its slot's and to the pool's; a reader that must not see it twice, or not at all, looks at a sequence number
//! before and after, which is odd while that happens.

use std::io;
use std::num::NonZeroUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{fence, AtomicU64, Ordering};

use crate::status::{bucket, Counters, Latency, BUCKETS};
use crate::sys::shared::SharedWords;

/// Words before the rest: the sequence number, and the highest row that was ever used. A cache line.
const HEAD_WORDS: usize = 8;
const SEQUENCE: usize = 0;
const HIGHEST: usize = 1;

/// Words of a process's latency: the buckets, then the sum, on cache lines of its own.
const LATENCY_WORDS: usize = (BUCKETS + 1).next_multiple_of(8);
const SUM: usize = BUCKETS;

/// Words of a slot: the counters.
const SLOT_WORDS: usize = 8;

/// How often a reader tries before it takes what it gets: the parent may have been stopped in between.
const TRIES: usize = 1000;

/// What a pool counts for its admin process.
#[derive(Debug)]
pub(crate) struct Tally {
    words: SharedWords,
    rows: usize,
}

// Behind the head: whose each row is, as one more than the slot; the slots; the rows, of which the first is the pool's.

impl Tally {
    /// For at most so many processes at once, in so many slots. Untouched rows cost no memory.
    pub(crate) fn new(processes: usize, slots: usize) -> io::Result<Tally> {
        let rows = processes + 1;
        let words = HEAD_WORDS + rows.next_multiple_of(8) + slots * SLOT_WORDS + rows * LATENCY_WORDS;
        Ok(Tally { words: SharedWords::new(NonZeroUsize::MIN.saturating_add(words))?, rows })
    }

    /// How long a process's answers took; the pool's dead ones' in row 0.
    pub(crate) fn latency(&self, row: usize) -> LatencyRow<'_> {
        let words = self.words.words();
        let start = words.len() - 1 - (self.rows - row) * LATENCY_WORDS;
        let words = words[start..].first_chunk().expect("each row has its words, up to the end");
        LatencyRow { words }
    }

    fn owner(&self, row: usize) -> &AtomicU64 {
        &self.words.words()[HEAD_WORDS + row]
    }

    fn slot(&self, slot: usize) -> &[AtomicU64] {
        let start = HEAD_WORDS + self.rows.next_multiple_of(8) + slot * SLOT_WORDS;
        &self.words.words()[start..start + SLOT_WORDS]
    }

    /// The row is a process's of this slot from now on. Runs in the parent.
    pub(crate) fn own(&self, row: usize, slot: usize) {
        self.owner(row).store(slot as u64 + 1, Relaxed);
        let highest = &self.words.words()[HIGHEST];
        highest.store(highest.load(Relaxed).max(row as u64), Relaxed);
    }

    /// The rows that are some process's, and its slot.
    pub(crate) fn owned(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let highest = self.words.words()[HIGHEST].load(Relaxed) as usize;
        let owner = |row| usize::try_from(self.owner(row).load(Relaxed)).ok()?.checked_sub(1);
        (1..=highest).filter_map(move |row| Some((row, owner(row)?)))
    }

    /// What the dead processes of a slot have counted.
    pub(crate) fn counters(&self, slot: usize) -> Counters {
        let words = self.slot(slot);
        let load = |index: usize| words[index].load(Relaxed);
        Counters {
            requests: load(0),
            accepted: load(1),
            closed: load(2),
            refused: load(3),
            panics: load(4),
            lost: load(5),
        }
    }

    /// Moves what the process of a row has counted to its slot and to the pool; `clear` does away with it elsewhere.
    /// Runs in the parent.
    pub(crate) fn fold(&self, row: usize, counters: &Counters, clear: impl FnOnce()) {
        let sequence = &self.words.words()[SEQUENCE];
        let before = sequence.load(Relaxed);
        sequence.store(before.wrapping_add(1), Relaxed);
        fence(Ordering::Release);
        let add = |word: &AtomicU64, count: u64| word.store(word.load(Relaxed).wrapping_add(count), Relaxed);
        if let Some(slot) = self.owner(row).load(Relaxed).checked_sub(1) {
            let counters = [
                counters.requests,
                counters.accepted,
                counters.closed,
                counters.refused,
                counters.panics,
                counters.lost,
            ];
            self.slot(slot as usize).iter().zip(counters).for_each(|(word, count)| add(word, count));
            for (pool, dead) in self.latency(0).words.iter().zip(self.latency(row).words) {
                add(pool, dead.swap(0, Relaxed));
            }
            self.owner(row).store(0, Relaxed);
        }
        clear();
        sequence.store(before.wrapping_add(2), Ordering::Release);
    }

    /// Reads while nothing is folded.
    pub(crate) fn steady<T>(&self, read: impl Fn() -> T) -> T {
        let sequence = &self.words.words()[SEQUENCE];
        for _ in 0..TRIES {
            let before = sequence.load(Ordering::Acquire);
            let found = read();
            fence(Ordering::Acquire);
            if before % 2 == 0 && sequence.load(Relaxed) == before {
                return found;
            }
            std::thread::yield_now();
        }
        read()
    }
}

/// How long one process's answers took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LatencyRow<'a> {
    words: &'a [AtomicU64; LATENCY_WORDS],
}

impl LatencyRow<'_> {
    /// Counts so many answers of so many microseconds each. Runs in the worker.
    #[inline]
    pub(crate) fn count(&self, answers: u64, micros: u64) {
        // Load and store, not a locked add: nobody else writes these words.
        let add = |index: usize, more: u64| {
            let word = &self.words[index];
            word.store(word.load(Relaxed).wrapping_add(more), Relaxed);
        };
        add(bucket(micros), answers);
        add(SUM, answers.wrapping_mul(micros));
    }

    pub(crate) fn read(&self) -> Latency {
        let mut latency = Latency { sum: self.words[SUM].load(Relaxed), ..Latency::default() };
        latency.buckets.iter_mut().zip(self.words).for_each(|(count, word)| *count = word.load(Relaxed));
        latency
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_outlives_the_process_and_the_row() {
        let tally = Tally::new(3, 2).expect("memory");
        tally.own(1, 1);
        tally.own(3, 0);
        tally.latency(1).count(2, 100);
        tally.latency(3).count(1, 7);
        assert_eq!(tally.owned().collect::<Vec<_>>(), [(1, 1), (3, 0)]);
        let counters = Counters { requests: 2, accepted: 1, closed: 1, refused: 4, panics: 5, lost: 6 };
        let mut is_cleared = false;
        tally.fold(1, &counters, || is_cleared = true);
        assert!(is_cleared);
        assert_eq!((tally.counters(1), tally.counters(0)), (counters, Counters::default()));
        assert_eq!((tally.latency(0).read().count(), tally.latency(0).read().sum), (2, 200));
        assert_eq!(tally.latency(1).read(), Latency::default());
        assert_eq!(tally.latency(3).read().count(), 1);
        assert_eq!(tally.owned().collect::<Vec<_>>(), [(3, 0)]);
        // A successor in the same row, of another slot.
        tally.own(1, 0);
        tally.fold(1, &counters, || {});
        assert_eq!((tally.counters(1), tally.counters(0)), (counters, counters));
    }

    #[test]
    fn a_reader_tries_again_when_something_was_folded_meanwhile() {
        let tally = Tally::new(1, 1).expect("memory");
        tally.own(1, 0);
        let reads = std::cell::Cell::new(0);
        let seen = tally.steady(|| {
            reads.set(reads.get() + 1);
            let before = tally.counters(0).requests;
            if reads.get() == 1 {
                tally.fold(1, &Counters { requests: 9, ..Counters::default() }, || {});
            }
            (before, tally.counters(0).requests)
        });
        assert_eq!((seen, reads.get()), ((9, 9), 2));
    }
}
