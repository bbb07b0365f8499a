//! Which processes take over the connections of a worker that leaves.
//!
//! - `balance.rs`: has workers pass connections to each other
//!
//! It owns the pair of sockets of each slot ([`crate::shared::handover`]), and never reads or writes them. Its input:
//! which workers serve, and which of them report that they take connections over. Its output: orders to workers.

mod balance;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use log::debug;

use self::balance::Balancing;
use crate::parent::process::Roster;
use crate::parent::supervisor::{Pid, PoolState, SlotId};
use crate::shared::config::Rebalance;
use crate::shared::handover::Pair;
use crate::shared::scoreboard::{ParentBoard, Row};
use crate::sys;
use crate::time::Time;

/// The maximum number of slots to which one worker passes its connections.
const RECEIVERS_MAX: usize = 8;

/// How long a worker may take to empty the queue of a slot that is no more, before this is checked again.
const EMPTYING_TIMEOUT: Duration = Duration::from_secs(3);

/// The pairs of the slots.
#[derive(Debug, Default)]
pub(super) struct Handover {
    pairs: BTreeMap<SlotId, Pair>,
    emptying: Vec<Emptying>,
    /// Whether the old pool, in an upgrade, has the same pairs.
    has_inherited: bool,
    balancing: Balancing,
    /// The number of slots of the new pool, once it serves and takes connections over.
    successor: Option<usize>,
}

/// A pair to which nothing more is sent, and whose queue may hold connections.
#[derive(Debug)]
struct Emptying {
    slot: SlotId,
    pair: Pair,
    /// The worker that empties it, and when to check.
    by: Option<(Pid, Time)>,
}

impl Handover {
    /// With the pairs of the old pool, by slot.
    pub(super) fn new(inherited: Vec<Option<Pair>>) -> Handover {
        let pairs = inherited.into_iter().enumerate();
        let pairs: BTreeMap<_, _> = pairs.filter_map(|(slot, pair)| Some((slot, pair?))).collect();
        Handover { has_inherited: !pairs.is_empty(), pairs, ..Handover::default() }
    }

    /// A copy of the receiving end for the next process of a slot.
    ///
    /// # Errors
    ///
    /// If no descriptor is free. The process can do without.
    pub(super) fn receiver(&mut self, slot: SlotId) -> io::Result<OwnedFd> {
        if self.pairs.get(&slot).is_some_and(|pair| !pair.is_sound()) {
            self.retire(slot);
        }
        let pair = match self.pairs.entry(slot) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => entry.insert(Pair::new()?),
        };
        pair.restore();
        pair.receiver().try_clone_to_owned()
    }

    /// The pairs that a new binary inherits: those of the slots below this number, with `None` for a slot without.
    pub(super) fn pairs(&self, wanted: usize) -> Vec<Option<&Pair>> {
        (0..wanted).map(|slot| self.pairs.get(&slot)).collect()
    }

    /// The new pool serves, and takes connections over in this number of slots.
    pub(super) fn succeeded_by(&mut self, slots: usize) {
        self.successor = Some(slots).filter(|slots| *slots > 0);
    }

    /// This pool serves in place of the old one, which may have had more slots. Returns the number of slots to which
    /// the workers of the old pool may pass connections: those before the first whose worker takes none over.
    pub(super) fn take_over(&mut self, roster: &Roster, board: &ParentBoard) -> usize {
        let wanted = roster.supervisor.slots().wanted();
        let surplus: Vec<SlotId> = self.pairs.range(wanted..).map(|(slot, _)| *slot).collect();
        surplus.into_iter().for_each(|slot| self.retire(slot));
        let serving = roster.serving_by_slot();
        let takes = |slot: &usize| serving.get(slot).is_some_and(|pid| takes(*pid, roster, board).is_some());
        if self.has_inherited {
            (0..wanted).take_while(takes).count()
        } else {
            0
        }
    }

    /// Tells a worker, which is about to be told to leave, to whom to pass its connections.
    pub(super) fn name_destinations(&self, pid: Pid, roster: &Roster, board: &ParentBoard) {
        let Some(process) = roster.get(pid).filter(|process| process.ends.program.is_none()) else { return };
        let lifeline = &process.ends.lifeline;
        for slot in self.destinations(pid, process.slot, roster, board) {
            let Some(pair) = self.pairs.get(&slot) else { continue };
            pair.restore();
            let ordered = match roster.supervisor.state() {
                PoolState::Stopping => lifeline.hand_over_to_successor(slot, pair.sender()),
                _ => lifeline.hand_over(slot, pair.sender()),
            };
            if let Err(error) = ordered {
                // It dies, or does not read its orders. What it has then ends with it.
                return debug!("cannot order {} to pass its connections on: {error}", roster.tag(pid));
            }
        }
    }

    fn destinations(&self, pid: Pid, slot: SlotId, roster: &Roster, board: &ParentBoard) -> Vec<SlotId> {
        if roster.supervisor.state() == PoolState::Stopping {
            return self.successor.map(|count| of_successor(slot, self.pairs.len(), count)).unwrap_or_default();
        }
        let serving = roster.serving_by_slot();
        if serving.get(&slot).is_some_and(|it| *it != pid && takes(*it, roster, board).is_some()) {
            return vec![slot];
        }
        let others = serving.iter().filter(|(other, it)| **it != pid && **other < roster.supervisor.slots().wanted());
        let others = others.filter_map(|(other, it)| {
            let row = takes(*it, roster, board).filter(|row| !row.is_full())?;
            Some((row.open(), *other))
        });
        let mut others: Vec<(u64, SlotId)> = others.collect();
        others.sort_unstable();
        others.into_iter().take(RECEIVERS_MAX).map(|(_, slot)| slot).collect()
    }

    /// The slot will have no more workers, or its pair is broken.
    pub(super) fn retire(&mut self, slot: SlotId) {
        if let Some(pair) = self.pairs.remove(&slot) {
            pair.shut();
            self.emptying.push(Emptying { slot, pair, by: None });
        }
    }

    /// A worker has ended.
    pub(super) fn gone(&mut self, pid: Pid) {
        // Whatever it has done last.
        self.pairs.values().chain(self.emptying.iter().map(|rest| &rest.pair)).for_each(Pair::restore);
        self.emptying.iter_mut().for_each(|rest| _ = rest.by.take_if(|(by, _)| *by == pid));
    }

    /// A worker has become ready: compares for a while how many connections the workers have.
    pub(super) fn begin_to_balance(&mut self, now: Time) {
        self.balancing.begin(now);
    }

    /// Sets whether workers pass connections to each other so that all have about as many.
    pub(super) fn set_rebalance(&mut self, rebalance: Rebalance) {
        self.balancing.set(rebalance == Rebalance::Auto);
    }

    /// Has workers pass connections to each other, and empty the queues of slots that are no more. `are_some_busy`:
    /// some worker has been busy just now.
    pub(super) fn settle(&mut self, roster: &Roster, board: &ParentBoard, are_some_busy: bool, now: Time) {
        self.balance(roster, board, are_some_busy, now);
        self.emptying.retain(|rest| rest.by.is_some_and(|(_, at)| now < at) || !rest.is_empty());
        if self.emptying.is_empty() {
            return;
        }
        // Servers of one's own do not obey.
        let able = |pid| takes(pid, roster, board).filter(Row::is_neighbour);
        let serving = roster.supervisor.slots().serving().filter_map(|(_, pid)| Some((able(pid)?.open(), pid)));
        let Some((pid, process)) = serving.min().and_then(|(_, pid)| Some((pid, roster.get(pid)?))) else { return };
        for rest in self.emptying.iter_mut().filter(|rest| rest.by.is_none_or(|(_, at)| at <= now)) {
            match process.ends.lifeline.empty_queue(rest.slot, rest.pair.receiver()) {
                Ok(()) => rest.by = Some((pid, now + EMPTYING_TIMEOUT)),
                Err(error) => debug!("cannot order {} to empty a queue: {error}", roster.tag(pid)),
            }
        }
    }

    /// When to check a queue that is being emptied, or how many connections the workers have.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.emptying.iter().filter_map(|rest| Some(rest.by?.1)).chain(self.balancing.due()).min()
    }
}

impl Emptying {
    /// Whether nothing is in the queue. If that cannot be told, nobody can read it either.
    fn is_empty(&self) -> bool {
        sys::fds::unread(self.pair.receiver().as_fd()).map_or(true, |bytes| bytes == 0)
    }
}

/// The row of a process, if that takes connections over.
fn takes<'b>(pid: Pid, roster: &Roster, board: &'b ParentBoard) -> Option<Row<'b>> {
    let process = roster.get(pid).filter(|process| process.ends.program.is_none())?;
    Some(board.row(process.row)).filter(|row| row.takes())
}

/// The slots of the new pool, which has `theirs`, that take over the connections of this slot of a pool with `ours`:
/// each of theirs is named, and each of ours names one at least.
fn of_successor(slot: SlotId, ours: usize, theirs: usize) -> Vec<SlotId> {
    let ours = ours.max(1);
    match slot < theirs {
        true => (slot..theirs).step_by(ours).take(RECEIVERS_MAX).collect(),
        false => vec![slot % theirs.max(1)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parent::process::tests::roster;
    use crate::parent::program::ReadyCheck;
    use crate::shared::channel::Order;
    use crate::shared::handover::{Sender, Sent};

    #[test]
    fn every_slot_of_the_new_pool_gets_some() {
        for ours in 1..12_usize {
            for theirs in 1..12_usize {
                let mut named: Vec<usize> = (0..ours).flat_map(|slot| of_successor(slot, ours, theirs)).collect();
                assert!((0..ours).all(|slot| !of_successor(slot, ours, theirs).is_empty()));
                named.sort_unstable();
                named.dedup();
                let all: Vec<usize> = (0..theirs).collect();
                assert!(named == all || theirs > ours * RECEIVERS_MAX, "{ours} {theirs}: {named:?}");
            }
        }
    }

    #[test]
    fn a_queue_outlives_its_slot_until_it_is_empty() {
        let (roster, board, (worker, _messages)) = roster(ReadyCheck::Execution);
        let mut handover = Handover::default();
        let _receiver = handover.receiver(3).expect("a descriptor");
        let sender = Sender::from(handover.pairs[&3].sender().try_clone_to_owned().expect("a descriptor"));
        assert_eq!(sender.send(b"x", worker.stream().as_fd()), Sent::Done);
        handover.retire(3);
        assert_eq!(sender.send(b"x", worker.stream().as_fd()), Sent::Never, "nobody can add to it");
        handover.settle(&roster, &board, false, Time::default());
        assert_eq!(handover.emptying.len(), 1, "nobody is there to empty it");
        assert!(worker.order().is_none());
        // An empty one is closed at once.
        handover.receiver(4).expect("a descriptor");
        handover.retire(4);
        handover.settle(&roster, &board, false, Time::default());
        assert_eq!(handover.emptying.len(), 1);
        let order = |order: Option<Order>| matches!(order, Some(Order::EmptyQueue { .. }));
        assert!(!order(worker.order()));
    }

    #[test]
    fn a_broken_pair_is_replaced_before_the_next_process_gets_it() {
        let mut handover = Handover::default();
        handover.receiver(0).expect("a descriptor");
        assert!(handover.pairs[&0].is_sound());
        handover.pairs[&0].shut();
        handover.receiver(0).expect("a descriptor");
        assert!(handover.pairs[&0].is_sound() && handover.emptying.len() == 1);
    }
}
