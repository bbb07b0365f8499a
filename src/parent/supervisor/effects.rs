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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_later_event_makes_obsolete_is_dropped_and_nothing_else() {
        let (spawn, drain) = (|slot| Effect::Spawn { slot, generation: 1 }, |pid| Effect::Drain { pid: Pid(pid) });
        let all_ready = Effect::Notice(Notice::AllReady { workers: 2 });
        let mut effects = Effects::default();
        [spawn(0), drain(10), all_ready, drain(11), spawn(1)].into_iter().for_each(|effect| effects.push(effect));
        effects.forget(Pid(10));
        effects.forget_all_ready();
        assert!(effects.has_spawn(0) && effects.has_spawn(1) && !effects.has_spawn(2));
        assert!(effects.withdraw_spawn(0) && !effects.withdraw_spawn(0));
        assert_eq!(std::iter::from_fn(|| effects.pop()).collect::<Vec<_>>(), [drain(11), spawn(1)]);
    }
}
