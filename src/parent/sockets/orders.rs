//! Tells workers what to do with the sockets of other slots.

use log::debug;

use super::custody::Custody;
use super::mending::SHARED;
use super::neighbours::{Neighbours, Order};
use crate::parent::process::Roster;
use crate::parent::supervisor::Pid;
use crate::shared::listener::SlotSockets;
use crate::shared::scoreboard::ParentBoard;
use crate::sys;
use crate::time::Time;

/// Makes workers look after each other's queues.
pub(super) fn send_orders(
    neighbours: &mut Neighbours,
    custody: &mut Custody,
    roster: &mut Roster,
    board: &ParentBoard,
    now: Time,
) {
    let expired = custody.expired(now);
    let serving = roster.serving_by_slot();
    let slots = custody.slots().iter().filter(|slot| !expired.contains(slot));
    let slots: Vec<_> = slots.map(|slot| (*slot, serving.get(slot).copied())).collect();
    let is_neighbour = |pid| roster.get(pid).is_some_and(|process| process.is_neighbour(board));
    let able: Vec<Pid> = serving.into_values().filter(|pid| is_neighbour(*pid)).collect();
    for order in neighbours.plan(&slots, &able) {
        let (Order::Watch { by: pid, .. } | Order::Release { from: pid, .. }) = order;
        let may_block = matches!(order, Order::Watch { slot, .. } if may_have_program(slot, roster, custody));
        let Some(process) = roster.get_mut(pid) else { continue };
        let sent = match order {
            Order::Watch { slot, .. } => {
                let sockets = custody.sockets(slot).map(SlotSockets::fds).unwrap_or_default();
                // Its next worker may not have started yet; before it does, they are repaired.
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
            // The worker dies, or has too many orders. The next call finds another one.
            debug!("cannot send an order to {}: {error}", roster.tag(pid));
            neighbours.gone(pid);
        }
    }
}

/// Closes the sockets of a slot that was removed by scaling, once nobody else holds copies. Only then is it certain
/// when the group's indexes change.
pub(super) fn close_one_retired(custody: &mut Custody, neighbours: &Neighbours, now: Time) -> bool {
    let mut expired = custody.expired(now).into_iter().rev();
    let Some(slot) = expired.find(|slot| !neighbours.hold(*slot)) else { return false };
    debug!("worker={slot} removed, its sockets closed");
    custody.close(slot, now);
    true
}

/// Whether a program may hold a slot's sockets and need them to be blocking.
pub(super) fn may_have_program(slot: usize, roster: &Roster, custody: &Custody) -> bool {
    let mut processes = roster.iter();
    let has_program = processes.any(|(_, it)| it.ends.program.is_some() && (slot == SHARED || it.slot == slot));
    // The workers of the old pool may be programs.
    has_program || !custody.is_sole()
}
