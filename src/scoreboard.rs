//! The scoreboard: what each worker is doing and has done, in memory shared by all processes of the pool.
//!
//! A row belongs to one *process*, not to a slot, since a slot may hold two at once (one serving, one replacing it).
//! Every word has one writer, so a plain store is enough to count; all accesses are `Relaxed`, since no word tells
//! anything about another one. When the parent reaps a process it folds the row into the pool's totals and hands the
//! row on, so totals never go back.

use std::io;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::sys::shared::SharedWords;
use crate::time::Time;

/// Words of a row: two cache lines, so that no two workers write to the same one.
const ROW_WORDS: usize = 16;

/// A word of a row.
#[derive(Clone, Copy, Debug)]
#[repr(usize)]
enum Word {
    /// When the worker left its wait and became busy, in milliseconds of the monotonic clock; zero while it is idle,
    /// so that an idle worker can never look stalled. Written by the worker.
    BusySince,
    /// Requests given to the handler. Written by the worker.
    Requests,
    /// Connections accepted. Written by the worker.
    Accepted,
    /// Connections closed. Written by the worker.
    Closed,
    /// Requests refused by the codec. Written by the worker.
    Refused,
    /// Handlers that panicked. Written by the worker.
    Panics,
    /// In the pool's row only: zero when the parent does not watch for stalls. Written by the parent, and by a worker
    /// that becomes busy.
    Watching,
}

/// The words that only grow, and are folded into the pool's row.
const COUNTERS: [Word; 5] = [Word::Requests, Word::Accepted, Word::Closed, Word::Refused, Word::Panics];

/// The rows of a pool. Row 0 is the pool's own.
#[derive(Debug)]
pub(crate) struct Scoreboard {
    words: SharedWords,
    rows: usize,
}

impl Scoreboard {
    /// A scoreboard for at most `processes` at once. Untouched rows cost no memory.
    pub(crate) fn new(processes: usize) -> io::Result<Scoreboard> {
        let rows = processes + 1;
        let words = NonZeroUsize::new(rows * ROW_WORDS).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Scoreboard { words: SharedWords::new(words)?, rows })
    }

    /// How many rows for processes there are; they are numbered from 1.
    pub(crate) fn processes(&self) -> usize {
        self.rows - 1
    }

    pub(crate) fn row(&self, row: usize) -> Row<'_> {
        let start = row * ROW_WORDS;
        Row { words: &self.words.words()[start..start + ROW_WORDS] }
    }

    /// Adds the counters of a dead process to the pool's and clears its row for the next. Runs in the parent.
    pub(crate) fn fold(&self, row: usize) {
        let (dead, pool) = (self.row(row), self.row(0));
        for counter in COUNTERS {
            pool.add(counter, dead.load(counter));
        }
        for word in dead.words {
            word.store(0, Relaxed);
        }
    }

    /// Whether the parent looks for stalled workers. One load, for the worker's every turn.
    pub(crate) fn is_watched(&self) -> bool {
        self.row(0).load(Word::Watching) != 0
    }

    /// Sets whether the parent looks for stalled workers; returns what was set before.
    pub(crate) fn watch(&self, on: bool) -> bool {
        self.row(0).word(Word::Watching).swap(u64::from(on), Relaxed) != 0
    }
}

/// One process's row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a> {
    words: &'a [AtomicU64],
}

impl Row<'_> {
    /// The worker leaves its wait. Runs in the worker.
    pub(crate) fn busy(&self, now: Time) {
        self.word(Word::BusySince).store(now.as_millis(), Relaxed);
    }

    /// The worker is about to wait. Runs in the worker.
    pub(crate) fn idle(&self) {
        self.word(Word::BusySince).store(0, Relaxed);
    }

    /// Since when the worker has been busy.
    pub(crate) fn busy_since(&self) -> Option<Time> {
        match self.load(Word::BusySince) {
            0 => None,
            millis => Some(Time::from_millis(millis)),
        }
    }

    pub(crate) fn count_request(&self) {
        self.add(Word::Requests, 1);
    }

    pub(crate) fn count_accepted(&self) {
        self.add(Word::Accepted, 1);
    }

    pub(crate) fn count_closed(&self) {
        self.add(Word::Closed, 1);
    }

    pub(crate) fn count_refused(&self) {
        self.add(Word::Refused, 1);
    }

    pub(crate) fn count_panic(&self) {
        self.add(Word::Panics, 1);
    }

    pub(crate) fn requests(&self) -> u64 {
        self.load(Word::Requests)
    }

    pub(crate) fn accepted(&self) -> u64 {
        self.load(Word::Accepted)
    }

    fn word(&self, word: Word) -> &AtomicU64 {
        &self.words[word as usize]
    }

    fn load(&self, word: Word) -> u64 {
        self.word(word).load(Relaxed)
    }

    /// Load and store, not a locked add: nobody else writes this word.
    fn add(&self, word: Word, count: u64) {
        let word = self.word(word);
        word.store(word.load(Relaxed).wrapping_add(count), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_survive_the_worker() {
        let board = Scoreboard::new(2).expect("memory");
        board.row(1).count_request();
        board.row(1).count_request();
        board.row(2).count_request();
        board.row(1).busy(Time::from_millis(7));
        board.fold(1);
        assert_eq!(board.row(0).requests(), 2);
        assert_eq!(board.row(1).requests(), 0);
        assert_eq!(board.row(1).busy_since(), None);
        assert_eq!(board.row(2).requests(), 1);
        board.fold(2);
        assert_eq!(board.row(0).requests(), 3);
    }

    #[test]
    fn the_first_to_wake_the_parent_knows_it() {
        let board = Scoreboard::new(1).expect("memory");
        assert!(!board.is_watched());
        assert!(!board.watch(true));
        assert!(board.is_watched());
        assert!(board.watch(true));
        board.watch(false);
        assert!(!board.is_watched());
    }
}
