//! The connections that the application has taken over. They count, and a drain waits for them.

use std::sync::{Arc, Weak};

use crate::server::answer::guard::UpgradeGuard;
use crate::server::answer::notice::Notice;
use crate::server::mailbox::Mailbox;

/// The number of the application's connections, and their notices of a drain.
#[derive(Debug, Default)]
pub(super) struct Upgrades {
    count: usize,
    drains: Vec<Weak<Notice>>,
}

impl Upgrades {
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Another connection begins; it is notified at once if `is_draining`.
    pub(super) fn begin(&mut self, mailbox: &Arc<Mailbox>, is_draining: bool) -> UpgradeGuard {
        let drain = Arc::new(Notice::default());
        if is_draining {
            drain.tell();
        }
        self.count += 1;
        // Entries of ended connections are removed when they are as many as the others.
        if self.drains.len() >= 2 * self.count {
            self.drains.retain(|drain| drain.strong_count() > 0);
        }
        self.drains.push(Arc::downgrade(&drain));
        UpgradeGuard::new(drain, Arc::clone(mailbox))
    }

    /// This many have ended.
    pub(super) fn end(&mut self, count: usize) {
        self.count -= count;
    }

    /// Takes the notices of all of them.
    pub(super) fn take_drains(&mut self) -> Vec<Weak<Notice>> {
        std::mem::take(&mut self.drains)
    }
}
