//! PURE. Which workers look after each slot's queue besides its own worker: neighbours, which accept waiting
//! connections if the slot's worker is busy, dead, not started yet, or gone for good.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use crate::parent::supervisor::{Pid, SlotId};

/// Which worker looks after which slot.
#[derive(Debug)]
pub(crate) struct Neighbours {
    /// The number of neighbours per slot.
    count: usize,
    slots: BTreeMap<SlotId, Watched>,
    /// The orders to release that are still unanswered, in their order.
    releasing: Vec<(Pid, SlotId)>,
}

#[derive(Debug, Default)]
struct Watched {
    owner: Option<Pid>,
    by: Vec<Pid>,
}

/// An order to a worker about another slot's sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Look after them, behind the slot's own worker, even if that is the newer one.
    Watch { slot: SlotId, by: Pid },
    /// Let go of them.
    Release { slot: SlotId, from: Pid },
}

impl Neighbours {
    pub(crate) fn new(count: usize) -> Neighbours {
        Neighbours { count, slots: BTreeMap::new(), releasing: Vec::new() }
    }

    /// Compares the actual assignment with the wanted one. `slots` are all slots whose sockets must be looked after,
    /// with the worker that serves each; `able` are the workers that can do it.
    pub(crate) fn plan(&mut self, slots: &[(SlotId, Option<Pid>)], able: &[Pid]) -> Vec<Order> {
        let mut orders = Vec::new();
        self.slots.retain(|slot, watched| {
            let stays = slots.iter().any(|(it, _)| it == slot);
            if !stays {
                orders.extend(watched.by.iter().map(|from| Order::Release { slot: *slot, from: *from }));
                self.releasing.extend(watched.by.iter().map(|from| (*from, *slot)));
            }
            stays
        });
        let mut load: BTreeMap<Pid, usize> = able.iter().map(|pid| (*pid, 0)).collect();
        for pid in self.slots.values().flat_map(|watched| &watched.by) {
            load.entry(*pid).and_modify(|count| *count += 1);
        }
        for (slot, owner) in slots {
            let watched = self.slots.entry(*slot).or_default();
            // A worker that now serves the slot has the sockets anyway, and a worker that leaves lets go by itself.
            watched.by.retain(|pid| load.contains_key(pid) && Some(*pid) != *owner);
            if *owner != watched.owner {
                watched.owner = *owner;
                // The kernel wakes watchers in the order of their registration, so the neighbours must register again.
                let again = watched.by.iter().filter(|_| owner.is_some());
                orders.extend(again.map(|by| Order::Watch { slot: *slot, by: *by }));
            }
            while watched.by.len() < self.count {
                let others = load.iter().filter(|(pid, _)| Some(**pid) != *owner && !watched.by.contains(pid));
                let Some((&by, _)) = others.min_by_key(|(_, count)| **count) else { break };
                load.entry(by).and_modify(|count| *count += 1);
                watched.by.push(by);
                orders.push(Order::Watch { slot: *slot, by });
            }
        }
        orders
    }

    /// A worker has let go of the sockets in the oldest order to it.
    pub(crate) fn released(&mut self, pid: Pid) {
        if let Some(index) = self.releasing.iter().position(|(from, _)| *from == pid) {
            self.releasing.remove(index);
        }
    }

    /// A worker has ended, and its copies are gone.
    pub(crate) fn gone(&mut self, pid: Pid) {
        self.releasing.retain(|(from, _)| *from != pid);
        for watched in self.slots.values_mut() {
            watched.by.retain(|it| *it != pid);
        }
    }

    /// Whether one of these processes, given with their slots, looks after the queue of the other one.
    pub(crate) fn share(&self, (a, slot_of_a): (Pid, SlotId), (b, slot_of_b): (Pid, SlotId)) -> bool {
        let watches = |pid, slot| self.slots.get(&slot).is_some_and(|watched| watched.by.contains(&pid));
        watches(a, slot_of_b) || watches(b, slot_of_a)
    }

    /// Whether some worker holds the slot's sockets for another.
    pub(crate) fn hold(&self, slot: SlotId) -> bool {
        let is_watched = self.slots.get(&slot).is_some_and(|watched| !watched.by.is_empty());
        is_watched || self.releasing.iter().any(|(_, releasing)| *releasing == slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEIGHBOURS: usize = 3;

    /// Five slots, each served by the pid ten above it.
    const SLOTS: [(SlotId, Option<Pid>); 5] =
        [(0, Some(Pid(10))), (1, Some(Pid(11))), (2, Some(Pid(12))), (3, Some(Pid(13))), (4, Some(Pid(14)))];

    #[test]
    fn a_worker_and_its_neighbours_share_queues_whoever_looks_after_whose() {
        let mut neighbours = Neighbours::new(1);
        assert_eq!(neighbours.plan(&SLOTS[..3], &pids(&SLOTS[..2])).len(), 3);
        let (of_0, of_1, of_4) = ((Pid(10), 0), (Pid(11), 1), (Pid(14), 4));
        assert!(neighbours.share(of_0, of_1) && neighbours.share(of_1, of_0));
        assert!(!neighbours.share(of_0, of_4));
        neighbours.gone(Pid(10));
        assert!(neighbours.share(of_0, of_1), "the other one still looks after its queue");
    }

    fn pids(slots: &[(SlotId, Option<Pid>)]) -> Vec<Pid> {
        slots.iter().filter_map(|(_, pid)| *pid).collect()
    }

    fn settled() -> Neighbours {
        let mut neighbours = Neighbours::new(NEIGHBOURS);
        neighbours.plan(&SLOTS, &pids(&SLOTS));
        assert_eq!(neighbours.plan(&SLOTS, &pids(&SLOTS)), [], "nothing is asked twice");
        neighbours
    }

    #[test]
    fn every_slot_has_three_and_no_worker_has_many() {
        let mut neighbours = Neighbours::new(NEIGHBOURS);
        // They come one after the other, as at the start.
        for count in 1..=SLOTS.len() {
            neighbours.plan(&SLOTS[..count], &pids(&SLOTS[..count]));
        }
        for (slot, owner) in SLOTS {
            let watched = &neighbours.slots[&slot];
            assert_eq!(watched.by.len(), NEIGHBOURS);
            assert!(!watched.by.contains(&owner.expect("it has one")));
        }
        for pid in pids(&SLOTS) {
            let count = neighbours.slots.values().filter(|watched| watched.by.contains(&pid)).count();
            assert!(count <= NEIGHBOURS + 1, "{count}");
        }
    }

    #[test]
    fn a_lonely_worker_has_none() {
        let mut neighbours = Neighbours::new(NEIGHBOURS);
        assert_eq!(neighbours.plan(&SLOTS[..1], &pids(&SLOTS[..1])), []);
        assert!(!neighbours.hold(0));
    }

    #[test]
    fn a_slot_without_a_worker_keeps_its_neighbours() {
        let mut neighbours = settled();
        let mut slots = SLOTS;
        slots[2].1 = None;
        neighbours.gone(Pid(12));
        // The slots that it looked after need another neighbour.
        let orders = neighbours.plan(&slots, &pids(&slots));
        assert!(orders.iter().all(|order| matches!(order, Order::Watch { slot, .. } if *slot != 2)), "{orders:?}");
        assert_eq!(neighbours.slots[&2].by.len(), NEIGHBOURS);
        // Its next worker still comes before all neighbours.
        slots[2].1 = Some(Pid(22));
        let orders = neighbours.plan(&slots, &pids(&slots));
        assert_eq!(orders.iter().filter(|order| matches!(order, Order::Watch { slot: 2, .. })).count(), NEIGHBOURS);
    }

    #[test]
    fn a_slot_that_is_no_more_is_let_go_of() {
        let mut neighbours = settled();
        let by = neighbours.slots[&4].by.clone();
        let orders = neighbours.plan(&SLOTS[..4], &pids(&SLOTS));
        let releases: Vec<_> = by.iter().map(|from| Order::Release { slot: 4, from: *from }).collect();
        assert_eq!(orders, releases);
        neighbours.released(by[0]);
        neighbours.gone(by[1]);
        assert!(neighbours.hold(4), "until the last one says so");
        neighbours.released(by[2]);
        assert!(!neighbours.hold(4));
    }

    #[test]
    fn one_that_can_no_more_is_replaced() {
        let mut neighbours = settled();
        let able: Vec<Pid> = pids(&SLOTS).into_iter().filter(|pid| *pid != Pid(10)).collect();
        neighbours.plan(&SLOTS, &able);
        for (slot, watched) in &neighbours.slots {
            assert!(!watched.by.contains(&Pid(10)), "{slot}");
            assert_eq!(watched.by.len(), NEIGHBOURS, "{slot}");
        }
    }
}
