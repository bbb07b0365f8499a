//! PURE. The counters of a process, and their sums.
#![forbid(unsafe_code)]

/// What a process has counted since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) requests: u64,
    pub(crate) accepted: u64,
    pub(crate) closed: u64,
    pub(crate) refused: u64,
    pub(crate) panics: u64,
    /// Log lines that could not be written.
    pub(crate) lost: u64,
    /// Responses, by the first digit of their status, from 1 on.
    pub(crate) responses: [u64; CLASSES],
    /// Bytes that the sockets of clients have accepted.
    pub(crate) sent: u64,
}

/// The number of classes of status codes (RFC 9110 section 15).
pub(crate) const CLASSES: usize = 5;

impl Counters {
    pub(crate) fn open(&self) -> u64 {
        self.accepted.saturating_sub(self.closed)
    }

    /// The maximum of each counter.
    pub(crate) fn at_least(&self, other: &Counters) -> Counters {
        Counters {
            requests: self.requests.max(other.requests),
            accepted: self.accepted.max(other.accepted),
            closed: self.closed.max(other.closed),
            refused: self.refused.max(other.refused),
            panics: self.panics.max(other.panics),
            lost: self.lost.max(other.lost),
            responses: std::array::from_fn(|class| self.responses[class].max(other.responses[class])),
            sent: self.sent.max(other.sent),
        }
    }

    pub(crate) fn add(&mut self, other: &Counters) {
        // The counters come from workers, which may have written anything.
        self.requests = self.requests.saturating_add(other.requests);
        self.accepted = self.accepted.saturating_add(other.accepted);
        self.closed = self.closed.saturating_add(other.closed);
        self.refused = self.refused.saturating_add(other.refused);
        self.panics = self.panics.saturating_add(other.panics);
        self.lost = self.lost.saturating_add(other.lost);
        self.sent = self.sent.saturating_add(other.sent);
        for (count, more) in self.responses.iter_mut().zip(other.responses) {
            *count = count.saturating_add(more);
        }
    }
}
