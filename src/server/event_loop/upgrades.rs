//! The connections that the application has taken over: they count, and a drain waits for them.

use std::sync::{Arc, Weak};

use crate::server::answer::guard::UpgradeGuard;
use crate::server::answer::notice::Notice;
use crate::server::mailbox::Mailbox;

/// How many connections the application has, and how they are told of a drain.
#[derive(Debug, Default)]
pub(super) struct Upgrades {
    count: usize,
    drains: Vec<Weak<Notice>>,
}

impl Upgrades {
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// One more begins; it is told at once if `is_draining`.
    pub(super) fn begin(&mut self, mailbox: &Arc<Mailbox>, is_draining: bool) -> UpgradeGuard {
        let drain = Arc::new(Notice::default());
        if is_draining {
            drain.tell();
        }
        self.count += 1;
        // Those that are over are forgotten when they are as many as the others.
        if self.drains.len() >= 2 * self.count {
            self.drains.retain(|drain| drain.strong_count() > 0);
        }
        self.drains.push(Arc::downgrade(&drain));
        UpgradeGuard::new(drain, Arc::clone(mailbox))
    }

    /// So many are over.
    pub(super) fn end(&mut self, count: usize) {
        self.count -= count;
    }

    /// All that are there, to be told.
    pub(super) fn take_drains(&mut self) -> Vec<Weak<Notice>> {
        std::mem::take(&mut self.drains)
    }
}
