//! Connections that are the application's and still count as the worker's.

use std::sync::Arc;

use crate::server::answer::notice::Notice;
use crate::server::mailbox::Mailbox;

/// Holds an upgraded connection among those of its worker: until it is dropped, the connection counts, a drain waits for
/// it, and it is told of that. See [`Upgraded::into_parts`](crate::Upgraded::into_parts).
#[derive(Debug)]
pub struct UpgradeGuard {
    drain: Arc<Notice>,
    mailbox: Arc<Mailbox>,
}

impl UpgradeGuard {
    pub(crate) fn new(drain: Arc<Notice>, mailbox: Arc<Mailbox>) -> UpgradeGuard {
        UpgradeGuard { drain, mailbox }
    }

    /// Whether the connection's moment in a drain of the worker has come: it had better end now, with what its
    /// protocol has for that. Connections are told one after the other, over five seconds at most, so that their
    /// clients do not all come back at once.
    pub fn is_draining(&self) -> bool {
        self.drain.has_come()
    }

    /// Runs `hook` as soon as [`is_draining`](UpgradeGuard::is_draining) is true: in the worker, on its only thread, or
    /// at once if it is true already. Send a message from it, or wake a task.
    pub fn on_drain(&self, hook: impl FnOnce() + Send + 'static) {
        self.drain.when(hook);
    }
}

impl Drop for UpgradeGuard {
    fn drop(&mut self) {
        self.mailbox.give_back();
    }
}
