//! A process's own row, for writing.

use std::ops::Deref;
use std::sync::atomic::Ordering::Relaxed;

use super::row::{Row, RowPage, Word};
use crate::shared::counters::HANDSHAKES;
use crate::time::Time;

/// A process's own row, for writing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnRow<'a>(Row<'a>);

impl RowPage {
    pub(crate) fn row(&self) -> OwnRow<'_> {
        OwnRow(self.read())
    }
}

impl<'a> Deref for OwnRow<'a> {
    type Target = Row<'a>;

    fn deref(&self) -> &Row<'a> {
        &self.0
    }
}

impl OwnRow<'_> {
    /// Reports that the worker has left its wait.
    pub(crate) fn busy(&self, now: Time) {
        self.store(Word::BusySince, now.as_millis());
    }

    /// Reports that the worker is about to wait.
    pub(crate) fn idle(&self) {
        self.store(Word::Named, 0);
        self.store(Word::BusySince, 0);
    }

    /// Reports that the worker has made progress, and stays busy since when it was.
    pub(crate) fn goes_on(&self) {
        self.store(Word::Named, 0);
        self.count_progress();
    }

    pub(crate) fn set_full(&self, is_full: bool) {
        self.store(Word::Full, u64::from(is_full));
    }

    pub(crate) fn set_held(&self, bytes: usize) {
        self.store(Word::Held, bytes as u64);
    }

    /// Reports that the worker says when it is busy.
    pub(crate) fn set_metered(&self) {
        self.store(Word::Metered, 1);
    }

    /// Reports that the worker looks after other slots' sockets when told to.
    pub(crate) fn watches(&self) {
        self.store(Word::Watches, 1);
    }

    /// Reports that the worker takes over connections that other processes pass to its slot.
    pub(crate) fn set_takes(&self) {
        self.store(Word::Takes, 1);
    }

    /// Counts a connection that another process has passed to this one, besides `count_accepted`.
    pub(crate) fn count_taken(&self) {
        self.add(Word::Taken, 1);
    }

    /// Counts a connection that was passed to another process, besides `count_closed`.
    pub(crate) fn count_handed(&self) {
        self.add(Word::Handed, 1);
    }

    pub(crate) fn count_discarded(&self) {
        self.add(Word::Discarded, 1);
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

    #[cfg(feature = "hyper")]
    pub(crate) fn add_sent(&self, bytes: u64) {
        self.0.own[Word::Sent as usize].fetch_add(bytes, Relaxed);
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

    /// Counts a response whose head was made.
    #[inline]
    pub(crate) fn count_response(&self, status: u16) {
        match status {
            200 => self.add(Word::Successful, 1),
            _ => self.add_response(status, 1),
        }
    }

    /// Uncounts a response that was not sent, and is replaced by another.
    pub(crate) fn take_back_response(&self, status: u16) {
        self.add_response(status, u64::MAX);
    }

    fn add_response(&self, status: u16, count: u64) {
        let class = usize::from(status / 100).wrapping_sub(1);
        // By position, so that no table is searched.
        if let Some(word) = self.0.own[Word::Informational as usize..=Word::ServerError as usize].get(class) {
            word.store(word.load(Relaxed).wrapping_add(count), Relaxed);
        }
    }

    #[inline]
    pub(crate) fn count_sent(&self, bytes: u64) {
        self.add(Word::Sent, bytes);
    }

    /// Sets how many handshakes have ended in which way.
    pub(crate) fn set_handshakes(&self, counts: &[u64; HANDSHAKES]) {
        let words = &self.0.own[Word::Handshakes as usize..];
        words.iter().zip(counts).for_each(|(word, count)| word.store(*count, Relaxed));
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

    /// Counts connections assigned by the kernel that have been accepted, or will not arrive.
    pub(crate) fn settle(&self, count: i64) {
        self.add(Word::Settled, count as u64);
    }

    /// Sets the length of the stored name of the current request.
    #[inline]
    pub(super) fn set_named(&self, len: usize) {
        self.store(Word::Named, len as u64);
    }

    fn store(&self, word: Word, value: u64) {
        self.0.own[word as usize].store(value, Relaxed);
    }

    /// A load and a store, no locked add, since nobody else writes this word.
    fn add(&self, word: Word, count: u64) {
        let word = &self.0.own[word as usize];
        word.store(word.load(Relaxed).wrapping_add(count), Relaxed);
    }
}
