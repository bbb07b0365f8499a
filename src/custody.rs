//! Custody: the parent's copies of every slot's listening sockets, and what the kernel is told about them.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::time::Duration;

use log::warn;

use crate::listener::SlotSockets;
use crate::scoreboard::Scoreboard;
use crate::steer;
use crate::time::Time;

/// How long the sockets of a slot that was scaled away are still looked after by another worker before they are closed:
/// a handshake that had begun may need a retransmission or two, one second and two more after the first try.
const LINGER: Duration = Duration::from_secs(3);

/// The sockets of the slots, from each one's first start until it is scaled away or the pool ends.
#[derive(Debug)]
pub(crate) struct Custody {
    sockets: BTreeMap<usize, SlotSockets>,
    /// The slots in the order in which their sockets joined the kernel's groups, which is the order of its indexes. It
    /// is the same in the group of every address.
    order: Vec<usize>,
    /// Slots that were scaled away, and when to close their sockets.
    retired: BTreeMap<usize, Time>,
    board: Rc<Scoreboard>,
}

impl Custody {
    /// Begins with the sockets that another pool has handed over, if any, in the order of its groups.
    pub(crate) fn new(board: Rc<Scoreboard>, inherited: Vec<SlotSockets>) -> Custody {
        let order = (0..inherited.len()).collect();
        Custody { sockets: inherited.into_iter().enumerate().collect(), order, retired: BTreeMap::new(), board }
    }

    /// Takes copies of a slot's sockets.
    pub(crate) fn keep(&mut self, slot: usize, sockets: SlotSockets) {
        if !self.order.contains(&slot) {
            self.order.push(slot);
        }
        self.sockets.insert(slot, sockets);
    }

    pub(crate) fn sockets(&self, slot: usize) -> Option<&SlotSockets> {
        self.sockets.get(&slot)
    }

    /// The slots whose sockets are here, in the order of the groups.
    pub(crate) fn slots(&self) -> &[usize] {
        &self.order
    }

    /// The slot will have no worker any more.
    pub(crate) fn retire(&mut self, slot: usize, now: Time) {
        if self.sockets.contains_key(&slot) {
            self.retired.insert(slot, now + LINGER);
        }
    }

    /// The slot is to have a worker again.
    pub(crate) fn revive(&mut self, slot: usize) {
        self.retired.remove(&slot);
    }

    /// When the next retired slot is to be closed.
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.retired.values().min().copied()
    }

    /// The slots to be closed now.
    pub(crate) fn expired(&self, now: Time) -> Vec<usize> {
        self.retired.iter().filter(|(_, at)| **at <= now).map(|(slot, _)| *slot).collect()
    }

    /// Closes the last copies of a retired slot's sockets. The last index of the group goes to the last socket's place,
    /// so while that happens neither of the two may be chosen.
    pub(crate) fn close(&mut self, slot: usize, now: Time) {
        self.retired.remove(&slot);
        let Some(index) = self.order.iter().position(|it| *it == slot) else { return };
        let around = steer::steer_around(&self.board, now, [index, self.order.len() - 1], &self.listeners());
        self.told(around);
        self.sockets.remove(&slot);
        self.order.swap_remove(index);
        self.board.doubt_steering();
    }

    /// Lets go of everything.
    pub(crate) fn clear(&mut self) {
        self.board.set_steers(false);
        self.sockets.clear();
        self.order.clear();
        self.retired.clear();
    }

    /// Tells everybody which process serves each slot, by its row, or 0, and the kernel whom to choose.
    pub(crate) fn seat(&self, row: impl Fn(usize) -> usize, now: Time) {
        let seats: Vec<_> = self.order.iter().map(|slot| (*slot, row(*slot))).collect();
        self.board.seat(&seats);
        self.told(steer::steer(&self.board, 0, now, &self.listeners()));
    }

    fn told(&self, result: std::io::Result<()>) {
        if let Err(error) = result {
            self.board.set_steers(false);
            warn!("the kernel picks workers by hash: it takes no BPF program: {error}");
        }
    }

    /// A socket of each group.
    fn listeners(&self) -> Vec<BorrowedFd<'_>> {
        self.order.first().and_then(|slot| self.sockets.get(slot)).map(SlotSockets::fds).unwrap_or_default()
    }
}
