//! The connections that wait to be passed on to other processes, and the queues of those.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::server::mailbox::Place;
use crate::shared::handover::{Gate, Sender, Sent};
use crate::time::Time;

/// How long receivers may have no room, or leave their queues full.
pub(super) const FULL_MAX: Duration = Duration::from_millis(800);

/// How long receivers may leave their queues full when this worker leaves. One that a signal has stopped, or that dies,
/// is replaced meanwhile by another, which goes on with the queue, and connections that get a request are served here.
const UNREAD_MAX: Duration = Duration::from_secs(10);

/// The processes to which connections are passed on, and the connections that wait for that.
#[derive(Debug)]
pub(super) struct HandoverQueue {
    /// Which connections the processes of the pool take from each other.
    pub(super) gate: Gate,
    pub(super) destinations: Destinations,
    /// When the worker leaves: the connections to pass on.
    pub(super) queue: VecDeque<Candidate>,
    /// Orders to pass some on while the worker serves.
    pub(super) moves: VecDeque<Move>,
    /// When to go on after all queues were full.
    pub(super) retry: Option<Time>,
    /// When a connection was last passed on, or the worker began to leave.
    pub(super) progress: Time,
}

/// A connection that waits to be passed on, if it still waits for its client as it did then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) place: Place,
    pub(super) deadline: Time,
}

/// Some connections for another slot.
#[derive(Debug)]
pub(super) struct Move {
    pub(super) destinations: Destinations,
    pub(super) left: usize,
    /// Whether only those that have had a request lately.
    pub(super) is_of_busy: bool,
    /// Where to go on in the table.
    pub(super) index: usize,
    pub(super) until: Time,
}

/// Queues of other slots, which are used in turn.
#[derive(Debug, Default)]
pub(super) struct Destinations {
    pub(super) senders: Vec<Destination>,
    next: usize,
    /// Whether the queue of one with room was full at the last attempt.
    is_unread: bool,
}

/// The queue of another slot.
#[derive(Debug)]
pub(super) struct Destination {
    slot: usize,
    sender: Sender,
    /// Whether it is a slot of the new pool in an upgrade, whose reports this pool does not see.
    is_successor: bool,
}

impl Destinations {
    pub(super) fn send(&mut self, record: &[u8], connection: BorrowedFd<'_>, is_full: impl Fn(usize) -> bool) -> Sent {
        self.is_unread = false;
        for _ in 0..self.senders.len() {
            let index = self.next % self.senders.len();
            let Destination { slot, sender, is_successor } = &self.senders[index];
            let is_full = !is_successor && is_full(*slot);
            let sent = if is_full { Sent::Full } else { sender.send(record, connection) };
            self.is_unread |= sent == Sent::Full && !is_full;
            match sent {
                Sent::Done => {
                    self.next = index + 1;
                    return Sent::Done;
                }
                Sent::Full => self.next = index + 1,
                Sent::Never => {
                    self.senders.remove(index);
                    self.next = index;
                }
            }
        }
        if self.senders.is_empty() {
            Sent::Never
        } else {
            Sent::Full
        }
    }
}

impl HandoverQueue {
    pub(super) fn new(gate: Gate) -> HandoverQueue {
        let (queue, moves) = (VecDeque::new(), VecDeque::new());
        HandoverQueue {
            gate,
            destinations: Destinations::default(),
            queue,
            moves,
            retry: None,
            progress: Time::default(),
        }
    }

    /// When this worker leaves, it passes its connections on to this slot, among others.
    pub(super) fn add_outlet(&mut self, slot: usize, to: Sender, is_successor: bool) {
        self.destinations.senders.retain(|other| other.slot != slot);
        self.destinations.senders.push(Destination { slot, sender: to, is_successor });
    }

    /// Whether it passes on to this slot.
    pub(super) fn leads_to(&self, slot: usize) -> bool {
        self.destinations.senders.iter().any(|other| other.slot == slot)
    }

    /// Passes up to `left` idle connections on to this slot.
    pub(super) fn add_move(&mut self, slot: usize, left: usize, is_of_busy: bool, to: Sender, now: Time) {
        let destination = Destination { slot, sender: to, is_successor: false };
        let destinations = Destinations { senders: vec![destination], ..Destinations::default() };
        self.moves.push_back(Move { destinations, left, is_of_busy, index: 0, until: now + FULL_MAX });
    }

    /// The worker leaves. Returns whether there is anybody to pass connections on to.
    pub(super) fn begin(&mut self, now: Time) -> bool {
        self.moves.clear();
        (self.retry, self.progress) = (None, now);
        !self.destinations.senders.is_empty()
    }

    /// When the worker, which leaves, waits no longer for receivers that leave their queues full.
    pub(super) fn gives_up_at(&self, drain_timeout: Duration) -> Time {
        let most = if self.destinations.is_unread { UNREAD_MAX } else { FULL_MAX };
        self.progress + if drain_timeout.is_zero() { most } else { most.min(drain_timeout / 2) }
    }

    /// When to go on.
    pub(super) fn due(&self) -> Option<Time> {
        (!self.is_empty()).then(|| self.retry.unwrap_or_default())
    }

    /// Whether there is nothing to pass on.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.moves.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::handover::{Pair, Receiver, Taken};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    /// A receiver that a signal has stopped is replaced, which takes a while.
    #[test]
    fn a_queue_that_nobody_reads_is_waited_for_longer_than_room() {
        let pair = Pair::new().expect("a pair");
        let (connection, _client) = UnixStream::pair().expect("a socket pair");
        let mut queue = HandoverQueue::new(Gate::default());
        queue.add_outlet(3, pair.sender().try_clone_to_owned().expect("a descriptor").into(), false);
        let (whole, half) = (Duration::from_secs(60), Duration::from_secs(3));
        assert_eq!(queue.destinations.send(b"x", connection.as_fd(), |_| true), Sent::Full);
        assert_eq!(queue.gives_up_at(whole), Time::default() + FULL_MAX, "it is at its limit");
        while queue.destinations.send(b"x", connection.as_fd(), |_| false) == Sent::Done {}
        assert_eq!(queue.gives_up_at(whole), Time::default() + UNREAD_MAX);
        assert_eq!(queue.gives_up_at(Duration::ZERO), Time::default() + UNREAD_MAX);
        assert_eq!(queue.gives_up_at(half), Time::default() + half / 2, "the worker is killed soon");
    }

    #[test]
    fn outlets_are_used_in_turn_and_given_up_when_they_end() {
        let pairs = [Pair::new().expect("a pair"), Pair::new().expect("a pair")];
        let (connection, _client) = UnixStream::pair().expect("a socket pair");
        let mut destinations = Destinations::default();
        for (slot, pair) in pairs.iter().enumerate() {
            let sender = pair.sender().try_clone_to_owned().expect("a descriptor").into();
            destinations.senders.push(Destination { slot, sender, is_successor: false });
        }
        let mut room = vec![0; crate::shared::handover::record::RECORD_MAX];
        let mut received = |pair: &Pair| {
            let receiver = Receiver::from(pair.receiver().try_clone_to_owned().expect("a descriptor"));
            std::iter::from_fn(|| matches!(receiver.take(&mut room), Taken::Record(..)).then_some(())).count()
        };
        for _ in 0..4 {
            assert_eq!(destinations.send(b"x", connection.as_fd(), |_| false), Sent::Done);
        }
        assert_eq!((received(&pairs[0]), received(&pairs[1])), (2, 2));
        for _ in 0..3 {
            assert_eq!(destinations.send(b"x", connection.as_fd(), |slot| slot == 0), Sent::Done);
        }
        assert_eq!((received(&pairs[0]), received(&pairs[1])), (0, 3), "a worker without room gets none");
        destinations.senders[1].is_successor = true;
        assert_eq!(destinations.send(b"x", connection.as_fd(), |_| true), Sent::Done);
        assert_eq!((received(&pairs[0]), received(&pairs[1])), (0, 1), "this pool's reports are not about the new one");
        destinations.senders[1].is_successor = false;
        pairs[1].shut();
        assert_eq!(destinations.send(b"x", connection.as_fd(), |_| false), Sent::Done);
        assert_eq!(destinations.send(b"x", connection.as_fd(), |_| true), Sent::Full);
        pairs[0].shut();
        assert_eq!(destinations.send(b"x", connection.as_fd(), |_| false), Sent::Never);
    }
}
