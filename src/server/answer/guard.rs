//! Keeps connections of the application among those of the worker.

use std::sync::Arc;

use crate::server::answer::notice::Notice;
use crate::server::mailbox::Mailbox;

/// Keeps an upgraded connection among those of its worker. Until this is dropped, the connection counts, a drain waits
/// for it, and it is told about the drain. See [`Upgraded::into_parts`](crate::Upgraded::into_parts).
#[derive(Debug)]
#[must_use = "the connection counts until this is dropped"]
pub struct UpgradeGuard {
    drain: Arc<Notice>,
    mailbox: Arc<Mailbox>,
}

impl UpgradeGuard {
    pub(crate) fn new(drain: Arc<Notice>, mailbox: Arc<Mailbox>) -> UpgradeGuard {
        UpgradeGuard { drain, mailbox }
    }

    /// Whether the worker drains and this connection should end, in the way that its protocol provides. Connections are
    /// notified one after the other, over at most five seconds, so that their clients do not all reconnect at once.
    pub fn is_draining(&self) -> bool {
        self.drain.has_come()
    }

    /// Runs `hook` as soon as [`is_draining`](UpgradeGuard::is_draining) is true, or at once if it is already. The hook
    /// runs on the worker's only thread; send a message from it, or wake a task.
    pub fn on_drain(&self, hook: impl FnOnce() + Send + 'static) {
        self.drain.when(hook);
    }
}

impl Drop for UpgradeGuard {
    fn drop(&mut self) {
        self.mailbox.give_back();
    }
}
