//! The scoreboard: what each worker is doing and has done, in memory shared by all processes of the pool.
//!
//! A row belongs to one *process*, not to a slot, since a slot may hold two at once (one serving, one replacing it).
//! Nearly every word has one writer, so a plain store is enough to count; all accesses are `Relaxed`, since no word
//! tells anything about another one. When the parent reaps a process it folds the row into the pool's totals and hands
//! the row on, so totals never go back.

use std::io;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::status::Counters;
use crate::steer::{Layout, Seats, SEATS_MAX};
use crate::sys::bpf::Memory;
use crate::sys::shared::SharedWords;
use crate::tally::Tally;
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
    /// Lines of logs that could not be written. Written by the worker.
    LostLines,
    /// How often the application has said that it gets on with a long request. Written by the worker.
    Progress,
    /// It is to be given no more connections: it has as many as it may have, or leaves them in its queue. Written by the
    /// worker, or, where that runs a server of its own, by the parent.
    Full,
    /// Connections that the kernel has given it. Written by the kernel's program.
    Assigned,
    /// How many of those have been accepted, or will never come. Written by the worker and those that look after its
    /// queue, or, where it runs a server of its own, by the parent.
    Settled,
    /// It runs a server of its own that says when it is busy. Written by the worker.
    Metered,
    /// It runs the built-in server, which looks after other slots' sockets when asked. Written by the worker.
    Watches,
    /// In the pool's row only: zero when the parent does not watch for stalls. Written by the parent, and by a worker
    /// that becomes busy.
    Watching,
    /// In the pool's row only: which program is attached, see [`Scoreboard::steers`]. Written by the parent, and by a
    /// worker whose program was refused.
    Steers,
    /// In the pool's row only: who attaches a program at the moment, as one more than its row. Written by whoever wants
    /// to.
    SteeringLock,
}

/// The words that only grow, and are folded into the pool's row.
const COUNTERS: [Word; 6] =
    [Word::Requests, Word::Accepted, Word::Closed, Word::Refused, Word::Panics, Word::LostLines];

/// The rows of a pool. Row 0 is the pool's own.
#[derive(Debug)]
pub(crate) struct Scoreboard {
    words: SharedWords,
    rows: usize,
    /// Where there is an admin process.
    tally: Option<Tally>,
}

/// Behind the rows: which seats the kernel has been told to choose from.
const STEERED_WORDS: usize = SEATS_MAX / 64;

// Behind those, to the end: how many seats the group has, and each of them, in the order of the kernel's indexes, as the
// slot in the upper half and, in the lower, the row of the process that serves it.

impl Scoreboard {
    /// A scoreboard for at most `processes` at once. Untouched rows cost no memory.
    pub(crate) fn new(processes: usize) -> io::Result<Scoreboard> {
        Ok(Scoreboard { words: SharedWords::new(Scoreboard::len(processes))?, rows: processes + 1, tally: None })
    }

    /// The same in memory that the kernel's programs see too, of [`len`](Scoreboard::len) words.
    pub(crate) fn in_memory(processes: usize, memory: &Memory) -> io::Result<Scoreboard> {
        Ok(Scoreboard { words: SharedWords::map(memory)?, rows: processes + 1, tally: None })
    }

    /// Keeps a tally too, for so many slots.
    pub(crate) fn keep_tally(&mut self, slots: usize) -> io::Result<()> {
        self.tally = Some(Tally::new(self.processes(), slots)?);
        Ok(())
    }

    pub(crate) fn tally(&self) -> Option<&Tally> {
        self.tally.as_ref()
    }

    /// How many words that takes.
    pub(crate) fn len(processes: usize) -> NonZeroUsize {
        let words = (processes + 1) * ROW_WORDS + STEERED_WORDS + SEATS_MAX;
        // At least for the number of seats.
        NonZeroUsize::MIN.saturating_add(words)
    }

    /// Where a kernel's program finds what it needs.
    pub(crate) fn layout(processes: usize) -> Layout {
        Layout {
            row_words: ROW_WORDS,
            busy_since: Word::BusySince as usize,
            accepted: Word::Accepted as usize,
            closed: Word::Closed as usize,
            full: Word::Full as usize,
            settled: Word::Settled as usize,
            assigned: Word::Assigned as usize,
            group: (processes + 1) * ROW_WORDS + STEERED_WORDS,
        }
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
        let clear = || dead.words.iter().for_each(|word| word.store(0, Relaxed));
        match &self.tally {
            Some(tally) => tally.fold(row, &dead.counters(), clear),
            None => clear(),
        }
        self.release_steering(row);
    }

    fn beyond_rows(&self, offset: usize, len: usize) -> &[AtomicU64] {
        let start = self.rows * ROW_WORDS + offset;
        &self.words.words()[start..start + len]
    }

    /// The row of the process that serves each seat; 0 where none does.
    pub(crate) fn seats(&self) -> impl Iterator<Item = usize> + '_ {
        self.taken_seats().map(|(_, row)| row)
    }

    /// The slot on each seat.
    pub(crate) fn slots(&self) -> impl Iterator<Item = usize> + '_ {
        self.taken_seats().map(|(slot, _)| slot)
    }

    /// Each seat's slot, and the row of the process that serves it.
    fn taken_seats(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let table = self.beyond_rows(STEERED_WORDS, 1 + SEATS_MAX);
        let count = (table[0].load(Relaxed) as usize).min(SEATS_MAX);
        table[1..=count].iter().map(|seat| {
            let seat = seat.load(Relaxed);
            ((seat >> 32) as usize, seat as u32 as usize)
        })
    }

    /// The row of the process that serves a slot.
    pub(crate) fn row_of(&self, slot: usize) -> Option<usize> {
        self.taken_seats().find(|(it, row)| *it == slot && *row != 0).map(|(_, row)| row)
    }

    /// Settles what the kernel had given to idle workers when `seen` was returned and what has not come since, nor will:
    /// nothing wakes them, so they cannot do it. Leaves out `own`. Returns what there is to be seen by now.
    pub(crate) fn settle_idle(&self, own: usize, seen: &[Seen]) -> Vec<Seen> {
        for then in seen.iter().filter(|then| then.row != own) {
            let row = self.row(then.row);
            if row.is_neighbour() && row.busy_since().is_none() && row.accepted() == then.accepted {
                row.settle(then.pending.min(row.pending()));
            }
        }
        let rows = self.seats().filter(|row| *row != 0).map(|row| (row, self.row(row)));
        rows.map(|(row, it)| Seen { row, accepted: it.accepted(), pending: it.pending() }).collect()
    }

    /// Says who serves each seat: slots and rows. Runs in the parent.
    pub(crate) fn seat(&self, seats: &[(usize, usize)]) {
        let table = self.beyond_rows(STEERED_WORDS, 1 + SEATS_MAX);
        for (word, (slot, row)) in table[1..].iter().zip(seats) {
            word.store((*slot as u64) << 32 | *row as u64, Relaxed);
        }
        table[0].store(seats.len().min(SEATS_MAX) as u64, Relaxed);
    }

    /// Which seats the kernel has been told to choose from; none before it has been told anything.
    pub(crate) fn steered(&self) -> Seats {
        let words = self.beyond_rows(0, STEERED_WORDS);
        Seats::from_words(std::array::from_fn(|index| words[index].load(Relaxed)))
    }

    /// Which program the kernel is to be told about by whoever sees that it should choose otherwise: a number that
    /// [`crate::steer`] knows, 0 for none.
    pub(crate) fn steers(&self) -> u64 {
        self.row(0).load(Word::Steers)
    }

    pub(crate) fn set_steers(&self, program: u64) {
        self.row(0).word(Word::Steers).store(program, Relaxed);
    }

    /// Takes the lock for attaching a program, for the process of row `who`; false when another one has it. It is never
    /// waited for: whoever has it does what is to be done. One whose holder stalls can be taken from it.
    pub(crate) fn lock_steering(&self, who: usize, now: Time) -> bool {
        let pool = self.row(0);
        let lock = pool.word(Word::SteeringLock);
        let holder = lock.load(Relaxed);
        let is_free = match usize::try_from(holder) {
            Ok(0) | Err(_) => true,
            Ok(holder) => self.row(holder - 1).busy_since().is_some_and(|since| now.since(since) > LOCK_LOST),
        };
        is_free && lock.compare_exchange(holder, who as u64 + 1, Relaxed, Relaxed).is_ok()
    }

    /// Gives the lock back and notes what was attached. Who lost the lock meanwhile notes that nothing is certain, so
    /// that the next look attaches again.
    pub(crate) fn unlock_steering(&self, who: usize, attached: Option<&Seats>) {
        let pool = self.row(0);
        let lock = pool.word(Word::SteeringLock);
        let kept = lock.load(Relaxed) == who as u64 + 1;
        let nothing = Seats::default();
        let steered = attached.filter(|_| kept).unwrap_or(&nothing);
        for (word, seats) in self.beyond_rows(0, STEERED_WORDS).iter().zip(steered.words()) {
            word.store(*seats, Relaxed);
        }
        self.release_steering(who);
    }

    /// Forgets what the kernel has been told: the next look attaches again. Runs in the parent.
    pub(crate) fn doubt_steering(&self) {
        self.beyond_rows(0, STEERED_WORDS).iter().for_each(|word| word.store(0, Relaxed));
    }

    /// Gives the lock back if the process of row `who` has it, which may have died with it.
    fn release_steering(&self, who: usize) {
        // Somebody else's is left alone.
        let _ = self.row(0).word(Word::SteeringLock).compare_exchange(who as u64 + 1, 0, Relaxed, Relaxed);
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

/// Attaching takes microseconds.
const LOCK_LOST: Duration = Duration::from_millis(50);

/// What a worker had been given, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    row: usize,
    accepted: u64,
    pending: i64,
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

    pub(crate) fn set_full(&self, is_full: bool) {
        self.word(Word::Full).store(u64::from(is_full), Relaxed);
    }

    pub(crate) fn is_full(&self) -> bool {
        self.load(Word::Full) != 0
    }

    /// The worker says when it is busy. Runs in the worker.
    pub(crate) fn set_metered(&self) {
        self.word(Word::Metered).store(1, Relaxed);
    }

    /// Whether the worker says when it is busy.
    pub(crate) fn says_busy(&self) -> bool {
        self.load(Word::Metered) != 0
    }

    /// As `count_request`, for workers in which several threads count.
    pub(crate) fn add_request(&self) {
        self.word(Word::Requests).fetch_add(1, Relaxed);
    }

    pub(crate) fn add_accepted(&self) {
        self.word(Word::Accepted).fetch_add(1, Relaxed);
    }

    pub(crate) fn add_closed(&self) {
        self.word(Word::Closed).fetch_add(1, Relaxed);
    }

    /// The worker looks after other slots' sockets when asked. Runs in the worker.
    pub(crate) fn watches(&self) {
        self.word(Word::Watches).store(1, Relaxed);
    }

    pub(crate) fn is_neighbour(&self) -> bool {
        self.load(Word::Watches) != 0
    }

    pub(crate) fn count_request(&self) {
        self.add(Word::Requests, 1);
    }

    pub(crate) fn count_accepted(&self) {
        self.add(Word::Accepted, 1);
    }

    /// A connection that the kernel gave this worker was accepted: by it, or by a neighbour at the same time.
    pub(crate) fn count_settled(&self) {
        self.word(Word::Settled).fetch_add(1, Relaxed);
    }

    fn assigned(&self) -> u64 {
        self.load(Word::Assigned)
    }

    /// Everything that was assigned has come, or will not. Runs in the parent, for workers with a server of their own.
    pub(crate) fn settle_all(&self) {
        self.word(Word::Settled).store(self.assigned(), Relaxed);
    }

    /// How many connections the kernel has given to this worker and nobody has accepted: on their way, or never to come.
    /// Less than nothing when some came that it had given to a predecessor.
    pub(crate) fn pending(&self) -> i64 {
        self.assigned().wrapping_sub(self.load(Word::Settled)) as i64
    }

    /// So many of the pending will not come.
    pub(crate) fn settle(&self, count: i64) {
        self.word(Word::Settled).fetch_add(count as u64, Relaxed);
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

    /// Any thread may log.
    pub(crate) fn count_lost(&self, lines: u64) {
        self.word(Word::LostLines).fetch_add(lines, Relaxed);
    }

    pub(crate) fn count_progress(&self) {
        self.add(Word::Progress, 1);
    }

    /// A number that changes when the worker does something.
    pub(crate) fn progress(&self) -> u64 {
        self.load(Word::Requests).wrapping_add(self.load(Word::Progress))
    }

    pub(crate) fn requests(&self) -> u64 {
        self.load(Word::Requests)
    }

    pub(crate) fn closed(&self) -> u64 {
        self.load(Word::Closed)
    }

    pub(crate) fn accepted(&self) -> u64 {
        self.load(Word::Accepted)
    }

    pub(crate) fn open(&self) -> u64 {
        self.accepted().saturating_sub(self.load(Word::Closed))
    }

    pub(crate) fn counters(&self) -> Counters {
        Counters {
            requests: self.requests(),
            accepted: self.accepted(),
            closed: self.closed(),
            refused: self.load(Word::Refused),
            panics: self.load(Word::Panics),
            lost: self.load(Word::LostLines),
        }
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
    fn the_steering_lock_outlives_nobody() {
        let board = Scoreboard::new(2).expect("memory");
        let now = Time::from_millis(1_000);
        let mut first = Seats::default();
        first.insert(0);
        assert!(board.lock_steering(1, now));
        assert!(!board.lock_steering(2, now));
        board.unlock_steering(1, Some(&first));
        assert_eq!(board.steered(), first);
        assert!(board.lock_steering(2, now));
        // It dies with the lock, and is reaped.
        board.fold(2);
        assert!(board.lock_steering(1, now));
        // It stalls with the lock: another takes it, and what the first one attaches late counts for nothing.
        board.row(1).busy(now);
        let later = Time::from_millis(1_100);
        assert!(board.lock_steering(0, later));
        board.unlock_steering(1, Some(&first));
        assert_eq!(board.steered(), Seats::default());
        assert!(!board.lock_steering(2, later));
        board.unlock_steering(0, Some(&first));
        assert_eq!(board.steered(), first);
    }

    #[test]
    fn an_idle_worker_is_settled_by_another() {
        let board = Scoreboard::new(3).expect("memory");
        board.seat(&[(0, 1), (1, 2), (2, 3)]);
        (1..=3).for_each(|row| board.row(row).watches());
        let seen = board.settle_idle(1, &[]);
        for row in 1..=3 {
            board.row(row).add(Word::Assigned, 5);
        }
        board.row(2).busy(Time::from_millis(7));
        let pending = || [1, 2, 3].map(|row| board.row(row).pending());
        let seen = board.settle_idle(1, &seen);
        assert_eq!(pending(), [5, 5, 5], "they may still come");
        board.row(3).add(Word::Assigned, 1);
        let seen = board.settle_idle(1, &seen);
        assert_eq!(pending(), [5, 5, 1], "the second is busy, and the sixth may still come");
        board.row(3).count_accepted();
        let seen = board.settle_idle(1, &seen);
        assert_eq!(pending(), [5, 5, 1], "it has woken");
        // Two came that were assigned to a predecessor.
        (0..3).for_each(|_| board.row(3).count_settled());
        let seen = board.settle_idle(1, &seen);
        assert_eq!(pending(), [5, 5, 0]);
        // Another process has the row.
        board.fold(3);
        board.row(3).watches();
        board.settle_idle(1, &seen);
        assert_eq!(pending(), [5, 5, 0]);
    }

    #[test]
    fn seats_are_told_as_they_are() {
        let board = Scoreboard::new(3).expect("memory");
        assert_eq!(board.seats().count(), 0);
        board.seat(&[(0, 2), (5, 0), (1, 3)]);
        assert_eq!(board.seats().collect::<Vec<_>>(), [2, 0, 3]);
        assert_eq!(
            [board.row_of(0), board.row_of(5), board.row_of(1), board.row_of(7)],
            [Some(2), None, Some(3), None]
        );
        board.seat(&[(0, 2)]);
        assert_eq!(board.seats().collect::<Vec<_>>(), [2]);
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
