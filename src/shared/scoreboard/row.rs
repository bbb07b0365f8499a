//! A row: what one process says of itself, in a page that it alone writes, and what the parent and the kernel's program
//! note about that process, which it can only read.
//!
//! What a worker says may be wrong: it can write any value to its page at any time. Whoever reads it takes care that
//! nothing but the worker's own share suffers. See [`Row::counters`] for what is believed.

use std::ops::Deref;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::Scoreboard;
use crate::shared::counters::{Counters, CLASSES};
use crate::shared::latency::{bucket, Latency, BUCKETS};
use crate::sys::shared::Page;
use crate::time::Time;

/// A word of a process's own page.
#[derive(Clone, Copy, Debug)]
#[repr(usize)]
pub(super) enum Word {
    /// When the worker left its wait and became busy, in milliseconds of the monotonic clock; zero while it is idle,
    /// so that an idle worker can never look stalled.
    BusySince,
    /// Requests given to the handler.
    Requests,
    /// Connections accepted.
    Accepted,
    /// Connections closed.
    Closed,
    /// Requests refused by the codec.
    Refused,
    /// Handlers that panicked.
    Panics,
    /// Lines of logs that could not be written.
    LostLines,
    /// How often the application has said that it gets on with a long request.
    Progress,
    /// It is to be given no more connections: it has as many as it may have, or leaves them in its queue.
    Full,
    /// How many of the connections that the kernel gave it have been accepted, or will never come.
    Settled,
    /// It runs a server of its own that says when it is busy.
    Metered,
    /// It runs the built-in server, which looks after other slots' sockets when asked.
    Watches,
    /// Bytes that it holds for requests and answers in progress.
    Held,
    /// Bytes that clients' sockets have taken.
    Sent,
    /// Answers whose status has 1 as its first digit; the other four classes follow.
    Informational,
    Successful,
    Redirection,
    ClientError,
    ServerError,
    /// Bytes of the name of the request that it is in; zero while it is in none.
    Named,
}

/// The words that only grow.
const COUNTERS: [Word; 6] =
    [Word::Requests, Word::Accepted, Word::Closed, Word::Refused, Word::Panics, Word::LostLines];

/// The answers, by class.
const RESPONSES: [Word; CLASSES] =
    [Word::Informational, Word::Successful, Word::Redirection, Word::ClientError, Word::ServerError];

/// The first words of a page are those above, on three cache lines.
pub(super) const OWN_WORDS: usize = 24;

/// Behind them is how long answers took: the buckets, then the sum.
pub(super) const LATENCY_WORDS: usize = (BUCKETS + 1).next_multiple_of(8);
const SUM: usize = BUCKETS;

const _: () =
    assert!((OWN_WORDS + LATENCY_WORDS + NAME_WORDS) * size_of::<u64>() <= 4096, "a row fits into the smallest page");

/// Behind them is the name of the request that it is in: the beginning of its head.
pub(super) const NAME_WORDS: usize = 16;
const NAME_MAX: usize = NAME_WORDS * size_of::<u64>();

/// A word of what is noted about a process by others.
#[derive(Clone, Copy, Debug)]
#[repr(usize)]
pub(super) enum Note {
    /// Connections that the kernel has given it. Written by the kernel's program.
    Assigned,
    /// How many of them of late, see [`crate::shared::steer`]. Written by the kernel's program.
    Share,
    /// How many of those assigned will never come, beyond what it says itself. Written by the parent.
    Returned,
    /// It is to be given no more connections, as far as the parent sees. Written by the parent.
    Crowded,
    /// When it was forked, in milliseconds of the monotonic clock. Written by the parent.
    Born,
}

/// A cache line.
pub(super) const NOTE_WORDS: usize = 8;

/// Most that a process can do of anything in a millisecond. What claims more is not believed.
const PER_MILLISECOND: u64 = 10_000;

/// Most bytes that it can send for anything that it can do: a hundred gigabytes a second in all.
const BYTES_EACH: u64 = 10_000;

fn most_sent(most: u64) -> u64 {
    most.saturating_mul(BYTES_EACH)
}

/// How far two words may be apart that are not read at one moment, and clocks, in milliseconds.
const SLACK: u64 = 10_000;

/// One process's row, for whoever reads it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a> {
    pub(super) own: &'a [AtomicU64; OWN_WORDS],
    pub(super) notes: &'a [AtomicU64; NOTE_WORDS],
}

/// A process's own row, for itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnRow<'a>(Row<'a>);

/// The page of a process, in that process.
#[derive(Clone, Debug)]
pub(crate) struct RowPage {
    pub(super) page: Page,
    pub(super) board: Scoreboard,
    pub(super) row: usize,
    /// Where its notes begin.
    pub(super) notes: usize,
    pub(super) is_fixed: bool,
}

impl RowPage {
    pub(crate) fn row(&self) -> OwnRow<'_> {
        let own = self.page.words().first_chunk().expect("a page has room for a row");
        OwnRow(Row { own, notes: self.board.notes_at(self.notes) })
    }

    /// Where it counts how long its answers take, if anybody wants to know.
    pub(crate) fn latency(&self) -> Option<LatencyRow<'_>> {
        let words = &self.page.words()[OWN_WORDS..];
        let words = words.first_chunk().expect("a page has room for a row");
        self.board.tally().is_some().then_some(LatencyRow { words })
    }

    /// Where it names the request that it is in.
    pub(crate) fn name(&self) -> NameRow<'_> {
        let words = self.page.words().get(OWN_WORDS + LATENCY_WORDS..).and_then(<[AtomicU64]>::first_chunk);
        NameRow { row: self.row(), words: words.expect("a page has room for a row") }
    }

    pub(crate) fn board(&self) -> &Scoreboard {
        &self.board
    }

    /// The number of the row.
    pub(crate) fn index(&self) -> usize {
        self.row
    }

    /// Sees to it that this process can write to nothing but its page. Runs in the worker, first of all.
    pub(crate) fn fix(&mut self) {
        // Without it mremap(2) reaches the pages behind this one.
        match self.page.fix() {
            Ok(()) => self.is_fixed = true,
            Err(error) => log::debug!("cannot seal this process's scoreboard page with mseal(2): {error}"),
        }
    }

    /// Whether the kernel has been told that the page stays as it is.
    pub(crate) fn is_fixed(&self) -> bool {
        self.is_fixed
    }
}

impl Row<'_> {
    /// Since when the worker has been busy.
    pub(crate) fn busy_since(&self) -> Option<Time> {
        match self.load(Word::BusySince) {
            0 => None,
            millis => Some(Time::from_millis(millis)),
        }
    }

    /// Bytes that it holds for requests and answers in progress, as it says itself. For people: nothing is decided by it.
    pub(crate) fn held(&self) -> u64 {
        self.own[Word::Held as usize].load(Relaxed)
    }

    /// Whether it is to be given no more connections.
    pub(crate) fn is_full(&self) -> bool {
        self.says_full() || self.note(Note::Crowded) != 0
    }

    /// Whether it says so itself.
    pub(crate) fn says_full(&self) -> bool {
        self.load(Word::Full) != 0
    }

    /// Whether the worker says when it is busy.
    pub(crate) fn says_busy(&self) -> bool {
        self.load(Word::Metered) != 0
    }

    /// Whether it says that it looks after other slots' sockets when asked.
    pub(crate) fn is_neighbour(&self) -> bool {
        self.load(Word::Watches) != 0
    }

    pub(super) fn assigned(&self) -> u64 {
        self.note(Note::Assigned)
    }

    pub(super) fn settled(&self) -> u64 {
        self.load(Word::Settled)
    }

    /// How many connections the kernel has given to this worker and nobody has accepted: on their way, or never to come.
    /// Less than nothing when some came that it had given to a predecessor.
    pub(crate) fn pending(&self) -> i64 {
        self.assigned().wrapping_sub(self.settled()).wrapping_sub(self.note(Note::Returned)) as i64
    }

    /// How many bytes the name of the request has that it is in.
    pub(super) fn named(&self) -> usize {
        usize::try_from(self.load(Word::Named)).unwrap_or(NAME_MAX).min(NAME_MAX)
    }

    /// A number that changes when the worker does something.
    pub(crate) fn progress(&self) -> u64 {
        self.requests().wrapping_add(self.load(Word::Progress))
    }

    pub(crate) fn requests(&self) -> u64 {
        self.load(Word::Requests)
    }

    pub(crate) fn accepted(&self) -> u64 {
        self.load(Word::Accepted)
    }

    pub(crate) fn open(&self) -> u64 {
        self.accepted().saturating_sub(self.load(Word::Closed))
    }

    /// What it has counted, as far as that can be: more than any process could have done since its birth counts as
    /// nothing, and no more is closed than was accepted.
    pub(crate) fn counters(&self, now: Time) -> Counters {
        let most = self.most(now);
        let believed = |word| Some(self.load(word)).filter(|count| *count <= most).unwrap_or(0);
        let accepted = believed(Word::Accepted);
        Counters {
            requests: believed(Word::Requests),
            accepted,
            closed: believed(Word::Closed).min(accepted),
            refused: believed(Word::Refused),
            panics: believed(Word::Panics),
            lost: believed(Word::LostLines),
            responses: RESPONSES.map(believed),
            sent: Some(self.load(Word::Sent)).filter(|sent| *sent <= most_sent(most)).unwrap_or(0),
        }
    }

    /// Most that it can have done of anything.
    pub(super) fn most(&self, now: Time) -> u64 {
        let age = now.as_millis().saturating_sub(self.note(Note::Born)).saturating_add(SLACK);
        age.saturating_mul(PER_MILLISECOND)
    }

    /// What is wrong with what it says of itself, if that cannot be.
    pub(crate) fn doubt(&self, now: Time) -> Option<&'static str> {
        let most = self.most(now);
        let is_too_much = COUNTERS.iter().chain(&RESPONSES).any(|word| self.load(*word) > most);
        if is_too_much || self.load(Word::Sent) > most_sent(most) {
            return Some("it has counted more than it can have done");
        }
        if self.load(Word::Closed).saturating_sub(self.accepted()) > SLACK {
            return Some("it has closed more connections than it has accepted");
        }
        if self.load(Word::BusySince).saturating_sub(now.as_millis()) > SLACK {
            return Some("it is busy since a time that is to come");
        }
        if self.pending().unsigned_abs() > most {
            return Some("it has taken more connections out of its queue than were in it");
        }
        None
    }

    fn load(&self, word: Word) -> u64 {
        self.own[word as usize].load(Relaxed)
    }

    pub(super) fn note(&self, note: Note) -> u64 {
        self.notes[note as usize].load(Relaxed)
    }
}

impl<'a> Deref for OwnRow<'a> {
    type Target = Row<'a>;

    fn deref(&self) -> &Row<'a> {
        &self.0
    }
}

impl OwnRow<'_> {
    /// The worker leaves its wait.
    pub(crate) fn busy(&self, now: Time) {
        self.store(Word::BusySince, now.as_millis());
    }

    /// The worker is about to wait.
    pub(crate) fn idle(&self) {
        self.store(Word::Named, 0);
        self.store(Word::BusySince, 0);
    }

    pub(crate) fn set_full(&self, is_full: bool) {
        self.store(Word::Full, u64::from(is_full));
    }

    pub(crate) fn set_held(&self, bytes: usize) {
        self.store(Word::Held, bytes as u64);
    }

    /// The worker says when it is busy.
    pub(crate) fn set_metered(&self) {
        self.store(Word::Metered, 1);
    }

    /// The worker looks after other slots' sockets when asked.
    pub(crate) fn watches(&self) {
        self.store(Word::Watches, 1);
    }

    /// As `count_request`, for workers in which several threads count.
    pub(crate) fn add_request(&self) {
        self.0.own[Word::Requests as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn add_accepted(&self) {
        self.0.own[Word::Accepted as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn add_closed(&self) {
        self.0.own[Word::Closed as usize].fetch_add(1, Relaxed);
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

    /// The head of an answer is made.
    #[inline]
    pub(crate) fn count_response(&self, status: u16) {
        self.add_response(status, 1);
    }

    /// It was not sent, and another one is made.
    pub(crate) fn take_back_response(&self, status: u16) {
        self.add_response(status, u64::MAX);
    }

    #[inline]
    fn add_response(&self, status: u16, count: u64) {
        let class = usize::from(status / 100).wrapping_sub(1);
        // By its place, so that no table is looked up.
        if let Some(word) = self.0.own[Word::Informational as usize..=Word::ServerError as usize].get(class) {
            word.store(word.load(Relaxed).wrapping_add(count), Relaxed);
        }
    }

    #[inline]
    pub(crate) fn count_sent(&self, bytes: u64) {
        self.add(Word::Sent, bytes);
    }

    pub(crate) fn count_panic(&self) {
        self.add(Word::Panics, 1);
    }

    /// Any thread may log.
    pub(crate) fn count_lost(&self, lines: u64) {
        self.0.own[Word::LostLines as usize].fetch_add(lines, Relaxed);
    }

    pub(crate) fn count_progress(&self) {
        self.add(Word::Progress, 1);
    }

    /// So many of the connections that the kernel gave this worker have been accepted, or will not come.
    pub(crate) fn settle(&self, count: i64) {
        self.add(Word::Settled, count as u64);
    }

    fn store(&self, word: Word, value: u64) {
        self.0.own[word as usize].store(value, Relaxed);
    }

    /// Load and store, not a locked add: nobody else writes this word.
    fn add(&self, word: Word, count: u64) {
        let word = &self.0.own[word as usize];
        word.store(word.load(Relaxed).wrapping_add(count), Relaxed);
    }
}

/// The name of the request that a process is in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NameRow<'a> {
    row: OwnRow<'a>,
    words: &'a [AtomicU64; NAME_WORDS],
}

impl NameRow<'_> {
    /// The worker is in the request whose head begins so, of which so many bytes are to be known.
    #[inline]
    pub(crate) fn set(&self, head: &[u8], len: usize) {
        let len = len.min(NAME_MAX);
        let mut left = len;
        for (word, bytes) in self.words.iter().zip(head.chunks_exact(size_of::<u64>())) {
            let bytes = bytes.try_into().map_or(0, u64::from_le_bytes);
            if left < size_of::<u64>() {
                word.store(bytes & !(u64::MAX << (8 * left)), Relaxed);
                break;
            }
            word.store(bytes, Relaxed);
            left -= size_of::<u64>();
        }
        self.row.store(Word::Named, len as u64);
    }
}

/// How long one process's answers took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LatencyRow<'a> {
    pub(super) words: &'a [AtomicU64; LATENCY_WORDS],
}

/// Longer than any answer takes: a day.
const LONGEST: Duration = Duration::from_secs(86_400);

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

    /// What it says: nothing, if it is of more answers than `most`, or they took longer than answers can.
    pub(crate) fn read(&self, most: u64) -> Latency {
        let mut latency = Latency { sum: self.words[SUM].load(Relaxed), ..Latency::default() };
        latency.buckets.iter_mut().zip(self.words).for_each(|(count, word)| *count = word.load(Relaxed));
        let longest = u64::try_from(LONGEST.as_micros()).unwrap_or(u64::MAX);
        let is_possible = latency.count() <= most && latency.sum <= latency.count().saturating_mul(longest);
        if is_possible {
            latency
        } else {
            Latency::default()
        }
    }
}
