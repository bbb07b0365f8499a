//! PURE. The effects that were not returned yet. A later event can make one of them obsolete.

use std::collections::VecDeque;

use crate::parent::supervisor::event::{Effect, Notice, Pid, SlotId};

#[derive(Debug, Default)]
pub(super) struct Effects {
    pub(super) queue: VecDeque<Effect>,
}

impl Effects {
    pub(super) fn push(&mut self, effect: Effect) {
        self.queue.push_back(effect);
    }

    pub(super) fn notice(&mut self, notice: Notice) {
        self.push(Effect::Notice(notice));
    }

    pub(super) fn pop(&mut self) -> Option<Effect> {
        self.queue.pop_front()
    }

    /// Drops the effects on a process that was reaped.
    pub(super) fn forget(&mut self, pid: Pid) {
        self.queue.retain(|effect| effect.pid() != Some(pid));
    }

    /// Drops a pending report that all workers are ready.
    pub(super) fn forget_all_ready(&mut self) {
        self.queue.retain(|effect| !matches!(effect, Effect::Notice(Notice::AllReady { .. })));
    }

    pub(super) fn has_spawn(&self, id: SlotId) -> bool {
        self.queue.iter().any(|effect| is_spawn(effect, id))
    }

    /// Withdraws a queued start. Returns whether there was one.
    pub(super) fn withdraw_spawn(&mut self, id: SlotId) -> bool {
        let index = self.queue.iter().position(|effect| is_spawn(effect, id));
        index.and_then(|index| self.queue.remove(index)).is_some()
    }
}

fn is_spawn(effect: &Effect, id: SlotId) -> bool {
    matches!(effect, Effect::Spawn { slot, .. } if *slot == id)
}
