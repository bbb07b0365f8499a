//! The tally: counters that only the admin process needs. It has the totals of each slot over all its dead processes,
//! and the latencies and the application's metrics of the dead.
//!
//! Only the parent writes it. It moves the counters of a dead process from its row to its slot. A reader must see them
//! exactly once, so it checks a sequence number before and after reading, which is odd during the move.

use std::io;
use std::num::NonZeroUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{fence, AtomicU64, Ordering};

use super::row::{LatencyRow, LATENCY_WORDS};
use crate::shared::counters::{Counters, CLASSES, HANDSHAKES};
use crate::shared::latency::{Latency, BUCKETS};
use crate::shared::metrics::{Kind, METRIC_WORDS};
use crate::sys::shared::{self, ReadOnly, Writable};

/// The first words: the sequence number, and the highest row ever used. A cache line.
const HEAD_WORDS: usize = 8;
const SEQUENCE: usize = 0;
const HIGHEST: usize = 1;

/// The words of a slot: its counters.
const SLOT_WORDS: usize = 32;

const _: () = assert!(10 + CLASSES + HANDSHAKES <= SLOT_WORDS);

/// How many times a reader tries before it accepts what it gets, and after how many tries it lets others run. The
/// parent may have been stopped during a move.
const TRIES: usize = 100;
const TRIES_AT_ONCE: usize = 10;

// After the first words: the latencies of the dead, their metrics, then the owner of each row as its slot plus one,
// then the slots.
const DEAD: usize = HEAD_WORDS;
const METRICS: usize = HEAD_WORDS + LATENCY_WORDS;
const OWNERS: usize = METRICS + METRIC_WORDS;

/// The tally, for readers.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    words: ReadOnly,
    rows: usize,
}

/// The tally in the parent, which writes it.
#[derive(Debug)]
pub(super) struct ParentTally {
    words: Writable,
    tally: Tally,
    /// Of the application's metrics.
    kinds: Vec<Kind>,
}

impl Tally {
    fn word(&self, index: usize) -> u64 {
        self.words.words().get(index).map_or(0, |word| word.load(Relaxed))
    }

    fn slot(&self, slot: usize) -> usize {
        slot.saturating_mul(SLOT_WORDS).saturating_add(OWNERS + self.rows.next_multiple_of(8))
    }

    /// The latencies of dead processes.
    pub(crate) fn latency(&self) -> Latency {
        let words = self.words.words()[DEAD..].first_chunk();
        words.map(|words| LatencyRow { words }.read(u64::MAX)).unwrap_or_default()
    }

    /// The words of the application's metrics of dead processes.
    pub(crate) fn metrics(&self) -> Vec<u64> {
        (METRICS..METRICS + METRIC_WORDS).map(|index| self.word(index)).collect()
    }

    /// The rows in use, each with its slot.
    pub(crate) fn owned(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let highest = usize::try_from(self.word(HIGHEST)).unwrap_or(usize::MAX).min(self.rows - 1);
        let owner = |row| usize::try_from(self.word(OWNERS + row)).ok()?.checked_sub(1);
        (1..=highest).filter_map(move |row| Some((row, owner(row)?)))
    }

    /// The counters of the dead processes of a slot.
    pub(crate) fn counters(&self, slot: usize) -> Counters {
        let load = |index: usize| self.word(self.slot(slot).saturating_add(index));
        Counters {
            requests: load(0),
            accepted: load(1),
            closed: load(2),
            refused: load(3),
            panics: load(4),
            lost: load(5),
            sent: load(6),
            responses: std::array::from_fn(|class| load(7 + class)),
            taken: load(7 + CLASSES),
            handed: load(8 + CLASSES),
            discarded: load(9 + CLASSES),
            handshakes: std::array::from_fn(|way| load(10 + CLASSES + way)),
        }
    }

    /// Reads at a time when nothing is moved.
    pub(crate) fn steady<T>(&self, read: impl Fn() -> T) -> T {
        let sequence = &self.words.words()[SEQUENCE];
        for attempt in 1..=TRIES {
            let before = sequence.load(Ordering::Acquire);
            let found = read();
            fence(Ordering::Acquire);
            if before % 2 == 0 && sequence.load(Relaxed) == before {
                return found;
            }
            match attempt % TRIES_AT_ONCE {
                0 => std::thread::yield_now(),
                _ => std::hint::spin_loop(),
            }
        }
        read()
    }
}

impl ParentTally {
    /// Makes a tally for this number of processes at once, and of slots. Untouched rows take no memory.
    pub(super) fn new(processes: usize, slots: usize, kinds: Vec<Kind>) -> io::Result<ParentTally> {
        let rows = processes + 1;
        let words = OWNERS + rows.next_multiple_of(8) + slots * SLOT_WORDS;
        let (words, read_only) = shared::words(c"forkpool-tally", NonZeroUsize::MIN.saturating_add(words))?;
        Ok(ParentTally { words, tally: Tally { words: read_only, rows }, kinds })
    }

    pub(super) fn reader(&self) -> &Tally {
        &self.tally
    }

    #[cfg(test)]
    pub(super) fn fill(&self, number: &mut dyn FnMut() -> u64) {
        self.words.words().iter().for_each(|word| word.store(number(), Relaxed));
    }

    /// Assigns a row to a process of this slot.
    pub(super) fn own(&self, row: usize, slot: usize) {
        let words = self.words.words();
        if row >= self.tally.rows {
            return;
        }
        words[OWNERS + row].store(slot as u64 + 1, Relaxed);
        words[HIGHEST].store(words[HIGHEST].load(Relaxed).max(row as u64), Relaxed);
    }

    /// Moves the counters of a process to its slot, and its latencies and metrics to those of the dead. `clear` removes
    /// them elsewhere.
    pub(super) fn fold(
        &self,
        row: usize,
        counters: &Counters,
        latency: &Latency,
        metrics: &[u64],
        clear: impl FnOnce(),
    ) {
        let words = self.words.words();
        let before = words[SEQUENCE].load(Relaxed);
        words[SEQUENCE].store(before.wrapping_add(1), Relaxed);
        fence(Ordering::Release);
        let add = |word: &AtomicU64, count: u64| word.store(word.load(Relaxed).saturating_add(count), Relaxed);
        let owner = words.get(OWNERS + row).filter(|_| row < self.tally.rows);
        if let Some(slot) = owner.and_then(|owner| owner.swap(0, Relaxed).checked_sub(1)) {
            let Counters { requests, accepted, closed, refused, panics, lost, sent, responses, .. } = *counters;
            let Counters { taken, handed, discarded, handshakes, .. } = *counters;
            let counters = [requests, accepted, closed, refused, panics, lost, sent].into_iter().chain(responses);
            let counters = counters.chain([taken, handed, discarded]).chain(handshakes);
            let slot = words.get(self.tally.slot(slot as usize)..).unwrap_or_default();
            slot.iter().zip(counters).for_each(|(word, count)| add(word, count));
            words[DEAD..].iter().zip(latency.buckets).for_each(|(word, count)| add(word, count));
            add(&words[DEAD + BUCKETS], latency.sum);
            for ((word, kind), value) in words[METRICS..].iter().zip(&self.kinds).zip(metrics) {
                if kind.is_lasting() {
                    word.store(kind.combine(word.load(Relaxed), *value), Relaxed);
                }
            }
        }
        clear();
        words[SEQUENCE].store(before.wrapping_add(2), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn took(answers: u64, micros: u64) -> Latency {
        let mut latency = Latency { sum: answers * micros, ..Latency::default() };
        latency.buckets[crate::shared::latency::bucket(micros)] = answers;
        latency
    }

    #[test]
    fn what_was_counted_outlives_the_process_and_the_row() {
        let parent = ParentTally::new(3, 2, vec![Kind::Count, Kind::Gauge]).expect("memory");
        let tally = parent.reader();
        parent.own(1, 1);
        parent.own(3, 0);
        assert_eq!(tally.owned().collect::<Vec<_>>(), [(1, 1), (3, 0)]);
        let counters = Counters {
            requests: 2,
            accepted: 1,
            closed: 1,
            refused: 4,
            panics: 5,
            lost: 6,
            sent: 7,
            responses: [8, 9, 10, 11, 12],
            taken: 13,
            handed: 14,
            discarded: 15,
            handshakes: [16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26],
        };
        let mut is_cleared = false;
        parent.fold(1, &counters, &took(2, 100), &[7, 8, 9], || is_cleared = true);
        assert!(is_cleared);
        assert_eq!((tally.counters(1), tally.counters(0)), (counters, Counters::default()));
        assert_eq!((tally.latency().count(), tally.latency().sum), (2, 200));
        assert_eq!(tally.owned().collect::<Vec<_>>(), [(3, 0)]);
        // The next process in the same row, for another slot.
        parent.own(1, 0);
        parent.fold(1, &counters, &took(1, 7), &[1, 2], || {});
        // Counters outlive their process, gauges do not.
        assert_eq!(tally.metrics()[..3], [8, 0, 0]);
        assert_eq!((tally.counters(1), tally.counters(0)), (counters, counters));
        assert_eq!((tally.latency().count(), tally.latency().sum), (3, 207));
    }

    #[test]
    fn a_reader_tries_again_when_something_was_folded_meanwhile() {
        let parent = ParentTally::new(1, 1, Vec::new()).expect("memory");
        let tally = parent.reader();
        parent.own(1, 0);
        let reads = std::cell::Cell::new(0);
        let seen = tally.steady(|| {
            reads.set(reads.get() + 1);
            let before = tally.counters(0).requests;
            if reads.get() == 1 {
                parent.fold(1, &Counters { requests: 9, ..Counters::default() }, &Latency::default(), &[], || {});
            }
            (before, tally.counters(0).requests)
        });
        assert_eq!((seen, reads.get()), ((9, 9), 2));
    }
}
