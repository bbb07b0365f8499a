//! The scoreboard: shared memory in which each worker reports what it is doing and has done, and the parent writes its
//! decisions.
//!
//! A row belongs to a *process*, not to a slot, since a slot may hold two at once (one that serves, and its
//! replacement). It is a page that only this process can write; see [`row`]. The data that the parent decides by is in
//! memory that only the parent and the eBPF program can write; see [`ParentBoard`]. So a worker that runs wild only
//! damages its own reports.
//!
//! Every word has one writer, so a plain store is enough to count. Accesses are `Relaxed` if a word implies nothing
//! about another one, or if it does not matter when the change is seen:
//! - The counters of a row are read at different moments. So a connection may already count as closed and not yet as
//!   accepted, and readers saturate.
//! - A seat is one word that holds slot and row. It is stored with `Release` and loaded with `Acquire`, so a reader
//!   that sees the seat also sees that the row was cleared for its process. While the table changes, a reader may see
//!   old and new seats, each of which was valid.
//! - A reader may see half of an update of what the kernel was told. Then a worker asks the parent to steer without
//!   need, or a millisecond late.
//! - A worker stores that it is busy and then loads whether the parent watches for stalls. The parent stores that it
//!   does not watch, and later loads who is busy. Both may miss the other's store, so the parent checks once more about
//!   a second after its store ([`crate::parent::watch`]).

mod layout;
mod lines;
mod name;
mod own_row;
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
use self::lines::ParentLines;
pub(crate) use self::lines::{whole_lines, LinesPage, LINES_MAX};
pub(crate) use self::name::NameRow;
pub(crate) use self::own_row::OwnRow;
pub(crate) use self::row::{LatencyRow, Row, RowPage};
use self::row::{Note, Word, LATENCY_WORDS, METRICS, NAME_WORDS, NOTE_WORDS, OWN_WORDS, PAIR, ROW_WORDS};
use self::tally::{ParentTally, Tally};
use crate::shared::counters::Counters;
use crate::shared::latency::Latency;
use crate::shared::metrics::{Metrics, METRIC_WORDS};
use crate::shared::seats::{Seats, SEATS_MAX};
use crate::sys::bpf::Memory;
use crate::sys::shared::{self, page_words, ReadOnly, Writable};
use crate::time::Time;

/// The part that every process of the pool can read.
#[derive(Clone, Debug)]
pub(crate) struct Scoreboard {
    /// A page for each process. The first belongs to no process and stays zero.
    rows: ReadOnly,
    /// The parent's decisions, and the notes on each process.
    decided: ReadOnly,
    /// The distance between two rows in words: a page.
    row_words: usize,
    /// Exists if there is an admin process.
    tally: Option<Tally>,
    metrics: Metrics,
}

/// The scoreboard in the parent, the only process that can write its decisions.
///
/// The parent never reads its own decisions back from a row.
#[derive(Debug)]
pub(crate) struct ParentBoard {
    board: Scoreboard,
    rows: Writable,
    decided: Writable,
    tally: Option<ParentTally>,
    /// Where there is an access log.
    lines: Option<ParentLines>,
    /// The counters of dead processes.
    dead: Cell<Counters>,
}

// The parent's decisions, in words: whether the parent watches for stalls, and which program is wanted. On a pair of
// cache lines of its own, which the eBPF program writes: how many connections it has assigned, and how many in a
// millisecond. Then the seats from which the kernel was told to choose. Then the group table: the number of seats, and
// the seats in the order of the kernel's indexes, each with the slot in the upper half and the row of the serving
// process in the lower half. Then the notes on each row.
const WATCHING: usize = 0;
const PROGRAM: usize = 1;
const COUNTED: usize = PAIR;
const STEERED: usize = 2 * PAIR;
const GROUP: usize = STEERED + SEATS_MAX / 64;
const NOTES: usize = (GROUP + 1 + SEATS_MAX).next_multiple_of(NOTE_WORDS);

/// How long a connection may be on its way to a worker's queue: longer than most round trips.
pub(crate) const UNSETTLED: Duration = Duration::from_secs(1);

/// The words of both parts of a scoreboard, in memory that eBPF programs can use.
#[derive(Debug)]
pub(crate) struct Memories {
    pub(crate) rows: Memory,
    pub(crate) decided: Memory,
}

impl Memories {
    /// Allocates the memory for this number of processes. Unlike other memory, it is all taken at once.
    pub(crate) fn new(processes: usize) -> io::Result<Memories> {
        let (rows, decided) = lengths(processes)?;
        Ok(Memories { rows: Memory::new(rows)?, decided: Memory::new(decided)? })
    }
}

/// The number of words in each of the two parts.
fn lengths(processes: usize) -> io::Result<(NonZeroUsize, NonZeroUsize)> {
    let rows = processes.checked_add(1).ok_or(io::ErrorKind::OutOfMemory)?;
    let words = |each: usize, before: usize| {
        let words = rows.checked_mul(each).and_then(|words| words.checked_add(before));
        words.and_then(NonZeroUsize::new).ok_or(io::ErrorKind::OutOfMemory)
    };
    Ok((words(page_words(), 0)?, words(NOTE_WORDS, NOTES)?))
}

impl ParentBoard {
    /// Makes a scoreboard for at most `processes` at once. Untouched rows take no memory.
    pub(crate) fn new(processes: usize) -> io::Result<ParentBoard> {
        let (rows, decided) = lengths(processes)?;
        let (rows, decided) = (shared::words(c"forkpool-rows", rows)?, shared::words(c"forkpool-board", decided)?);
        Ok(ParentBoard::made_of(rows, decided))
    }

    /// Makes a scoreboard in memory that eBPF programs can use.
    pub(crate) fn in_memory(memories: &Memories) -> io::Result<ParentBoard> {
        Ok(ParentBoard::made_of(shared::map(&memories.rows)?, shared::map(&memories.decided)?))
    }

    fn made_of((rows, read_rows): (Writable, ReadOnly), (decided, read): (Writable, ReadOnly)) -> ParentBoard {
        let board = Scoreboard {
            rows: read_rows,
            decided: read,
            row_words: page_words(),
            tally: None,
            metrics: Metrics::default(),
        };
        ParentBoard { board, rows, decided, tally: None, lines: None, dead: Cell::default() }
    }

    /// Adds the application's metrics.
    pub(crate) fn keep_metrics(&mut self, metrics: Metrics) {
        self.board.metrics = metrics;
    }

    /// Adds a tally for this number of slots, after the metrics.
    pub(crate) fn keep_tally(&mut self, slots: usize) -> io::Result<()> {
        let tally = ParentTally::new(self.processes(), slots, self.board.metrics.kinds())?;
        self.board.tally = Some(tally.reader().clone());
        self.tally = Some(tally);
        Ok(())
    }

    /// Adds memory for the lines of the access log that processes have not written.
    pub(crate) fn keep_lines(&mut self) -> io::Result<()> {
        self.lines = Some(ParentLines::new(self.processes() + 1)?);
        Ok(())
    }

    /// Takes the lines that the dead process has left which had this row: untrusted bytes.
    pub(crate) fn take_lines(&self, row: usize) -> Vec<u8> {
        self.lines.as_ref().map(|lines| lines.take(row)).unwrap_or_default()
    }

    /// The part that the other processes get.
    pub(crate) fn scoreboard(&self) -> &Scoreboard {
        &self.board
    }

    /// Assigns a row to a new process of this slot. The next child inherits its page, until it is [taken
    /// back](ParentBoard::take_back).
    pub(crate) fn lend(&self, row: usize, slot: usize, now: Time) -> io::Result<RowPage> {
        let page = self.rows.lend(row, 1)?;
        let lines = self.lines.as_ref().map(|lines| lines.lend(row)).transpose()?;
        let notes = NOTES + row * NOTE_WORDS;
        self.set_note(row, Note::Born, now.as_millis());
        if let Some(tally) = &self.tally {
            tally.own(row, slot);
        }
        Ok(RowPage { page, lines, board: self.board.clone(), row, notes, is_fixed: false })
    }

    /// Stops other children from inheriting the page of this row.
    pub(crate) fn take_back(&self, row: usize) -> io::Result<()> {
        self.rows.take_back(row, 1)?;
        self.lines.as_ref().map_or(Ok(()), |lines| lines.take_back(row))
    }

    /// Adds the believable counters of a dead process to those of the pool, and clears its row for the next process.
    pub(crate) fn fold(&self, row: usize, now: Time) {
        let mut counters = self.row(row).counters(now);
        counters.end();
        let mut dead = self.dead.get();
        dead.add(&counters);
        self.dead.set(dead);
        let latency = self.latency(row, now);
        let clear = || {
            let start = row.saturating_mul(self.row_words);
            let page = self.rows.words().get(start..).unwrap_or_default().iter();
            page.take(ROW_WORDS).for_each(|word| word.store(0, Relaxed));
            self.notes(row).iter().for_each(|word| word.store(0, Relaxed));
        };
        match &self.tally {
            Some(tally) => tally.fold(row, &counters, &latency, &self.metric_words(row), clear),
            None => clear(),
        }
    }

    /// The counters of dead processes.
    pub(crate) fn dead(&self) -> Counters {
        self.dead.get()
    }

    /// Writes which row serves the slot of each seat.
    pub(crate) fn seat(&self, seats: &[(usize, usize)]) {
        let Some((count, table)) = self.decided.words()[GROUP..NOTES].split_first() else { return };
        for (word, (slot, row)) in table.iter().zip(seats) {
            word.store((*slot as u64) << 32 | *row as u64, Release);
        }
        count.store(seats.len().min(SEATS_MAX) as u64, Release);
    }

    /// Writes from which seats the kernel was told to choose.
    pub(crate) fn tell_steered(&self, seats: &Seats) {
        for (word, seats) in self.decided.words()[STEERED..GROUP].iter().zip(seats.words()) {
            word.store(*seats, Relaxed);
        }
    }

    /// Writes which program is attached, as a number of [`crate::shared::steer`]. Unless it is 0, workers
    /// ask the parent to steer if the kernel should be told otherwise.
    pub(crate) fn set_program(&self, program: u64) {
        self.decided.words()[PROGRAM].store(program, Relaxed);
    }

    /// Writes whether the parent looks for stalled workers. Each pause has its own number.
    pub(crate) fn watch(&self, on: bool) {
        let word = &self.decided.words()[WATCHING];
        let last = word.load(Relaxed);
        if (last % 2 == 1) != on {
            word.store(last.wrapping_add(1), Relaxed);
        }
    }

    /// Writes whether a worker with its own server leaves connections in its queue.
    pub(crate) fn set_crowded(&self, row: usize, is_crowded: bool) {
        self.set_note(row, Note::Crowded, u64::from(is_crowded));
    }

    /// For a worker with its own server: all assigned connections have arrived, or never will.
    pub(crate) fn settle_all(&self, row: usize) {
        let it = self.row(row);
        self.set_note(row, Note::Returned, it.assigned().wrapping_sub(it.settled()));
    }

    /// For each idle worker in `seen` that has accepted nothing since, writes off the connections that were pending
    /// then. They will never arrive, and an idle worker does not wake up to notice.
    pub(crate) fn settle_idle(&self, seen: &[Pending]) -> Vec<Pending> {
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
    /// The places where an eBPF program finds what it needs.
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

    /// The notes on a process, by their place among the words.
    fn notes_at(&self, place: usize) -> &[AtomicU64; NOTE_WORDS] {
        let notes = self.decided.words().get(place..).and_then(<[AtomicU64]>::first_chunk);
        notes.expect("a row that was lent has its notes")
    }

    pub(crate) fn tally(&self) -> Option<&Tally> {
        self.tally.as_ref()
    }

    /// The number of rows for processes, which are numbered from 1.
    pub(crate) fn processes(&self) -> usize {
        (self.rows.words().len() / self.row_words).saturating_sub(1)
    }

    /// Returns a row. An invalid number gives row 0, which is all zeros.
    pub(crate) fn row(&self, row: usize) -> Row<'_> {
        let (rows, decided) = (self.rows.words(), self.decided.words());
        let find = |row: usize| {
            let own = rows.get(row.checked_mul(self.row_words)?..)?.first_chunk()?;
            let notes = decided.get(row.checked_mul(NOTE_WORDS)?.checked_add(NOTES)?..)?.first_chunk()?;
            Some(Row { own, notes })
        };
        find(row).or_else(|| find(0)).expect("the first row is there always")
    }

    /// The latencies of a process, as far as they are believable.
    pub(crate) fn latency(&self, row: usize, now: Time) -> Latency {
        let words = row.checked_mul(self.row_words).and_then(|start| self.rows.words().get(start + OWN_WORDS..));
        let words = words.and_then(<[AtomicU64]>::first_chunk);
        words.map(|words| LatencyRow { words }.read(self.row(row).most(now))).unwrap_or_default()
    }

    /// The application's metrics.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The words of the application's metrics of a process.
    pub(crate) fn metric_words(&self, row: usize) -> Vec<u64> {
        let words = row.checked_mul(self.row_words).and_then(|start| self.rows.words().get(start + METRICS..));
        words.unwrap_or_default().iter().take(METRIC_WORDS).map(|word| word.load(Relaxed)).collect()
    }

    /// The words of the application's metrics of all processes together, dead and alive; empty without a tally. Read
    /// them while nothing is [moved](Tally::steady).
    pub(crate) fn all_metric_words(&self) -> Vec<u64> {
        let Some(tally) = self.tally() else { return Vec::new() };
        let kinds = self.metrics.kinds();
        let rows = tally.owned().map(|(row, _)| self.metric_words(row));
        rows.fold(tally.metrics(), |all, row| {
            kinds.iter().zip(all).zip(row).map(|((kind, one), other)| kind.combine(one, other)).collect()
        })
    }

    /// The request that a process is handling, or was handling when it died, as the process reports it. Made printable,
    /// since it may hold anything. `None` if there is none.
    pub(crate) fn request(&self, row: usize) -> Option<String> {
        let start = row.checked_mul(self.row_words)?.checked_add(OWN_WORDS + LATENCY_WORDS)?;
        let words = self.rows.words().get(start..)?.iter().take(NAME_WORDS);
        let bytes: Vec<u8> = words.flat_map(|word| word.load(Relaxed).to_le_bytes()).collect();
        let name = &bytes[..self.row(row).named().min(bytes.len())];
        // Empty lines may precede the request line.
        let name = name.trim_ascii_start();
        (!name.is_empty()).then(|| name.escape_ascii().to_string())
    }

    /// The row that serves each seat; 0 if none does.
    pub(crate) fn seats(&self) -> impl Iterator<Item = usize> + '_ {
        self.taken_seats().map(|(_, row)| row)
    }

    /// The slot of each seat, and the row that serves it.
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

    /// The pending connections of idle workers, which nothing else may ever wake up to check. Leaves out `own`.
    pub(crate) fn pending(&self, own: usize) -> Vec<Pending> {
        let rows = self.seats().filter(|row| *row != 0 && *row != own).map(|row| (row, self.row(row)));
        let idle = rows.filter(|(_, it)| it.is_neighbour() && it.busy_since().is_none() && it.pending() != 0);
        idle.map(|(row, it)| Pending { row, accepted: it.accepted(), pending: it.pending() }).collect()
    }

    /// Whether a worker is still idle, and has accepted nothing since.
    pub(crate) fn is_left(&self, then: &Pending) -> bool {
        let row = self.row(then.row);
        row.is_neighbour() && row.busy_since().is_none() && row.accepted() == then.accepted && row.pending() != 0
    }

    /// From which seats the kernel was told to choose; empty before it was told anything.
    pub(crate) fn steered(&self) -> Seats {
        let words = &self.decided.words()[STEERED..GROUP];
        Seats::from_words(std::array::from_fn(|index| words[index].load(Relaxed)))
    }

    /// Which program is attached, as a number of [`crate::shared::steer`]; 0 for none.
    pub(crate) fn program(&self) -> u64 {
        self.decided.words()[PROGRAM].load(Relaxed)
    }

    /// The number of the parent's current pause in looking for stalls; `None` while it looks. A single load, since a
    /// worker calls it in every turn.
    pub(crate) fn rest(&self) -> Option<u64> {
        Some(self.decided.words()[WATCHING].load(Relaxed)).filter(|number| number % 2 == 0)
    }
}

/// The pending connections of an idle worker at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pending {
    row: usize,
    accepted: u64,
    pending: i64,
}
