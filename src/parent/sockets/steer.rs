//! What the kernel is told about the groups: which slots it may choose, and whose connections it counts.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use log::warn;

use crate::parent::sockets::groups::Groups;
use crate::shared::listener::{self, SlotSockets};
use crate::shared::pace::{Pace, Rate};
use crate::shared::scoreboard::{ParentBoard, Pending, UNSETTLED};
use crate::shared::seats::Seats;
use crate::shared::steer::{self, Steering};
use crate::sys;
use crate::time::Time;

/// How often a program is attached because of workers' reports: in the long run, and in a burst.
const ATTACHING: Rate = Rate::new(Duration::from_millis(2), 64);

#[derive(Debug)]
pub(super) struct Steer {
    board: Rc<ParentBoard>,
    /// The CPUs to which workers are pinned, used in turn.
    cpus: Rc<[usize]>,
    steering: Steering,
    /// Whether this pool steers, and no other pool does.
    is_steering: bool,
    /// Whether the kernel counts connections; not before the old pool has released the sockets.
    is_counting: bool,
    /// Each seat's slot, and the row of the process that serves it.
    seats: Vec<(usize, usize)>,
    /// The seats among which the attached program chooses; `None` if that is uncertain.
    attached: Option<Seats>,
    /// The rate of changes because of workers' reports, and when the next is due.
    pace: Pace,
    attach_at: Option<Time>,
    /// The pending connections of idle workers at the latest check, and its time.
    pending: Vec<Pending>,
    checked: Time,
}

impl Steer {
    pub(super) fn new(board: Rc<ParentBoard>, cpus: Rc<[usize]>, steering: Steering) -> Steer {
        Steer {
            board,
            cpus,
            steering,
            is_steering: false,
            is_counting: false,
            seats: Vec::new(),
            attached: None,
            pace: Pace::default(),
            attach_at: None,
            pending: Vec::new(),
            checked: Time::default(),
        }
    }

    /// How workers are chosen for connections, in words.
    pub(super) fn method(&self) -> &'static str {
        self.steering.method
    }

    pub(super) fn is_counting(&self) -> bool {
        self.is_counting
    }

    /// When a program must be attached that had to wait.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.attach_at
    }

    /// Begins to steer. In an upgrade the new pool does so once it serves; until then the old pool steers.
    pub(super) fn begin(&mut self) {
        self.is_steering = true;
        self.attached = None;
        self.board.set_program(self.steering.program);
    }

    pub(super) fn stop(&mut self) {
        self.is_steering = false;
        self.attach_at = None;
        self.board.set_program(steer::NOTHING);
    }

    /// The groups have changed.
    pub(super) fn changed(&mut self) {
        self.attached = None;
    }
}

/// The connections that the kernel counts.
impl Steer {
    /// Lets the kernel choose a slot's sockets by the number of their connections.
    pub(super) fn count_in(&mut self, groups: &Groups, slot: usize) {
        let Some(ebpf) = &self.steering.ebpf else { return };
        let result = groups.listening(slot).try_for_each(|(address, socket)| {
            ebpf.put(address, slot, socket)?;
            ebpf.attach(address, socket)
        });
        if let Err(error) = result {
            self.steering.ebpf = None;
            self.steering.program = steer::RANDOM;
            self.steering.method = steer::AT_RANDOM;
            self.begin();
            warn!("balance: {}; least connections failed: {error}", steer::AT_RANDOM);
        }
    }

    pub(super) fn count_out(&self, groups: &Groups, slot: usize) {
        let Some(ebpf) = &self.steering.ebpf else { return };
        for address in 0..groups.get(slot).map_or(0, SlotSockets::groups) {
            // A socket that is not there needs no removal.
            let _ = ebpf.remove(address, slot);
        }
    }

    /// Makes the kernel count connections, if it should, once no other pool does.
    pub(super) fn begin_counting(&mut self, groups: &Groups) {
        self.is_counting = true;
        // An old pool of programs may have steered until now.
        self.attached = None;
        groups.order().iter().for_each(|slot| self.count_in(groups, *slot));
    }

    /// Stops the kernel's count, which only one pool can have.
    pub(super) fn stop_counting(&mut self, groups: &Groups) {
        groups.order().iter().for_each(|slot| self.count_out(groups, *slot));
        self.steering.ebpf = None;
    }

    /// Writes off connections that the kernel counts for idle workers and that never arrived, at most once in a while.
    pub(super) fn settle_idle(&mut self, now: Time) {
        if self.is_counting && now.since(self.checked) >= UNSETTLED {
            self.checked = now;
            self.pending = self.board.settle_idle(&self.pending);
        }
    }
}

/// The programs that choose.
impl Steer {
    /// Publishes which process serves each slot, by the row of each slot that is served, and attaches a program that
    /// chooses among them.
    pub(super) fn seat(&mut self, groups: &Groups, rows: &BTreeMap<usize, usize>, now: Time) {
        let seats: Vec<_> = if groups.order().is_empty() {
            // All workers share their sockets. No program is attached, but each worker looks at the load of the others.
            rows.iter().map(|(slot, row)| (*slot, *row)).collect()
        } else {
            groups.order().iter().map(|slot| (*slot, rows.get(slot).copied().unwrap_or(0))).collect()
        };
        let is_same = seats == self.seats;
        if !is_same {
            self.board.seat(&seats);
            self.seats = seats;
        }
        self.attach_at = None;
        if !self.is_attaching(groups) {
            return;
        }
        let allowed = steer::look(&self.board, now);
        if self.attached == Some(allowed) {
            return;
        }
        // What the parent knows itself is not delayed.
        match self.pace.take(ATTACHING, now) {
            Err(at) if is_same && self.attached.is_some() => self.attach_at = Some(at),
            _ => self.attach(groups, &allowed),
        }
    }

    /// Lets the kernel choose none of these seats.
    pub(super) fn avoid(&mut self, groups: &Groups, seats: [usize; 2], now: Time) {
        if self.is_attaching(groups) {
            let mut allowed = steer::look(&self.board, now);
            seats.iter().for_each(|seat| allowed.remove(*seat));
            if !allowed.is_empty() {
                self.attach(groups, &allowed);
            }
        }
    }

    /// Attaches the program to the groups of a slot's sockets again, since any process with a copy of a socket can
    /// replace it. Does nothing while another pool steers.
    pub(super) fn attach_again(&mut self, groups: &Groups, slot: usize) {
        for (address, socket) in groups.listening(slot).filter(|_| self.is_counting) {
            let attached = match &self.steering.ebpf {
                Some(ebpf) => ebpf.attach(address, socket),
                None if self.steering.program == steer::NOTHING => sys::filter::detach(socket),
                None => Ok(()),
            };
            if let Err(error) = attached {
                warn!("balance: cannot change how worker={slot} is chosen: {error}");
            }
        }
        self.attached = None;
    }

    /// Whether there is a program to attach, and a socket to attach it to.
    fn is_attaching(&self, groups: &Groups) -> bool {
        self.is_steering && self.steering.program != steer::NOTHING && !groups.order().is_empty()
    }

    fn attach(&mut self, groups: &Groups, allowed: &Seats) {
        let which = self.steering.program;
        let listeners: Vec<_> = groups.listeners().into_values().collect();
        match steer::attach(which, groups.order(), &self.cpus, allowed, &listeners) {
            Ok(()) => {
                self.attached = Some(*allowed);
                self.board.tell_steered(allowed);
            }
            // A worker has shut down a socket at this very moment. The next turn uses another one.
            Err(_) if !listeners.iter().all(|socket| listener::is_listening(*socket)) => self.attached = None,
            Err(error) => {
                self.steering.program = steer::NOTHING;
                self.stop();
                warn!("balance: by the kernel's hash; the kernel refuses BPF programs: {error}");
            }
        }
    }
}
