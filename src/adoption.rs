//! PURE. Which living worker looks after the queue of a slot that has none: one that starts slowly, backs off, or was
//! scaled away.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::supervisor::{Pid, SlotId};
use crate::time::Time;

/// How long a slot may be vacant before its queue is given to somebody: several times what a replacement takes to
/// start, so that a plain crash moves nothing around.
const AFTER: Duration = Duration::from_millis(10);

/// Who looks after which vacant slot.
#[derive(Debug, Default)]
pub(crate) struct Adoption {
    vacant: BTreeMap<SlotId, Vacant>,
    /// What was asked to be given back, in the order of asking.
    releasing: Vec<(Pid, SlotId)>,
    /// Somebody could adopt.
    is_possible: bool,
}

#[derive(Debug)]
struct Vacant {
    since: Time,
    adopter: Option<Pid>,
}

/// What a worker is asked to do with another slot's sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Take from them too.
    Adopt { slot: SlotId, by: Pid },
    /// Take what waits, and let go of them.
    Release { slot: SlotId, from: Pid },
}

impl Adoption {
    /// Compares what is with what should be; `able` are the workers that serve and can adopt.
    pub(crate) fn plan(&mut self, vacant: &BTreeSet<SlotId>, able: &[Pid], now: Time) -> Vec<Order> {
        let mut orders = Vec::new();
        self.vacant.retain(|slot, state| {
            let stays = vacant.contains(slot);
            if let (false, Some(from)) = (stays, state.adopter) {
                orders.push(Order::Release { slot: *slot, from });
            }
            stays
        });
        self.releasing.extend(orders.iter().filter_map(|order| match *order {
            Order::Release { slot, from } => Some((from, slot)),
            Order::Adopt { .. } => None,
        }));
        for slot in vacant {
            let state = self.vacant.entry(*slot).or_insert(Vacant { since: now, adopter: None });
            // One that leaves takes what waits and lets go by itself.
            state.adopter = state.adopter.filter(|pid| able.contains(pid));
        }
        self.is_possible = !able.is_empty();
        for slot in vacant {
            let load = |pid: &Pid| self.vacant.values().filter(|state| state.adopter == Some(*pid)).count();
            let Some(by) = able.iter().copied().min_by_key(load) else { break };
            let Some(state) = self.vacant.get_mut(slot) else { continue };
            if state.adopter.is_none() && state.since + AFTER <= now {
                state.adopter = Some(by);
                orders.push(Order::Adopt { slot: *slot, by });
            }
        }
        orders
    }

    /// When the next slot is to be given to somebody.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let waiting = self.vacant.values().filter(|state| state.adopter.is_none() && self.is_possible);
        waiting.map(|state| state.since + AFTER).min()
    }

    /// A worker has let go of what it was asked to let go of first.
    pub(crate) fn released(&mut self, pid: Pid) {
        if let Some(index) = self.releasing.iter().position(|(from, _)| *from == pid) {
            self.releasing.remove(index);
        }
    }

    /// A worker is gone, and with it what it had.
    pub(crate) fn gone(&mut self, pid: Pid) {
        self.releasing.retain(|(from, _)| *from != pid);
        for state in self.vacant.values_mut() {
            state.adopter = state.adopter.filter(|adopter| *adopter != pid);
        }
    }

    /// Whether some worker holds the slot's sockets for another.
    pub(crate) fn holds(&self, slot: SlotId) -> bool {
        let adopted = self.vacant.get(&slot).is_some_and(|state| state.adopter.is_some());
        adopted || self.releasing.iter().any(|(_, releasing)| *releasing == slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: Pid = Pid(1);
    const BOB: Pid = Pid(2);

    fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    fn slots(list: &[SlotId]) -> BTreeSet<SlotId> {
        list.iter().copied().collect()
    }

    fn adopt(slot: SlotId, by: Pid) -> Order {
        Order::Adopt { slot, by }
    }

    #[test]
    fn a_short_vacancy_moves_nothing() {
        let mut adoption = Adoption::default();
        assert_eq!(adoption.plan(&slots(&[3]), &[ANN], at(100)), []);
        assert_eq!(adoption.deadline(), Some(at(110)));
        assert_eq!(adoption.plan(&slots(&[3]), &[ANN], at(109)), []);
        assert_eq!(adoption.plan(&slots(&[]), &[ANN], at(110)), []);
        assert_eq!(adoption.deadline(), None);
        // It begins anew.
        assert_eq!(adoption.plan(&slots(&[3]), &[ANN], at(115)), []);
        assert_eq!(adoption.deadline(), Some(at(125)));
    }

    #[test]
    fn a_long_one_is_looked_after_until_it_ends() {
        let mut adoption = Adoption::default();
        adoption.plan(&slots(&[3]), &[ANN], at(100));
        assert_eq!(adoption.plan(&slots(&[3]), &[ANN], at(110)), [adopt(3, ANN)]);
        assert_eq!(adoption.deadline(), None);
        assert_eq!(adoption.plan(&slots(&[3]), &[ANN, BOB], at(120)), [], "asked once");
        assert!(adoption.holds(3));
        assert_eq!(adoption.plan(&slots(&[]), &[ANN], at(130)), [Order::Release { slot: 3, from: ANN }]);
        assert!(adoption.holds(3), "until it says so");
        adoption.released(BOB);
        assert!(adoption.holds(3));
        adoption.released(ANN);
        assert!(!adoption.holds(3));
    }

    #[test]
    fn the_work_is_shared() {
        let mut adoption = Adoption::default();
        adoption.plan(&slots(&[1, 2, 3]), &[ANN, BOB], at(0));
        let orders = adoption.plan(&slots(&[1, 2, 3]), &[ANN, BOB], at(10));
        assert_eq!(orders, [adopt(1, ANN), adopt(2, BOB), adopt(3, ANN)]);
    }

    #[test]
    fn an_adopter_that_dies_or_leaves_is_replaced() {
        let mut adoption = Adoption::default();
        adoption.plan(&slots(&[3]), &[ANN, BOB], at(0));
        assert_eq!(adoption.plan(&slots(&[3]), &[ANN, BOB], at(10)), [adopt(3, ANN)]);
        adoption.gone(ANN);
        assert!(!adoption.holds(3));
        assert_eq!(adoption.plan(&slots(&[3]), &[BOB], at(11)), [adopt(3, BOB)]);
        assert_eq!(adoption.plan(&slots(&[3]), &[], at(12)), [], "nobody is left");
        assert_eq!(adoption.deadline(), None);
        assert_eq!(adoption.plan(&slots(&[3]), &[ANN], at(13)), [adopt(3, ANN)]);
    }
}
