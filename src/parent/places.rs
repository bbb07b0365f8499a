//! Who serves which slot, and what follows from it.

use super::*;
use crate::parent::supervisor::PoolState;

impl Parent {
    /// Draws the conclusions from who serves: where new connections go, who looks after whose queue, what is told to the
    /// service manager.
    pub(super) fn settle(&mut self) {
        let now = clock::now();
        if !self.is_stopping {
            let seated = self.roster.seated();
            self.custody.seat(&seated, now);
            self.watch(now);
            self.close_retired(now);
            self.attend();
        }
        self.observe();
        let (ready, wanted) = (self.roster.supervisor.ready_workers(), self.roster.supervisor.wanted());
        self.service.status(match (self.roster.supervisor.state(), &self.journal.restart_aborted) {
            (PoolState::Stopping, _) => format!("stopping, {} workers left", self.roster.len()),
            (PoolState::LameDuck, _) => format!("lame duck, {ready} of {wanted} workers ready"),
            (_, Some(aborted)) => format!("{ready} of {wanted} workers ready; {aborted}"),
            _ => format!("{ready} of {wanted} workers ready"),
        });
        let mut serving = self.roster.serving();
        let answers =
            self.is_stopping || serving.any(|(_, pid)| self.watch.is_well(pid)) || !self.roster.supervisor.was_ready();
        self.service.watch(now, || answers);
    }

    /// Has workers look after each other's queues.
    fn watch(&mut self, now: Time) {
        let expired = self.custody.expired(now);
        let serving = self.roster.serving_by_slot();
        let slots = self.custody.slots().iter().filter(|slot| !expired.contains(slot));
        let slots: Vec<_> = slots.map(|slot| (*slot, serving.get(slot).copied())).collect();
        let able: Vec<Pid> = serving.into_values().filter(|pid| self.is_neighbour(*pid)).collect();
        for order in self.neighbours.plan(&slots, &able) {
            let (Order::Watch { by: pid, .. } | Order::Release { from: pid, .. }) = order;
            let may_block = matches!(order, Order::Watch { slot, .. } if self.may_have_program(slot));
            let Some(process) = self.roster.get_mut(pid) else { continue };
            let sent = match order {
                Order::Watch { slot, .. } => {
                    let sockets = self.custody.sockets(slot).map(SlotSockets::fds).unwrap_or_default();
                    // Its next worker may not have started yet, before which they are made whole.
                    for socket in sockets.iter().filter(|_| !may_block) {
                        if let Err(error) = sys::fds::set_nonblocking(socket, true) {
                            debug!("cannot make a socket of worker={slot} non-blocking: {error}");
                        }
                    }
                    process.ends.lifeline.watch(slot, &sockets)
                }
                Order::Release { slot, .. } => process.ends.lifeline.release(slot),
            };
            if let Err(error) = sent {
                // It dies, or is flooded with orders; the next look finds somebody else.
                debug!("cannot send an order to {}: {error}", self.roster.tag(pid));
                self.neighbours.gone(pid);
            }
        }
    }

    pub(super) fn is_neighbour(&self, pid: Pid) -> bool {
        self.roster.get(pid).is_some_and(|process| self.is_able(process))
    }

    /// Whether a process looks after other slots' sockets when asked. It may say so once, and cannot take it back.
    pub(super) fn is_able(&self, process: &Process) -> bool {
        if !process.is_neighbour.get() && self.board.row(process.row).is_neighbour() {
            process.is_neighbour.set(true);
        }
        process.is_neighbour.get()
    }

    /// Whether a process that was just forked may hold what the fork copied of the parent's.
    pub(super) fn are_copies_held(&self) -> bool {
        self.admin.as_ref().is_some_and(Admin::holds_copies) || !self.roster.are_all_set_up()
    }

    /// Closes the sockets of slots that were scaled away, once nobody else holds copies of them: only then is it known
    /// when the group's indexes change.
    fn close_retired(&mut self, now: Time) {
        if self.are_copies_held() {
            return;
        }
        for slot in self.custody.expired(now).into_iter().rev() {
            if !self.neighbours.hold(slot) {
                debug!("worker={slot} removed, its sockets closed");
                self.custody.close(slot, now);
                self.settle();
            }
        }
    }
}
