//! Custody: the parent's copies of every slot's sockets, and what the kernel is told about them.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use log::warn;

use crate::listener::{Reserved, SlotSockets};
use crate::scoreboard::Scoreboard;
use crate::steer::{self, Steering};
use crate::sys;
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
    /// When it was last asked which of those are to be closed.
    asked: Time,
    board: Arc<Scoreboard>,
    /// The CPUs that workers are pinned to, slot after slot and around again.
    cpus: Rc<[usize]>,
    steering: Steering,
    /// The kernel counts connections: not before another pool has let go of the sockets.
    is_counting: bool,
}

impl Custody {
    /// Begins with the sockets that another pool has handed over, if any, in the order of its groups.
    pub(crate) fn new(
        board: Arc<Scoreboard>,
        cpus: Rc<[usize]>,
        steering: Steering,
        inherited: Vec<SlotSockets>,
    ) -> Custody {
        let order = (0..inherited.len()).collect();
        let sockets = inherited.into_iter().enumerate().collect();
        Custody {
            sockets,
            order,
            retired: BTreeMap::new(),
            asked: Time::default(),
            board,
            cpus,
            steering,
            is_counting: false,
        }
    }

    /// Begins to steer. A pool that takes over from another one does so when it serves: until then, that one steers.
    pub(crate) fn begin_to_steer(&mut self) {
        self.board.set_steers(self.steering.program);
    }

    /// Who picks the worker for a new connection, in words.
    pub(crate) fn balance(&self) -> &'static str {
        self.steering.method
    }

    /// Takes copies of a slot's sockets.
    pub(crate) fn keep(&mut self, slot: usize, sockets: SlotSockets) {
        if !self.order.contains(&slot) {
            self.order.push(slot);
        }
        self.sockets.insert(slot, sockets);
        if self.is_counting {
            // Some may be the same as before, and the kernel takes none twice.
            self.count_out(slot);
            self.count_in(slot);
        }
    }

    /// Looks at a slot's sockets before they are handed on, and drops what is not whole; says what that was, and why.
    /// The others are made as they were, with this backlog, unless a process that has them may want them otherwise; and
    /// the kernel gets its program again, which whoever holds a socket can replace.
    pub(crate) fn check(&mut self, slot: usize, reserved: &[Reserved], backlog: Option<u32>) -> Vec<String> {
        let Some(sockets) = self.sockets.get_mut(&slot) else { return Vec::new() };
        let had_any = sockets.listening().next().is_some();
        let flaws = match backlog {
            Some(backlog) => sockets.restore(reserved, backlog),
            None => sockets.drop_flawed(reserved),
        };
        let has_any = sockets.listening().next().is_some();
        match (had_any, has_any) {
            (true, false) => self.leave(slot),
            (_, true) => self.attach_again(slot),
            _ => {}
        }
        flaws
    }

    /// Has the kernel steer the groups of a slot's sockets as the parent wants it. Before a pool steers, another one does.
    fn attach_again(&self, slot: usize) {
        let sockets = self.sockets.get(&slot).into_iter().flat_map(SlotSockets::listening);
        for (address, socket) in sockets.filter(|_| self.is_counting) {
            let attached = match &self.steering.ebpf {
                Some(ebpf) => ebpf.attach(address, socket),
                None if self.steering.program == steer::NOTHING => sys::filter::detach(socket),
                None => Ok(()),
            };
            if let Err(error) = attached {
                warn!("balance: worker={slot} is chosen as before: {error}");
            }
        }
        self.board.doubt_steering();
    }

    /// The slot is in no group any more. The last index goes to its place.
    fn leave(&mut self, slot: usize) {
        self.count_out(slot);
        self.board.doubt_steering();
        if let Some(index) = self.order.iter().position(|it| *it == slot) {
            self.order.swap_remove(index);
        }
    }

    /// Lets the kernel choose a slot's sockets by the number of their connections.
    fn count_in(&mut self, slot: usize) {
        let (Some(ebpf), Some(sockets)) = (&self.steering.ebpf, self.sockets.get(&slot)) else { return };
        let put = |(address, socket): (usize, BorrowedFd<'_>)| {
            ebpf.put(address, slot, socket)?;
            ebpf.attach(address, socket)
        };
        let result = sockets.listening().try_for_each(put);
        if let Err(error) = result {
            self.steering.ebpf = None;
            self.steering.program = steer::RANDOM;
            self.steering.method = steer::AT_RANDOM;
            self.begin_to_steer();
            warn!("balance: {}; least connections failed: {error}", steer::AT_RANDOM);
        }
    }

    /// Has the kernel count connections, if it is to: no other pool does any more.
    pub(crate) fn count_all_in(&mut self) {
        self.is_counting = true;
        for slot in self.order.clone() {
            self.count_in(slot);
        }
    }

    /// Gives up the kernel's count, which only one pool can have.
    pub(crate) fn count_none(&mut self) {
        for slot in &self.order {
            self.count_out(*slot);
        }
        self.steering.ebpf = None;
    }

    fn count_out(&self, slot: usize) {
        let Some(ebpf) = &self.steering.ebpf else { return };
        for address in 0..self.sockets.get(&slot).map_or(0, SlotSockets::groups) {
            // One that is not there is out already.
            let _ = ebpf.remove(address, slot);
        }
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
        if let Some(sockets) = self.sockets.get_mut(&slot) {
            sockets.close_udp();
            self.retired.insert(slot, now + LINGER);
        }
    }

    /// The slot is to have a worker again.
    pub(crate) fn revive(&mut self, slot: usize) {
        self.retired.remove(&slot);
    }

    /// When the next retired slot is to be closed. One whose time has come waits for whoever holds copies of its
    /// sockets, and that they let go is an event.
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.retired.values().filter(|at| **at > self.asked).min().copied()
    }

    /// The slots to be closed now.
    pub(crate) fn expired(&mut self, now: Time) -> Vec<usize> {
        self.asked = now;
        self.retired.iter().filter(|(_, at)| **at <= now).map(|(slot, _)| *slot).collect()
    }

    /// Closes the last copies of a retired slot's sockets. The last index of the group goes to the last socket's place,
    /// so while that happens neither of the two may be chosen.
    pub(crate) fn close(&mut self, slot: usize, now: Time) {
        self.retired.remove(&slot);
        let Some(index) = self.order.iter().position(|it| *it == slot) else {
            // Its sockets were broken.
            self.sockets.remove(&slot);
            return;
        };
        let affected = [index, self.order.len() - 1];
        let around = steer::steer_around(&self.board, &self.cpus, now, affected, &self.listeners());
        self.told(around);
        self.count_out(slot);
        self.sockets.remove(&slot);
        self.order.swap_remove(index);
        self.board.doubt_steering();
    }

    /// Lets go of everything.
    pub(crate) fn clear(&mut self) {
        self.board.set_steers(steer::NOTHING);
        self.sockets.clear();
        self.order.clear();
        self.retired.clear();
    }

    /// Tells everybody which process serves each slot, by its row, or 0, and the kernel whom to choose.
    pub(crate) fn seat(&self, row: impl Fn(usize) -> usize, now: Time) {
        let seats: Vec<_> = self.order.iter().map(|slot| (*slot, row(*slot))).collect();
        self.board.seat(&seats);
        self.told(steer::steer(&self.board, &self.cpus, 0, now, &self.listeners()));
    }

    fn told(&self, result: std::io::Result<()>) {
        if let Err(error) = result {
            self.board.set_steers(steer::NOTHING);
            warn!("balance: by the kernel's hash, which takes no BPF program: {error}");
        }
    }

    /// A socket of each group.
    fn listeners(&self) -> Vec<BorrowedFd<'_>> {
        self.order.first().and_then(|slot| self.sockets.get(slot)).map(SlotSockets::fds).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_that_cannot_be_closed_yet_is_not_asked_about_all_the_time() {
        let board = Arc::new(Scoreboard::new(2).expect("memory"));
        let steering = Steering { program: steer::NOTHING, method: "", ebpf: None };
        let slots = (0..2).map(|_| SlotSockets::default()).collect();
        let mut custody = Custody::new(board, Rc::default(), steering, slots);
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
