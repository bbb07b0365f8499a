//! The slots' sockets, in the order in which they joined the kernel's groups.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

use crate::shared::listener::{self, SlotSockets};

#[derive(Debug, Default)]
pub(super) struct Groups {
    sockets: BTreeMap<usize, SlotSockets>,
    /// The slots in the order of the kernel's indexes, which is the same in the groups of all addresses.
    order: Vec<usize>,
}

impl Groups {
    /// Begins with the sockets that the old pool has handed over, if any, in the order of its groups.
    pub(super) fn new(inherited: Vec<SlotSockets>) -> Groups {
        let order = (0..inherited.len()).collect();
        Groups { sockets: inherited.into_iter().enumerate().collect(), order }
    }

    /// The slots, in the order of the groups.
    pub(super) fn order(&self) -> &[usize] {
        &self.order
    }

    pub(super) fn get(&self, slot: usize) -> Option<&SlotSockets> {
        self.sockets.get(&slot)
    }

    pub(super) fn get_mut(&mut self, slot: usize) -> Option<&mut SlotSockets> {
        self.sockets.get_mut(&slot)
    }

    /// The slot's sockets that are in groups, with the index of the address.
    pub(super) fn listening(&self, slot: usize) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        self.get(slot).into_iter().flat_map(SlotSockets::listening)
    }

    /// Adds sockets of the slot. A new slot comes last.
    pub(super) fn join(&mut self, slot: usize, made: SlotSockets) {
        if !self.order.contains(&slot) {
            self.order.push(slot);
        }
        self.sockets.entry(slot).or_default().merge(made);
    }

    pub(super) fn index(&self, slot: usize) -> Option<usize> {
        self.order.iter().position(|it| *it == slot)
    }

    /// The slot has left all groups. The last index moves to its place.
    pub(super) fn leave(&mut self, slot: usize) {
        if let Some(index) = self.index(slot) {
            self.order.swap_remove(index);
        }
    }

    pub(super) fn take_sockets(&mut self, slot: usize) -> Option<SlotSockets> {
        self.sockets.remove(&slot)
    }

    pub(super) fn clear(&mut self) {
        *self = Groups::default();
    }

    /// A socket of each group, by its address: the first that listens. A worker may have shut down its own.
    pub(super) fn listeners(&self) -> BTreeMap<usize, BorrowedFd<'_>> {
        let mut found = BTreeMap::new();
        let groups = self.sockets.values().map(SlotSockets::groups).max().unwrap_or(0);
        for sockets in self.order.iter().filter_map(|slot| self.sockets.get(slot)) {
            let new = sockets.listening().filter(|(address, _)| !found.contains_key(address));
            let new: Vec<_> = new.filter(|(_, socket)| listener::is_listening(*socket)).collect();
            found.extend(new);
            if found.len() >= groups {
                break;
            }
        }
        found
    }
}
