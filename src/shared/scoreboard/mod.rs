//! The scoreboard: what each worker is doing and has done, and what the parent has decided, in memory that all processes
//! of the pool share.
//!
//! A row belongs to one *process*, not to a slot, since a slot may hold two at once (one serving, one replacing it). It
//! is a page that only this process can write, see [`row`]. What the parent decides by is in memory that only the parent
//! can write, and the kernel's program, see [`ParentBoard`]. So a worker that runs wild harms what is said of itself.
//!
//! Every word has one writer, so a plain store is enough to count. Accesses are `Relaxed` where a word tells nothing about
//! another one, or where it does not matter when that is seen:
//! - A row's counters are read at different moments. So a connection may be closed that was not accepted yet, and readers
//!   saturate.
//! - A seat is one word, with slot and row in it. It is stored with `Release` and loaded with `Acquire`: who sees it sees
//!   the row as it was cleared for the process that has it. While the table changes a reader may see old and new seats,
//!   each of which was true.
//! - A reader may see half of what the kernel has been told. It rings the parent in vain, or a millisecond later.
//! - A worker stores that it is busy and then loads whether the parent watches; the parent stores that it does not and
//!   loads later who is busy. Both may miss the other's store, which is why the parent looks once more a second or so
//!   after it has stored that ([`crate::parent::watch`]).

mod layout;
mod row;
mod tally;

#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::io;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

pub(crate) use self::layout::Layout;
pub(crate) use self::row::{LatencyRow, NameRow, OwnRow, Row, RowPage};
use self::row::{Note, Word, LATENCY_WORDS, NAME_WORDS, NOTE_WORDS, OWN_WORDS};
use self::tally::{ParentTally, Tally};
use crate::shared::counters::Counters;
use crate::shared::latency::Latency;
use crate::shared::seats::{Seats, SEATS_MAX};
use crate::sys::bpf::Memory;
use crate::sys::shared::{self, page_words, ReadOnly, Writable};
use crate::time::Time;

/// What every process of the pool can read.
#[derive(Clone, Debug)]
pub(crate) struct Scoreboard {
    /// A page for each process. The first is nobody's and stays zero.
    rows: ReadOnly,
    /// What the parent has decided, and what is noted about each process.
    decided: ReadOnly,
    /// Words from one row to the next: those of a page.
    row_words: usize,
    /// Where there is an admin process.
    tally: Option<Tally>,
}

/// The scoreboard in the parent, which alone can write what is decided.
///
/// The parent's own decisions are never read back from a row.
#[derive(Debug)]
pub(crate) struct ParentBoard {
    board: Scoreboard,
    rows: Writable,
    decided: Writable,
    tally: Option<ParentTally>,
    /// What the dead have counted.
    dead: Cell<Counters>,
}

// What is decided, in words: whether the parent watches, and which program is wanted; on a line of its own, which the
// kernel's program writes, how many connections it has assigned; which seats the kernel has been told to choose from; the
// group table, which is how many seats the group has, and each of them in the order of the kernel's indexes, as the slot
// in the upper half and, in the lower, the row of the process that serves it; then, for each row, what is noted about it.
const WATCHING: usize = 0;
const PROGRAM: usize = 1;
const COUNTED: usize = 8;
const STEERED: usize = 16;
const GROUP: usize = STEERED + SEATS_MAX / 64;
const NOTES: usize = (GROUP + 1 + SEATS_MAX).next_multiple_of(NOTE_WORDS);

/// How long a connection may be on its way to a worker's queue: longer than most round trips.
pub(crate) const UNSETTLED: Duration = Duration::from_secs(1);

/// The words of both parts of a scoreboard that the kernel's programs see too.
#[derive(Debug)]
pub(crate) struct Memories {
    pub(crate) rows: Memory,
    pub(crate) decided: Memory,
}

impl Memories {
    /// For so many processes. Unlike other memory this is taken at once.
    pub(crate) fn new(processes: usize) -> io::Result<Memories> {
        let (rows, decided) = lengths(processes)?;
        Ok(Memories { rows: Memory::new(rows)?, decided: Memory::new(decided)? })
    }
}

/// How many words the two parts have.
fn lengths(processes: usize) -> io::Result<(NonZeroUsize, NonZeroUsize)> {
    let rows = processes.checked_add(1).ok_or(io::ErrorKind::OutOfMemory)?;
    let words = |each: usize, before: usize| {
        let words = rows.checked_mul(each).and_then(|words| words.checked_add(before));
        words.and_then(NonZeroUsize::new).ok_or(io::ErrorKind::OutOfMemory)
    };
    Ok((words(page_words(), 0)?, words(NOTE_WORDS, NOTES)?))
}

impl ParentBoard {
    /// A scoreboard for at most `processes` at once. Untouched rows cost no memory.
    pub(crate) fn new(processes: usize) -> io::Result<ParentBoard> {
        let (rows, decided) = lengths(processes)?;
        let (rows, decided) = (shared::words(c"forkpool-rows", rows)?, shared::words(c"forkpool-board", decided)?);
        Ok(ParentBoard::made_of(rows, decided))
    }

    /// The same in memory that the kernel's programs see too.
    pub(crate) fn in_memory(memories: &Memories) -> io::Result<ParentBoard> {
        Ok(ParentBoard::made_of(shared::map(&memories.rows)?, shared::map(&memories.decided)?))
    }

    fn made_of((rows, read_rows): (Writable, ReadOnly), (decided, read): (Writable, ReadOnly)) -> ParentBoard {
        let board = Scoreboard { rows: read_rows, decided: read, row_words: page_words(), tally: None };
        ParentBoard { board, rows, decided, tally: None, dead: Cell::default() }
    }

    /// Keeps a tally too, for so many slots.
    pub(crate) fn keep_tally(&mut self, slots: usize) -> io::Result<()> {
        let tally = ParentTally::new(self.processes(), slots)?;
        self.board.tally = Some(tally.reader().clone());
        self.tally = Some(tally);
        Ok(())
    }

    /// What the others get.
    pub(crate) fn scoreboard(&self) -> &Scoreboard {
        &self.board
    }

    /// The row is a new process's of this slot: has the next child inherit its page, until it is
    /// [taken back](ParentBoard::take_back).
    pub(crate) fn lend(&self, row: usize, slot: usize, now: Time) -> io::Result<RowPage> {
        let page = self.rows.lend(row)?;
        let notes = NOTES + row * NOTE_WORDS;
        self.set_note(row, Note::Born, now.as_millis());
        if let Some(tally) = &self.tally {
            tally.own(row, slot);
        }
        Ok(RowPage { page, board: self.board.clone(), row, notes, is_fixed: false })
    }

    /// No other child inherits the page of the row.
    pub(crate) fn take_back(&self, row: usize) -> io::Result<()> {
        self.rows.take_back(row)
    }

    /// Adds what is believed of a dead process's counters to the pool's and clears its row for the next.
    pub(crate) fn fold(&self, row: usize, now: Time) {
        let counters = self.row(row).counters(now);
        let mut dead = self.dead.get();
        dead.add(&counters);
        self.dead.set(dead);
        let latency = self.latency(row, now);
        let clear = || {
            let start = row.saturating_mul(self.row_words);
            let page = self.rows.words().get(start..).unwrap_or_default().iter();
            page.take(OWN_WORDS + LATENCY_WORDS + NAME_WORDS).for_each(|word| word.store(0, Relaxed));
            self.notes(row).iter().for_each(|word| word.store(0, Relaxed));
        };
        match &self.tally {
            Some(tally) => tally.fold(row, &counters, &latency, clear),
            None => clear(),
        }
    }

    /// What the dead have counted.
    pub(crate) fn dead(&self) -> Counters {
        self.dead.get()
    }

    /// Says who serves each seat: slots and rows.
    pub(crate) fn seat(&self, seats: &[(usize, usize)]) {
        let Some((count, table)) = self.decided.words()[GROUP..NOTES].split_first() else { return };
        for (word, (slot, row)) in table.iter().zip(seats) {
            word.store((*slot as u64) << 32 | *row as u64, Release);
        }
        count.store(seats.len().min(SEATS_MAX) as u64, Release);
    }

    /// Says which seats the kernel has been told to choose from.
    pub(crate) fn tell_steered(&self, seats: &Seats) {
        for (word, seats) in self.decided.words()[STEERED..GROUP].iter().zip(seats.words()) {
            word.store(*seats, Relaxed);
        }
    }

    /// Says whether workers are to ring when the kernel should be told otherwise: a number that [`crate::shared::steer`] knows,
    /// 0 for no.
    pub(crate) fn set_program(&self, program: u64) {
        self.decided.words()[PROGRAM].store(program, Relaxed);
    }

    /// Says whether the parent looks for stalled workers. Each time it stops that has a number of its own.
    pub(crate) fn watch(&self, on: bool) {
        let word = &self.decided.words()[WATCHING];
        let last = word.load(Relaxed);
        if (last % 2 == 1) != on {
            word.store(last.wrapping_add(1), Relaxed);
        }
    }

    /// The parent sees whether a worker with a server of its own leaves connections in its queue.
    pub(crate) fn set_crowded(&self, row: usize, is_crowded: bool) {
        self.set_note(row, Note::Crowded, u64::from(is_crowded));
    }

    /// Everything that was assigned to a worker with a server of its own has come, or will not.
    pub(crate) fn settle_all(&self, row: usize) {
        let it = self.row(row);
        self.set_note(row, Note::Returned, it.assigned().wrapping_sub(it.settled()));
    }

    /// Settles what the kernel had given to idle workers when `seen` was returned and what has not come since, nor will:
    /// nothing wakes them, so they cannot do it.
    pub(crate) fn settle_idle(&self, seen: &[Seen]) -> Vec<Seen> {
        for then in seen.iter().filter(|then| self.board.is_left(then)) {
            let row = self.row(then.row);
            let count = then.pending.min(row.pending());
            self.set_note(then.row, Note::Returned, row.note(Note::Returned).wrapping_add(count as u64));
        }
        self.board.pending(0)
    }

    /// Writes to every word of all rows.
    #[cfg(test)]
    pub(crate) fn fill_rows(&self, number: &mut dyn FnMut() -> u64) {
        self.rows.words().iter().for_each(|word| word.store(number(), Relaxed));
    }

    /// Writes to every word that only the parent can write.
    #[cfg(test)]
    pub(crate) fn fill_decided(&self, number: &mut dyn FnMut() -> u64) {
        self.decided.words().iter().for_each(|word| word.store(number(), Relaxed));
        if let Some(tally) = &self.tally {
            tally.fill(number);
        }
    }

    fn notes(&self, row: usize) -> &[AtomicU64] {
        let start = NOTES.saturating_add(row.saturating_mul(NOTE_WORDS));
        self.decided.words().get(start..).and_then(|notes| notes.get(..NOTE_WORDS)).unwrap_or_default()
    }

    fn set_note(&self, row: usize, note: Note, value: u64) {
        if let Some(word) = self.notes(row).get(note as usize) {
            word.store(value, Relaxed);
        }
    }
}

impl Deref for ParentBoard {
    type Target = Scoreboard;

    fn deref(&self) -> &Scoreboard {
        &self.board
    }
}

impl Scoreboard {
    /// Where a kernel's program finds what it needs.
    pub(crate) fn layout(processes: usize) -> Layout {
        Layout {
            rows: processes + 1,
            row_words: page_words(),
            busy_since: Word::BusySince as usize,
            accepted: Word::Accepted as usize,
            closed: Word::Closed as usize,
            full: Word::Full as usize,
            settled: Word::Settled as usize,
            group: GROUP,
            seats: SEATS_MAX,
            counted: COUNTED,
            notes: NOTES,
            note_words: NOTE_WORDS,
            assigned: Note::Assigned as usize,
            share: Note::Share as usize,
            returned: Note::Returned as usize,
            crowded: Note::Crowded as usize,
        }
    }

    /// What is noted about a process, by its place among the words.
    fn notes_at(&self, place: usize) -> &[AtomicU64; NOTE_WORDS] {
        let notes = self.decided.words().get(place..).and_then(<[AtomicU64]>::first_chunk);
        notes.expect("a row that was lent has its notes")
    }

    pub(crate) fn tally(&self) -> Option<&Tally> {
        self.tally.as_ref()
    }

    /// How many rows for processes there are; they are numbered from 1.
    pub(crate) fn processes(&self) -> usize {
        (self.rows.words().len() / self.row_words).saturating_sub(1)
    }

    /// A row. A number that is no row's is taken for that of nobody's, which is all zeros.
    pub(crate) fn row(&self, row: usize) -> Row<'_> {
        let (rows, decided) = (self.rows.words(), self.decided.words());
        let find = |row: usize| {
            let own = rows.get(row.checked_mul(self.row_words)?..)?.first_chunk()?;
            let notes = decided.get(row.checked_mul(NOTE_WORDS)?.checked_add(NOTES)?..)?.first_chunk()?;
            Some(Row { own, notes })
        };
        find(row).or_else(|| find(0)).expect("the first row is there always")
    }

    /// How long a process's answers took, as far as that can be.
    pub(crate) fn latency(&self, row: usize, now: Time) -> Latency {
        let words = row.checked_mul(self.row_words).and_then(|start| self.rows.words().get(start + OWN_WORDS..));
        let words = words.and_then(<[AtomicU64]>::first_chunk);
        words.map(|words| LatencyRow { words }.read(self.row(row).most(now))).unwrap_or_default()
    }

    /// The request that a process is in, or has died in, as it says itself: printable, whatever it has written. None where
    /// it names none.
    pub(crate) fn request(&self, row: usize) -> Option<String> {
        let start = row.checked_mul(self.row_words)?.checked_add(OWN_WORDS + LATENCY_WORDS)?;
        let words = self.rows.words().get(start..)?.iter().take(NAME_WORDS);
        let bytes: Vec<u8> = words.flat_map(|word| word.load(Relaxed).to_le_bytes()).collect();
        let name = &bytes[..self.row(row).named().min(bytes.len())];
        // Empty lines may stand in front.
        let name = name.trim_ascii_start();
        (!name.is_empty()).then(|| name.escape_ascii().to_string())
    }

    /// The row of the process that serves each seat; 0 where none does.
    pub(crate) fn seats(&self) -> impl Iterator<Item = usize> + '_ {
        self.taken_seats().map(|(_, row)| row)
    }

    /// Each seat's slot, and the row of the process that serves it.
    fn taken_seats(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let table = &self.decided.words()[GROUP..=GROUP + SEATS_MAX];
        let count = (table[0].load(Acquire) as usize).min(SEATS_MAX);
        table[1..=count].iter().map(|seat| {
            let seat = seat.load(Acquire);
            ((seat >> 32) as usize, seat as u32 as usize)
        })
    }

    /// The row of the process that serves a slot.
    pub(crate) fn row_of(&self, slot: usize) -> Option<usize> {
        self.taken_seats().find(|(it, row)| *it == slot && *row != 0).map(|(_, row)| row)
    }

    /// What is pending at idle workers, from which nothing may ever wake them. Leaves out `own`.
    pub(crate) fn pending(&self, own: usize) -> Vec<Seen> {
        let rows = self.seats().filter(|row| *row != 0 && *row != own).map(|row| (row, self.row(row)));
        let idle = rows.filter(|(_, it)| it.is_neighbour() && it.busy_since().is_none() && it.pending() != 0);
        idle.map(|(row, it)| Seen { row, accepted: it.accepted(), pending: it.pending() }).collect()
    }

    /// Whether what was seen is still so: the worker is idle, and has accepted nothing since.
    pub(crate) fn is_left(&self, then: &Seen) -> bool {
        let row = self.row(then.row);
        row.is_neighbour() && row.busy_since().is_none() && row.accepted() == then.accepted && row.pending() != 0
    }

    /// Which seats the kernel has been told to choose from; none before it has been told anything.
    pub(crate) fn steered(&self) -> Seats {
        let words = &self.decided.words()[STEERED..GROUP];
        Seats::from_words(std::array::from_fn(|index| words[index].load(Relaxed)))
    }

    /// Which program is attached, as a number that [`crate::shared::steer`] knows; 0 for none.
    pub(crate) fn program(&self) -> u64 {
        self.decided.words()[PROGRAM].load(Relaxed)
    }

    /// The number of the parent's present rest from looking for stalls; None while it looks. One load, for the worker's
    /// every turn.
    pub(crate) fn rest(&self) -> Option<u64> {
        Some(self.decided.words()[WATCHING].load(Relaxed)).filter(|number| number % 2 == 0)
    }
}

/// What was pending at an idle worker, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    row: usize,
    accepted: u64,
    pending: i64,
}
