//! What the parent tells a worker to do.

use std::fs::File;
use std::os::fd::OwnedFd;

use crate::shared::handover::plan::Selection;
use crate::shared::handover::{Receiver, Sender};

/// An order to a worker.
#[derive(Debug)]
pub(crate) enum Order {
    /// Look after these sockets of another slot, in addition to its other neighbours.
    Watch { slot: usize, sockets: Vec<OwnedFd> },
    /// Let go of that slot's sockets, and report it.
    Release { slot: usize },
    /// Continue the access log in this file.
    Log { file: File },
    /// End the program at once, with all processes that it started.
    End,
    /// Look at all queues: a process that shared one was killed, and may have taken a wake-up along.
    Look,
    /// When it is told to finish, pass the connections to this slot, of this pool or of its successor in an upgrade; to
    /// several in turn, if the order comes again. See [`crate::shared::handover`].
    HandOver { slot: usize, to: Sender, is_successor: bool },
    /// Pass some connections, between two requests, to this slot.
    Move { slot: usize, selection: Selection, to: Sender },
    /// Take over the connections in this queue of a slot that is no more, then close it.
    EmptyQueue { from: Receiver },
}
