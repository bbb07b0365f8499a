//! When a program that a worker executes counts as ready.

use std::time::Duration;

/// When the program that a worker runs by [`Worker::exec`](crate::Worker::exec) counts as ready:
/// [`Builder::readiness`](crate::Builder::readiness).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Readiness {
    /// When it, or another process that it has started, waits for connections on one of the pool's sockets, or says so
    /// as with [`Notify`](Readiness::Notify). One that cannot be seen to wait, since it may not be looked at or waits in an
    /// io_uring(7), counts as ready after a second.
    #[default]
    Auto,
    /// Once it is executed: its sockets listen already, so what comes waits until it accepts. A program that cannot
    /// serve, because of a mistake in it, is taken for one that does.
    Listen,
    /// When it, or another process of its user or root's, sends `READY=1` to the socket that `NOTIFY_SOCKET` names
    /// (sd_notify(3)).
    Notify,
    /// So long after it is executed, at most 24 h.
    Delay(Duration),
}
