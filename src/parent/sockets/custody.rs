//! Custody: the parent's copies of all slots' sockets, and what the kernel is told about them.
//!
//! **Datagrams.** The parent keeps a copy of a slot's UDP socket as well, so datagrams in it wait for the next worker.
//! The kernel distributes by its hash. Neighbours cannot help, since a response must come from the same socket. So the
//! socket of a slot is closed at once when the slot is removed by scaling. The parent's reserved socket must not
//! receive: it is connected to itself, and closed once a slot's socket holds the address.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::time::Duration;

use log::warn;

use crate::shared::listener::{self, Reserved, SlotSockets};
use crate::shared::pace::{Pace, Rate};
use crate::shared::scoreboard::{ParentBoard, Seen, UNSETTLED};
use crate::shared::seats::Seats;
use crate::shared::steer::{self, Steering};
use crate::sys;
use crate::time::Time;

/// How long another worker looks after the sockets of a slot that was removed by scaling, before they are closed. A
/// handshake in progress may need one or two retransmissions, one second and two more after the first try.
const LINGER: Duration = Duration::from_secs(3);

/// How often the kernel is told whom to choose because of workers' reports: in the long run, and in a burst.
const ATTACHING: Rate = Rate::new(Duration::from_millis(2), 64);

/// The sockets of the slots, from the first start of each until it is removed or the pool ends.
#[derive(Debug)]
pub(crate) struct Custody {
    sockets: BTreeMap<usize, SlotSockets>,
    /// The slots in the order in which their sockets joined the kernel's groups, which is the order of its indexes. It
    /// is the same in the groups of all addresses.
    order: Vec<usize>,
    /// Slots that were removed, and when to close their sockets.
    retired: BTreeMap<usize, Time>,
    /// When it was last asked which of these to close.
    asked: Time,
    board: Rc<ParentBoard>,
    /// The CPUs to which workers are pinned, used in turn.
    cpus: Rc<[usize]>,
    steering: Steering,
    /// Whether this pool steers, and no other pool does.
    is_steering: bool,
    /// Each seat's slot, and the row of the process that serves it.
    seats: Vec<(usize, usize)>,
    /// The seats from which the kernel was told to choose; `None` if that is uncertain.
    told: Option<Seats>,
    /// The rate of changes because of workers' reports, and when the next is due.
    pace: Pace,
    tell_at: Option<Time>,
    /// The pending connections of idle workers at the latest check.
    pending: Vec<Seen>,
    looked: Time,
    /// Whether the kernel counts connections; not before the old pool has released the sockets.
    is_counting: bool,
}

impl Custody {
    /// Begins with the sockets that the old pool has handed over, if any, in the order of its groups.
    pub(crate) fn new(
        board: Rc<ParentBoard>,
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
            is_steering: false,
            seats: Vec::new(),
            told: None,
            pace: Pace::default(),
            tell_at: None,
            pending: Vec::new(),
            looked: Time::default(),
            is_counting: false,
        }
    }

    /// Begins to steer. In an upgrade the new pool does so once it serves; until then the old pool steers.
    pub(crate) fn begin_to_steer(&mut self) {
        self.is_steering = true;
        self.told = None;
        self.board.set_program(self.steering.program);
    }

    /// How workers are chosen for connections, in words.
    pub(crate) fn balance(&self) -> &'static str {
        self.steering.method
    }

    /// Keeps copies of the sockets that a slot's worker has made, in addition to those here.
    pub(crate) fn keep(&mut self, slot: usize, made: SlotSockets) {
        if !self.order.contains(&slot) {
            self.order.push(slot);
        }
        self.sockets.entry(slot).or_default().merge(made);
        if self.is_counting {
            // Some may be the same as before, and the kernel accepts no socket twice.
            self.count_out(slot);
            self.count_in(slot);
        }
    }

    /// Checks a slot's sockets before they are passed on. Drops the flawed ones, and returns what they were and why.
    /// Restores the others, with this backlog, unless another process holds them and may need its own options. The
    /// kernel gets its program again, which any process with a copy of a socket can replace.
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

    /// Makes the kernel steer the groups of a slot's sockets as the parent wants. Does nothing while another pool
    /// steers.
    fn attach_again(&mut self, slot: usize) {
        let sockets = self.sockets.get(&slot).into_iter().flat_map(SlotSockets::listening);
        for (address, socket) in sockets.filter(|_| self.is_counting) {
            let attached = match &self.steering.ebpf {
                Some(ebpf) => ebpf.attach(address, socket),
                None if self.steering.program == steer::NOTHING => sys::filter::detach(socket),
                None => Ok(()),
            };
            if let Err(error) = attached {
                warn!("balance: cannot change how worker={slot} is chosen: {error}");
            }
        }
        self.told = None;
    }

    /// The slot has left all groups. The last index moves to its place.
    fn leave(&mut self, slot: usize) {
        self.count_out(slot);
        self.told = None;
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

    /// Makes the kernel count connections, if it should, once no other pool does.
    pub(crate) fn count_all_in(&mut self) {
        self.is_counting = true;
        for slot in self.order.clone() {
            self.count_in(slot);
        }
    }

    /// Stops the kernel's count, which only one pool can have.
    pub(crate) fn count_none(&mut self) {
        for slot in &self.order {
            self.count_out(*slot);
        }
        self.steering.ebpf = None;
    }

    fn count_out(&self, slot: usize) {
        let Some(ebpf) = &self.steering.ebpf else { return };
        for address in 0..self.sockets.get(&slot).map_or(0, SlotSockets::groups) {
            // A socket that is not there needs no removal.
            let _ = ebpf.remove(address, slot);
        }
    }

    /// Whether no other pool has the sockets any more.
    pub(crate) fn is_sole(&self) -> bool {
        self.is_counting
    }

    pub(crate) fn sockets(&self, slot: usize) -> Option<&SlotSockets> {
        self.sockets.get(&slot)
    }

    /// The slots whose sockets are here, in the order of the groups.
    pub(crate) fn slots(&self) -> &[usize] {
        &self.order
    }

    /// The slot will have no more workers.
    pub(crate) fn retire(&mut self, slot: usize, now: Time) {
        if let Some(sockets) = self.sockets.get_mut(&slot) {
            sockets.close_udp();
            self.retired.insert(slot, now + LINGER);
        }
    }

    /// The slot will have a worker again.
    pub(crate) fn revive(&mut self, slot: usize) {
        self.retired.remove(&slot);
    }

    /// When the next retired slot must be closed. A slot that is due waits until other processes have released their
    /// copies of its sockets, which is an event.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let retired = self.retired.values().filter(|at| **at > self.asked).min().copied();
        retired.into_iter().chain(self.tell_at).min()
    }

    /// The slots to be closed now.
    pub(crate) fn expired(&mut self, now: Time) -> Vec<usize> {
        self.asked = now;
        self.retired.iter().filter(|(_, at)| **at <= now).map(|(slot, _)| *slot).collect()
    }

    /// Closes the last copies of a retired slot's sockets. The last index of the group moves to the closed socket's
    /// place, so neither may be chosen while that happens.
    pub(crate) fn close(&mut self, slot: usize, now: Time) {
        self.retired.remove(&slot);
        let Some(index) = self.order.iter().position(|it| *it == slot) else {
            // Its sockets were broken.
            self.sockets.remove(&slot);
            return;
        };
        let affected = [index, self.order.len() - 1];
        if self.is_attaching() {
            let mut allowed = steer::look(&self.board, now);
            affected.iter().for_each(|seat| allowed.remove(*seat));
            if !allowed.is_empty() {
                self.attach(&allowed);
            }
        }
        self.count_out(slot);
        if let Some(mut sockets) = self.sockets.remove(&slot) {
            // A worker may have kept copies although it reports that it has not. Those would get connections.
            sockets.leave_groups();
        }
        self.order.swap_remove(index);
        self.told = None;
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self) {
        self.stop_steering();
        self.sockets.clear();
        self.order.clear();
        self.retired.clear();
    }

    /// Publishes which process serves each slot, by the row of each slot that is served, and tells the kernel whom to
    /// choose.
    pub(crate) fn seat(&mut self, rows: &BTreeMap<usize, usize>, now: Time) {
        let seats: Vec<_> = match self.order.is_empty() {
            // All workers share their sockets. The kernel is told nothing, but each worker looks at the load of the
            // others.
            true => rows.iter().map(|(slot, row)| (*slot, *row)).collect(),
            false => self.order.iter().map(|slot| (*slot, rows.get(slot).copied().unwrap_or(0))).collect(),
        };
        let is_same = seats == self.seats;
        if !is_same {
            self.board.seat(&seats);
            self.seats = seats;
        }
        self.tell_at = None;
        if !self.is_attaching() {
            return;
        }
        let allowed = steer::look(&self.board, now);
        if self.told == Some(allowed) {
            return;
        }
        // What the parent knows itself is not delayed.
        match self.pace.take(ATTACHING, now) {
            Err(at) if is_same && self.told.is_some() => self.tell_at = Some(at),
            _ => self.attach(&allowed),
        }
    }

    /// A worker has noticed something that the parent should check. What must be attached is checked in every turn
    /// anyway.
    pub(crate) fn rung(&mut self, now: Time) {
        if self.is_counting && now.since(self.looked) >= UNSETTLED {
            self.looked = now;
            self.pending = self.board.settle_idle(&self.pending);
        }
    }

    /// Whether there is a program to attach, and a socket to attach it to.
    fn is_attaching(&self) -> bool {
        self.is_steering && self.steering.program != steer::NOTHING && !self.order.is_empty()
    }

    fn attach(&mut self, allowed: &Seats) {
        let which = self.steering.program;
        let listeners: Vec<_> = self.listeners().into_values().collect();
        match steer::attach(which, &self.order, &self.cpus, allowed, &listeners) {
            Ok(()) => {
                self.told = Some(*allowed);
                self.board.tell_steered(allowed);
            }
            // A worker has shut down a socket at this very moment. The next turn uses another one.
            Err(_) if !listeners.iter().all(|socket| listener::is_listening(*socket)) => self.told = None,
            Err(error) => {
                self.steering.program = steer::NOTHING;
                self.stop_steering();
                warn!("balance: by the kernel's hash; the kernel refuses BPF programs: {error}");
            }
        }
    }

    fn stop_steering(&mut self) {
        self.is_steering = false;
        self.tell_at = None;
        self.board.set_program(steer::NOTHING);
    }

    /// A socket of each group, by its address: the first that listens. A worker may have shut down its own.
    fn listeners(&self) -> BTreeMap<usize, BorrowedFd<'_>> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_that_cannot_be_closed_yet_is_not_asked_about_all_the_time() {
        let board = Rc::new(ParentBoard::new(2).expect("memory"));
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
