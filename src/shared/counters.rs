//! PURE. The counters of a process, and their sums.
#![forbid(unsafe_code)]

#[cfg(feature = "tls")]
use std::cell::Cell;

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
    /// Connections that other processes have passed to it, and that it has passed to others. Those count neither as
    /// accepted nor as closed.
    pub(crate) taken: u64,
    pub(crate) handed: u64,
    /// Records of connections that it has dropped, since they were not sound.
    pub(crate) discarded: u64,
    /// [`Handshake`]s, by how they have ended.
    pub(crate) handshakes: [u64; HANDSHAKES],
}

/// How a handshake of TLS has ended, or a connection with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "only TLS counts them"))]
pub(crate) enum Handshake {
    /// Whole, or resumed by a ticket.
    Full12,
    Resumed12,
    Full13,
    Resumed13,
    /// Refused because of what the client has sent.
    Failed,
    /// Refused by the client.
    Refused,
    /// Not finished when the client left, or its time was over.
    Unfinished,
    /// A request without TLS.
    Plain,
    /// Ended in favour of another, since there were too many.
    Crowded,
    /// Finished, but the connection was broken later: by a damaged record, or by an alert.
    Broken,
    /// The client has closed the connection without saying that nothing more comes.
    Truncated,
}

/// The number of ways.
pub(crate) const HANDSHAKES: usize = 11;

/// How many have ended in each way, for whoever counts them in one worker.
#[cfg(feature = "tls")]
#[derive(Debug, Default)]
pub(crate) struct HandshakeCounts(Cell<[u64; HANDSHAKES]>);

#[cfg(feature = "tls")]
impl HandshakeCounts {
    pub(crate) fn add(&self, outcome: Handshake) {
        let mut counts = self.0.get();
        counts[outcome as usize] += 1;
        self.0.set(counts);
    }

    pub(crate) fn all(&self) -> [u64; HANDSHAKES] {
        self.0.get()
    }
}

/// The number of classes of status codes (RFC 9110 section 15).
pub(crate) const CLASSES: usize = 5;

impl Counters {
    pub(crate) fn open(&self) -> u64 {
        let ended = self.closed.saturating_add(self.handed);
        self.accepted.saturating_add(self.taken).saturating_sub(ended)
    }

    /// The process is gone, and its connections with it.
    pub(crate) fn end(&mut self) {
        self.closed = self.closed.saturating_add(self.open());
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
            taken: self.taken.max(other.taken),
            handed: self.handed.max(other.handed),
            discarded: self.discarded.max(other.discarded),
            handshakes: std::array::from_fn(|way| self.handshakes[way].max(other.handshakes[way])),
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
        self.taken = self.taken.saturating_add(other.taken);
        self.handed = self.handed.saturating_add(other.handed);
        self.discarded = self.discarded.saturating_add(other.discarded);
        let (responses, handshakes) = (self.responses.iter_mut(), self.handshakes.iter_mut());
        for (count, more) in responses.zip(other.responses).chain(handshakes.zip(other.handshakes)) {
            *count = count.saturating_add(more);
        }
    }
}
