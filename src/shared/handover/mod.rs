//! Connections that outlive their worker: what passes from the worker that leaves to the process that serves on.
//!
//! An idle connection is a descriptor and a few facts. A worker that is told to leave passes each of its kept
//! connections on between two requests, so no client notices a restart, an upgrade, scaling or recycling.
//!
//! - `record.rs`: PURE. What goes along with a descriptor
//! - `pair.rs`: the two ends of a slot's pair of sockets
//! - `gate.rs`: whether a descriptor that was passed on is a client's connection to this pool
//! - `plan.rs`: PURE. Which worker gives how many connections to which, so that all have as many
//! - `activity.rs`: PURE. The same for connections with requests, so that all are as busy
//!
//! # How it works
//!
//! **A pair for each slot.** The parent makes a SOCK_SEQPACKET pair for each slot, and never reads or writes it. It
//! keeps both ends as it keeps the slot's listening sockets: they outlive the processes of the slot, and a new binary
//! inherits them. Each process that serves the slot gets the *receiving* end when it is forked. What is in the queue
//! when a receiver dies is read by its replacement. The parent has shut down the other direction of both.
//!
//! **Orders.** Before it tells a worker to leave, the parent sends it an order for each successor, over the channel of
//! orders, with the *sending* end of the successor's slot ([`Order::HandOver`]):
//! - its own slot's, if a replacement serves the slot (restart, recycling by age, requests or memory)
//! - those of up to eight serving neighbours, if the slot has no replacement (scaling down, disconnected workers)
//! - those of the slots of the new pool, in an upgrade
//!
//! Without an order, as when the pool ends or the parent has died, the worker drains as it always did. Only a slot
//! whose process reports in its row that it takes connections over (`Row::takes`) is named to others.
//!
//! **The sender** has got one or more [`Sender`]s when its lifeline ends. It passes on each connection that waits for a
//! request, or for the rest of a head (whose bytes go along), at once; a busy one after its response, which does not
//! say `Connection: close`. It spreads them over the senders in turn. [`Sent::Full`] means that the queue is full, or
//! that the kernel has too many descriptors in flight (ETOOMANYREFS): it tries again every two milliseconds, until
//! nothing was taken for 800 ms. [`Sent::Never`] means that the queue is gone: it uses the
//! others. Without any, it drains the rest as it always did. Only after [`Sent::Done`] does it close its copy, without
//! shutdown(2); so at each moment the connection has an owner, and if either process dies, it is at most the one
//! connection in its hands. While it leaves, it goes on reading its own receiving end, unless it is its own slot's that
//! it sends to, and passes on what it finds there.
//!
//! **The receiver** reads up to [`RECORDS`] records per turn, and only while it has room for a connection, so what is
//! in the queue waits there for a place: a connection that was moved evicts none. What has waited for a second is not
//! left there, since its client may wait for a response: if it has sent something, it gets a last response, beyond the
//! limit; otherwise the connection is closed, as any idle one at the limit. The process that serves a slot and its
//! replacement may receive at a time, so what one has peeked at may be with the other: the descriptor of a record is
//! the one that came with it in the same recvmsg(2). It trusts no record. It makes sure that the descriptor is a
//! connected stream socket, not listening, with the local address of one of the pool's listeners; asks the kernel for
//! the peer's address; makes it non-blocking, and each call on it as well (MSG_DONTWAIT), since the sender may keep a
//! copy and clear the flag. A record that is malformed or of an unknown version, or whose descriptor is not such a
//! socket, is dropped with the descriptor, and counted. Closing a socket never waits, as it is told not to linger;
//! closing the file of a network or user file system may (close(2), FUSE). A worker that has such a file can therefore
//! stall a receiver, which is then replaced as any that stalls; in the strict sandbox no worker can open one.
//!
//! **The queue of a removed slot.** When a slot is removed, the parent shuts down the sending end, so nobody can send
//! any more, and gives the receiving end to a worker that serves, which takes what is in it and closes it
//! ([`Order::EmptyQueue`]).
//!
//! **Balance.** After a worker became ready, the parent compares for some seconds how many connections the workers
//! have. If they differ too much, it orders the fullest to move some to the emptiest ([`Order::Move`]), over the
//! sending end that comes with the order and is closed afterwards. It orders no more before those have been passed on.
//! While workers are busy, it also looks four times a second at which; if one is busy far more often than others, it
//! orders that one to move a part of the connections that have had a request lately. Nothing is due in a pool that is
//! idle.
//!
//! **The counters.** A connection that was passed on counts as closed in the one row and as accepted in the other, so
//! the number of open connections, on which steering depends, is right. `Handed` and `Taken` in the row say how many of
//! them these were; they are subtracted where people see the numbers.
//!
//! **The sandbox** permits sendmsg(2) and recvmsg(2) on what is open, since orders bring descriptors as well. A worker
//! can pass descriptors only to the sockets that the parent has given to it: no sending end before it is told to leave,
//! or to move some.
//!
//! [`Order::HandOver`]: crate::shared::channel::Order::HandOver
//! [`Order::EmptyQueue`]: crate::shared::channel::Order::EmptyQueue
//! [`Order::Move`]: crate::shared::channel::Order::Move

pub(crate) mod activity;
mod gate;
mod pair;
pub(crate) mod plan;
pub(crate) mod record;

pub(crate) use self::gate::{Admitted, Gate};
pub(crate) use self::pair::{Pair, Receiver, Sender, Sent, Taken};
pub(crate) use self::record::Record;

/// The maximum number of records to receive in a turn.
pub(crate) const RECORDS: usize = 64;
