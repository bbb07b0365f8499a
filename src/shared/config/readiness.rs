//! When a program that a worker executes counts as ready.

use std::time::Duration;

/// When the program that a worker becomes by [`Worker::exec`](crate::Worker::exec) counts as ready:
/// [`Builder::readiness`](crate::Builder::readiness).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Readiness {
    /// Once it is executed: its sockets listen already, so what comes waits until it accepts.
    #[default]
    Listen,
    /// When it, or another process of its user or root's, sends `READY=1` to the socket that `NOTIFY_SOCKET` names
    /// (sd_notify(3)).
    Notify,
    /// So long after it is executed, at most 24 h.
    Delay(Duration),
}
