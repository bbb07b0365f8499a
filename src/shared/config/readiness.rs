//! When a program that a worker executes counts as ready.

use std::time::Duration;

/// When the program that a worker runs by [`Worker::exec`](crate::Worker::exec) counts as ready:
/// [`Builder::readiness`](crate::Builder::readiness).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Readiness {
    /// When the program, or another process that it has started, waits for connections on one of the pool's sockets, or
    /// reports that it is ready as with [`Notify`](Readiness::Notify). If the wait cannot be observed, because the
    /// processes may not be inspected or use io_uring(7), the program counts as ready after a second.
    #[default]
    Auto,
    /// Once it is executed. Its sockets listen already, so connections wait until it accepts. A program that cannot
    /// serve because of a bug counts as ready, too.
    Listen,
    /// When the program, or another process of its user or of root, sends `READY=1` to the socket in `NOTIFY_SOCKET`
    /// (sd_notify(3)).
    Notify,
    /// This time after it is executed, at most 24 h.
    Delay(Duration),
}
