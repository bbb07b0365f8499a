//! Custody: the parent's copies of all slots' sockets, from the first start of each slot until it is removed or the
//! pool ends.
//!
//! **Datagrams.** The parent keeps a copy of a slot's UDP socket as well, so datagrams in it wait for the next worker.
//! The kernel distributes by its hash. Neighbours cannot help, since a response must come from the same socket. So the
//! socket of a slot is closed at once when the slot is removed by scaling. The parent's reserved socket must not
//! receive: it is connected to itself, and closed once a slot's socket holds the address.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::parent::sockets::groups::Groups;
use crate::parent::sockets::steer::Steer;
use crate::shared::listener::{Reserved, SlotSockets};
use crate::time::Time;

/// How long another worker looks after the sockets of a slot that was removed by scaling, before they are closed. A
/// handshake in progress may need one or two retransmissions, one second and two more after the first try.
const CLOSE_DELAY: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub(crate) struct Custody {
    groups: Groups,
    /// Slots that were removed, and when to close their sockets.
    retired: BTreeMap<usize, Time>,
    /// When it was last asked which of these to close.
    asked: Time,
    steer: Steer,
}

impl Custody {
    /// Begins with the sockets that the old pool has handed over, if any, in the order of its groups.
    pub(super) fn new(steer: Steer, inherited: Vec<SlotSockets>) -> Custody {
        Custody { groups: Groups::new(inherited), retired: BTreeMap::new(), asked: Time::default(), steer }
    }

    /// The sockets of a slot, if it has any here.
    pub(in crate::parent) fn sockets(&self, slot: usize) -> Option<&SlotSockets> {
        self.groups.get(slot)
    }

    /// The slots whose sockets are here, in the order of the groups.
    pub(in crate::parent) fn slots(&self) -> &[usize] {
        self.groups.order()
    }

    /// Keeps copies of the sockets that a slot's worker has made, in addition to those here.
    pub(super) fn keep(&mut self, slot: usize, made: SlotSockets) {
        self.groups.join(slot, made);
        if self.steer.is_counting() {
            // Some may be the same as before, and the kernel accepts no socket twice.
            self.steer.count_out(&self.groups, slot);
            self.steer.count_in(&self.groups, slot);
        }
    }

    /// Checks a slot's sockets before they are passed on. Drops the flawed ones, and returns what they were and why.
    /// Restores the others, with this backlog, unless another process holds them and may need its own options.
    pub(super) fn check(&mut self, slot: usize, reserved: &[Reserved], backlog: Option<u32>) -> Vec<String> {
        let Some(sockets) = self.groups.get_mut(slot) else { return Vec::new() };
        let had_any = sockets.listening().next().is_some();
        let flaws = match backlog {
            Some(backlog) => sockets.restore(reserved, backlog),
            None => sockets.drop_flawed(reserved),
        };
        let has_any = sockets.listening().next().is_some();
        if has_any {
            self.steer.attach_again(&self.groups, slot);
        } else if had_any {
            self.steer.count_out(&self.groups, slot);
            self.steer.changed();
            self.groups.leave(slot);
        }
        flaws
    }

    /// The slot will have no more workers.
    pub(super) fn retire(&mut self, slot: usize, now: Time) {
        if let Some(sockets) = self.groups.get_mut(slot) {
            sockets.close_udp();
            self.retired.insert(slot, now + CLOSE_DELAY);
        }
    }

    /// The slot will have a worker again.
    pub(super) fn revive(&mut self, slot: usize) {
        self.retired.remove(&slot);
    }

    /// When the next retired slot must be closed. A slot that is due waits until other processes have released their
    /// copies of its sockets, which is an event.
    pub(super) fn deadline(&self) -> Option<Time> {
        let retired = self.retired.values().filter(|at| **at > self.asked).min().copied();
        retired.into_iter().chain(self.steer.deadline()).min()
    }

    /// The slots to be closed now.
    pub(super) fn expired(&mut self, now: Time) -> Vec<usize> {
        self.asked = now;
        self.retired.iter().filter(|(_, at)| **at <= now).map(|(slot, _)| *slot).collect()
    }

    /// Closes the last copies of a retired slot's sockets. The last index of the group moves to the closed socket's
    /// place, so neither may be chosen while that happens.
    pub(super) fn close(&mut self, slot: usize, now: Time) {
        self.retired.remove(&slot);
        let Some(index) = self.groups.index(slot) else {
            // Its sockets were broken.
            self.groups.take_sockets(slot);
            return;
        };
        let affected = [index, self.groups.order().len() - 1];
        self.steer.avoid(&self.groups, affected, now);
        self.steer.count_out(&self.groups, slot);
        if let Some(mut sockets) = self.groups.take_sockets(slot) {
            // A worker may have kept copies although it reports that it has not. Those would get connections.
            sockets.leave_groups();
        }
        self.groups.leave(slot);
        self.steer.changed();
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        self.steer.stop();
        self.groups.clear();
        self.retired.clear();
    }
}

/// What the kernel is told about these sockets.
impl Custody {
    /// How workers are chosen for connections, in words.
    pub(in crate::parent) fn balance(&self) -> &'static str {
        self.steer.method()
    }

    /// Begins to steer. In an upgrade the new pool does so once it serves; until then the old pool steers.
    pub(super) fn begin_to_steer(&mut self) {
        self.steer.begin();
    }

    /// Whether no other pool has the sockets any more.
    pub(super) fn is_sole(&self) -> bool {
        self.steer.is_counting()
    }

    /// No other pool has the sockets any more, so the kernel may count their connections for this one.
    pub(super) fn begin_counting(&mut self) {
        self.steer.begin_counting(&self.groups);
    }

    pub(super) fn stop_counting(&mut self) {
        self.steer.stop_counting(&self.groups);
    }

    /// Publishes which process serves each slot, by the row of each slot that is served, and tells the kernel whom to
    /// choose.
    pub(super) fn seat(&mut self, rows: &BTreeMap<usize, usize>, now: Time) {
        self.steer.seat(&self.groups, rows, now);
    }

    /// A worker asks to check which slots the kernel chooses. What must be attached is checked in every turn
    /// anyway.
    pub(super) fn settle_idle(&mut self, now: Time) {
        self.steer.settle_idle(now);
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::shared::scoreboard::ParentBoard;
    use crate::shared::steer::{self, Steering};

    #[test]
    fn a_slot_that_cannot_be_closed_yet_is_not_asked_about_all_the_time() {
        let board = Rc::new(ParentBoard::new(2).expect("memory"));
        let steering = Steering { program: steer::NOTHING, method: "", ebpf: None };
        let slots = (0..2).map(|_| SlotSockets::default()).collect();
        let mut custody = Custody::new(Steer::new(board, Rc::default(), steering), slots);
        let at = Time::from_millis;
        custody.retire(1, at(1_000));
        assert_eq!((custody.expired(at(3_999)), custody.deadline()), (vec![], Some(at(4_000))));
        // A neighbour is busy and holds its sockets.
        assert_eq!((custody.expired(at(4_000)), custody.deadline()), (vec![1], None));
        custody.retire(0, at(2_000));
        assert_eq!((custody.expired(at(4_500)), custody.deadline()), (vec![1], Some(at(5_000))));
        custody.close(1, at(4_600));
        assert_eq!((custody.expired(at(5_000)), custody.deadline()), (vec![0], None));
    }
}
