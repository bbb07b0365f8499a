//! A row: what a process reports about itself, in a page that only it can write, and the notes of the parent and the
//! eBPF program about it, which it can only read.
//!
//! A report may be wrong: a worker can write any value to its page at any time. Readers make sure that only the
//! worker's own share suffers. [`Row::counters`] says what is believed.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::lines::LinesPage;
use super::Scoreboard;
use crate::shared::counters::{Counters, CLASSES, HANDSHAKES};
use crate::shared::latency::{bucket, Latency, BUCKETS};
use crate::shared::metrics::{MetricPage, METRIC_WORDS};
use crate::sys::shared::Page;
use crate::time::Time;

/// A word in a process's own page.
///
/// The first ones are read by the eBPF program for each new connection. They are on one cache line, and those that
/// change for each request are not on the next one either, since some processors fetch lines in pairs. So no more than
/// one line of a row moves between processors.
#[derive(Clone, Copy, Debug)]
#[repr(usize)]
pub(super) enum Word {
    /// When the worker left its wait and became busy, in milliseconds of the monotonic clock; zero if it is idle, so an
    /// idle worker never looks stalled.
    BusySince,
    /// Connections accepted.
    Accepted,
    /// Connections closed.
    Closed,
    /// How many of the connections assigned by the kernel have been accepted, or will never arrive.
    Settled,
    /// Whether it must get no more connections, since it has reached its limit or leaves connections in its queue.
    Full,
    /// Whether it runs its own server that reports when it is busy.
    Metered,
    /// Whether it runs the built-in server, which looks after other slots' sockets when told to.
    Watches,
    /// Whether it takes over connections that other processes pass to its slot.
    Takes,
    /// Requests refused by the codec.
    Refused,
    /// Handlers that panicked.
    Panics,
    /// Log lines that could not be written.
    LostLines,
    /// How many times the application has reported progress of a long request.
    Progress,
    /// How many connections it has taken over; they are counted as accepted, too.
    Taken,
    /// How many it has passed to other processes; they are counted as closed, too.
    Handed,
    /// How many records of connections it has dropped, since they were not sound.
    Discarded,
    /// Requests passed to the handler.
    Requests = PAIR,
    /// The bytes that it holds for requests and responses in progress.
    Held,
    /// The bytes that the sockets of clients have accepted.
    Sent,
    /// Responses whose status begins with 1; the other four classes follow.
    Informational,
    Successful,
    Redirection,
    ClientError,
    ServerError,
    /// The length of the name of the current request in bytes; zero if there is none.
    Named,
    /// The first way in which handshakes of TLS end; the others follow.
    Handshakes,
}

/// The words on a cache line, and on a pair of them.
const LINE: usize = 8;
pub(super) const PAIR: usize = 2 * LINE;

const _: () =
    assert!((Word::Full as usize) < LINE && (Word::Discarded as usize) < PAIR, "what the program reads is apart");

/// The words that only grow.
const COUNTERS: [Word; 9] = [
    Word::Requests,
    Word::Accepted,
    Word::Closed,
    Word::Refused,
    Word::Panics,
    Word::LostLines,
    Word::Taken,
    Word::Handed,
    Word::Discarded,
];

/// The responses by class.
const RESPONSES: [Word; CLASSES] =
    [Word::Informational, Word::Successful, Word::Redirection, Word::ClientError, Word::ServerError];

/// A page begins with the words above, on five cache lines.
pub(super) const OWN_WORDS: usize = 40;

const _: () = assert!(Word::Handshakes as usize + HANDSHAKES <= OWN_WORDS);

/// After them are the latencies: the buckets, then the sum.
pub(super) const LATENCY_WORDS: usize = (BUCKETS + 1).next_multiple_of(8);
const SUM: usize = BUCKETS;

/// After that are the application's metrics.
pub(super) const METRICS: usize = OWN_WORDS + LATENCY_WORDS + NAME_WORDS;

/// All words of a row.
pub(super) const ROW_WORDS: usize = METRICS + METRIC_WORDS;

const _: () = assert!(ROW_WORDS * size_of::<u64>() <= 4096, "a row fits into the smallest page");

/// After them is the name of the current request: the beginning of its head.
pub(super) const NAME_WORDS: usize = 16;
pub(super) const WORD: usize = size_of::<u64>();
pub(super) const NAME_MAX: usize = NAME_WORDS * WORD;

/// A word that others write about a process.
#[derive(Clone, Copy, Debug)]
#[repr(usize)]
pub(super) enum Note {
    /// Connections assigned by the kernel. Written by the eBPF program.
    Assigned,
    /// How many of them in the current window, see [`crate::shared::steer`]. Written by the eBPF program.
    Share,
    /// How many of those assigned will never arrive, in addition to those that the worker reports. Written by the
    /// parent.
    Returned,
    /// Whether it must get no more connections, as the parent has noticed. Written by the parent.
    Crowded,
    /// When it was forked, in milliseconds of the monotonic clock. Written by the parent.
    Born,
}

/// A cache line.
pub(super) const NOTE_WORDS: usize = LINE;

/// The most that a process can do of anything per millisecond. Higher reports are not believed.
const PER_MILLISECOND: u64 = 10_000;

/// The most bytes per event that a process can send: a hundred gigabytes a second in all.
const BYTES_EACH: u64 = 10_000;

fn most_sent(most: u64) -> u64 {
    most.saturating_mul(BYTES_EACH)
}

/// How much the difference between two words may be off if they are read at different moments, and clocks, in
/// milliseconds.
const SLACK: u64 = 10_000;

/// A row, for readers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a> {
    pub(super) own: &'a [AtomicU64; OWN_WORDS],
    pub(super) notes: &'a [AtomicU64; NOTE_WORDS],
}

/// A process's own page.
#[derive(Clone, Debug)]
pub(crate) struct RowPage {
    pub(super) page: Page,
    pub(super) lines: Option<LinesPage>,
    pub(super) board: Scoreboard,
    pub(super) row: usize,
    /// The place of its notes.
    pub(super) notes: usize,
    pub(super) is_fixed: bool,
}

impl RowPage {
    /// What the process has reported about itself.
    pub(super) fn read(&self) -> Row<'_> {
        let own = self.page.words().first_chunk().expect("a page has room for a row");
        Row { own, notes: self.board.notes_at(self.notes) }
    }

    /// The latencies that it counts, if an admin process wants to know.
    pub(crate) fn latency(&self) -> Option<LatencyRow<'_>> {
        let words = &self.page.words()[OWN_WORDS..];
        let words = words.first_chunk().expect("a page has room for a row");
        self.board.tally().is_some().then_some(LatencyRow { words })
    }

    /// The part for the application's metrics.
    pub(crate) fn metrics(&self) -> MetricPage {
        MetricPage::new(self.page.clone(), METRICS)
    }

    /// Where lines of the access log outlive this process, if there is one.
    pub(crate) fn lines(&self) -> Option<&LinesPage> {
        self.lines.as_ref()
    }

    pub(crate) fn board(&self) -> &Scoreboard {
        &self.board
    }

    /// The number of the row.
    pub(crate) fn index(&self) -> usize {
        self.row
    }

    /// Makes sure that this process can write to no other page. The first thing that a worker does.
    pub(crate) fn fix(&mut self) {
        // Without this, mremap(2) could reach the pages after this one.
        match self.page.fix().and_then(|()| self.lines.as_ref().map_or(Ok(()), LinesPage::fix)) {
            Ok(()) => self.is_fixed = true,
            Err(error) => log::debug!("cannot seal this process's scoreboard page with mseal(2): {error}"),
        }
    }

    /// Whether the kernel now refuses to move the page.
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

    /// The bytes that it holds for requests and responses in progress, by its own account. Only shown to people;
    /// nothing depends on it.
    pub(crate) fn held(&self) -> u64 {
        self.own[Word::Held as usize].load(Relaxed)
    }

    /// Whether it must get no more connections.
    pub(crate) fn is_full(&self) -> bool {
        self.says_full() || self.note(Note::Crowded) != 0
    }

    /// Whether it reports that itself.
    pub(crate) fn says_full(&self) -> bool {
        self.load(Word::Full) != 0
    }

    /// Whether the worker reports when it is busy.
    pub(crate) fn says_busy(&self) -> bool {
        self.load(Word::Metered) != 0
    }

    /// Whether it reports that it looks after other slots' sockets when told to.
    pub(crate) fn is_neighbour(&self) -> bool {
        self.load(Word::Watches) != 0
    }

    /// Whether it reports that it takes over connections that other processes pass to its slot.
    pub(crate) fn takes(&self) -> bool {
        self.load(Word::Takes) != 0
    }

    pub(super) fn assigned(&self) -> u64 {
        self.note(Note::Assigned)
    }

    pub(super) fn settled(&self) -> u64 {
        self.load(Word::Settled)
    }

    /// The number of connections that the kernel has assigned to this worker and nobody has accepted: on their way, or
    /// never to arrive. Negative if some arrived that were assigned to its predecessor.
    pub(crate) fn pending(&self) -> i64 {
        self.assigned().wrapping_sub(self.settled()).wrapping_sub(self.note(Note::Returned)) as i64
    }

    /// The length of the name of the current request.
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

    /// How many connections it has passed to other processes.
    pub(crate) fn handed(&self) -> u64 {
        self.load(Word::Handed)
    }

    pub(crate) fn open(&self) -> u64 {
        self.accepted().saturating_sub(self.load(Word::Closed))
    }

    /// Its counters, as far as they are believable. A counter that is higher than any process could reach since its
    /// birth is zero, and at most as many connections are closed as were accepted.
    pub(crate) fn counters(&self, now: Time) -> Counters {
        let most = self.most(now);
        let believed = |word| Some(self.load(word)).filter(|count| *count <= most).unwrap_or(0);
        let accepted = believed(Word::Accepted);
        let closed = believed(Word::Closed).min(accepted);
        let (taken, handed) = (believed(Word::Taken).min(accepted), believed(Word::Handed).min(closed));
        Counters {
            requests: believed(Word::Requests),
            accepted: accepted - taken,
            closed: closed - handed,
            refused: believed(Word::Refused),
            panics: believed(Word::Panics),
            lost: believed(Word::LostLines),
            responses: RESPONSES.map(believed),
            sent: Some(self.load(Word::Sent)).filter(|sent| *sent <= most_sent(most)).unwrap_or(0),
            taken,
            handed,
            discarded: believed(Word::Discarded),
            handshakes: self.handshakes().map(|count| Some(count).filter(|count| *count <= most).unwrap_or(0)),
        }
    }

    fn handshakes(&self) -> [u64; HANDSHAKES] {
        std::array::from_fn(|way| self.own[Word::Handshakes as usize + way].load(Relaxed))
    }

    /// The most that it can have done of anything.
    pub(super) fn most(&self, now: Time) -> u64 {
        let age = now.as_millis().saturating_sub(self.note(Note::Born)).saturating_add(SLACK);
        age.saturating_mul(PER_MILLISECOND)
    }

    /// Returns what is wrong with its reports, if they are impossible.
    pub(crate) fn doubt(&self, now: Time) -> Option<&'static str> {
        let most = self.most(now);
        let is_too_much = COUNTERS.iter().chain(&RESPONSES).any(|word| self.load(*word) > most);
        let is_too_much = is_too_much || self.handshakes().iter().any(|count| *count > most);
        if is_too_much || self.load(Word::Sent) > most_sent(most) {
            return Some("it has counted more than it can have done");
        }
        if self.load(Word::Closed).saturating_sub(self.accepted()) > SLACK {
            return Some("it has closed more connections than it has accepted");
        }
        if self.load(Word::BusySince).saturating_sub(now.as_millis()) > SLACK {
            return Some("it is busy since a time in the future");
        }
        if self.pending().unsigned_abs() > most {
            return Some("it has accepted more connections from its queue than were in it");
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

/// The latencies of one process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LatencyRow<'a> {
    pub(super) words: &'a [AtomicU64; LATENCY_WORDS],
}

/// Longer than any response takes: a day.
const LONGEST: Duration = Duration::from_secs(86_400);

impl LatencyRow<'_> {
    /// Counts this number of responses that took this number of microseconds each. Runs in the worker.
    #[inline]
    pub(crate) fn count(&self, answers: u64, micros: u64) {
        // A load and a store, no locked add, since nobody else writes these words.
        let add = |index: usize, more: u64| {
            let word = &self.words[index];
            word.store(word.load(Relaxed).wrapping_add(more), Relaxed);
        };
        add(bucket(micros), answers);
        add(SUM, answers.wrapping_mul(micros));
    }

    /// Reads the latencies; empty if they are of more than `most` responses, or longer than responses can take.
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
