//! PURE. A set of seats of a group.
#![forbid(unsafe_code)]

/// The maximum number of seats in a group, and so of slots in a pool.
pub(crate) const SEATS_MAX: usize = 1024;

const WORDS: usize = SEATS_MAX / 64;

/// A set of seats, numbered in the order in which their sockets joined the group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seats([u64; WORDS]);

impl Seats {
    pub(crate) fn insert(&mut self, seat: usize) {
        self.0[seat / 64] |= 1 << (seat % 64);
    }

    pub(crate) fn remove(&mut self, seat: usize) {
        self.0[seat / 64] &= !(1 << (seat % 64));
    }

    pub(crate) fn contains(&self, seat: usize) -> bool {
        self.0[seat / 64] & 1 << (seat % 64) != 0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    pub(crate) fn words(&self) -> &[u64; WORDS] {
        &self.0
    }

    pub(crate) fn from_words(words: [u64; WORDS]) -> Seats {
        Seats(words)
    }

    /// The set as ranges: the first seat, and the one after the last.
    pub(crate) fn ranges(&self) -> Vec<(usize, usize)> {
        let mut ranges: Vec<(usize, usize)> = Vec::new();
        for seat in (0..SEATS_MAX).filter(|seat| self.contains(*seat)) {
            match ranges.last_mut() {
                Some((_, end)) if *end == seat => *end += 1,
                _ => ranges.push((seat, seat + 1)),
            }
        }
        ranges
    }
}
