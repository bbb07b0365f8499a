//! Steering for workers with their own servers. Such workers do not look at their siblings, so the parent does, as long
//! as connections come.
//!
//! The parent watches their listeners for one event each (EPOLLONESHOT), so an idle pool can sleep. After an event it
//! checks every five milliseconds which workers report that they are busy (`Meter`) or, if a server has no meter, in
//! which queues connections wait from one check to the next. After a second without any it watches for an event again.
//!
//! **Neighbours.** Steering comes too late for a connection that already waits behind a worker which has just begun
//! something long. So three other workers watch each slot's listener as well, with EPOLLEXCLUSIVE: of the watchers that
//! wait, the kernel wakes the one that registered first. That is the slot's own worker, unless it is busy. Otherwise it
//! is a neighbour, which accepts the connection at once if that worker is stalled, and else after two milliseconds if
//! the connection is still there. It waits ten milliseconds if that worker is idle and has fewer connections than the
//! neighbour: the worker then waits for a processor, as after a burst of connections on a busy machine, and the first
//! worker to run would otherwise keep all of them.
//!
//! No timer runs without a connection, and the same rule serves a slot whose worker is dead, starting or backing off.
//! When a slot gets a new worker, its neighbours register again, so that they come after it. A listener is deregistered
//! before it is dropped: the registration belongs to the socket, which others hold too, and would still consume
//! wake-ups.
//!
//! **The queue of a slot that was removed by scaling** is served by its neighbours for three more seconds, for
//! handshakes whose packets were lost. Then its sockets are shut down and closed, once no other process reports that it
//! holds copies. Only then is it certain when the group's indexes change; a process that has kept copies all the same
//! gets no connections.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use log::debug;
use mio::{Poll, Token};
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};

use super::custody::Custody;
use crate::parent::process::Roster;
use crate::parent::source::Source;
use crate::parent::supervisor::Pid;
use crate::shared::listener::SlotSockets;
use crate::shared::scoreboard::ParentBoard;
use crate::sys::epoll;
use crate::time::Time;

/// How often the parent checks. A connection that waits this long in a queue waits for a busy worker.
const CHECK_INTERVAL: Duration = Duration::from_millis(5);

/// The number of checks that find all queues empty before the parent stops checking.
const EMPTY_CHECKS_MAX: u32 = 200;

/// The state of the checks.
#[derive(Debug, Default)]
pub(super) struct QueueWatch {
    next: Option<Time>,
    quiet: u32,
    /// The slots whose queues held connections at the latest check.
    waiting: Vec<usize>,
    /// The slots whose listeners are watched for an event, and the process that serves each.
    armed: BTreeMap<usize, Pid>,
}

impl QueueWatch {
    pub(super) fn deadline(&self) -> Option<Time> {
        self.next
    }

    /// Watches the listeners of workers with their own servers that are not watched yet.
    pub(super) fn arm(&mut self, roster: &Roster, board: &ParentBoard, custody: &Custody, wakeups: &Poll) {
        if self.next.is_some() {
            return;
        }
        for (slot, pid) in own_servers(roster, board) {
            if self.armed.insert(slot, pid) == Some(pid) {
                continue;
            }
            let sockets = custody.sockets(slot).map(SlotSockets::fds).unwrap_or_default();
            for socket in sockets {
                if let Err(error) = epoll::watch_once(wakeups, socket, Token(Source::QueueWatch.encode())) {
                    debug!("cannot watch the queue of worker={slot} with epoll_ctl(2): {error}");
                }
            }
        }
    }

    /// A connection has come to one of them.
    pub(super) fn begin(&mut self, now: Time) {
        self.quiet = 0;
        self.armed.clear();
        self.next.get_or_insert(now + CHECK_INTERVAL);
    }

    /// Checks the queues, if it is time.
    pub(super) fn look(&mut self, roster: &Roster, board: &ParentBoard, custody: &Custody, now: Time) {
        if self.next.is_none_or(|due| now < due) {
            return;
        }
        let mut waiting = Vec::new();
        for (slot, pid) in own_servers(roster, board) {
            let sockets = custody.sockets(slot).map(SlotSockets::fds).unwrap_or_default();
            let is_waiting = has_waiting(&sockets);
            if is_waiting {
                waiting.push(slot);
            }
            let Some(row) = roster.get(pid).map(|process| process.row) else { continue };
            if !is_waiting {
                board.settle_all(row);
            }
            let says_busy = board.row(row).says_busy();
            let is_crowded = !says_busy && is_waiting && self.waiting.contains(&slot);
            board.set_crowded(row, is_crowded);
        }
        self.quiet = if waiting.is_empty() { self.quiet + 1 } else { 0 };
        self.waiting = waiting;
        self.next = (self.quiet < EMPTY_CHECKS_MAX).then(|| now + CHECK_INTERVAL);
    }
}

/// The slots whose worker serves and does not run the built-in server.
fn own_servers(roster: &Roster, board: &ParentBoard) -> Vec<(usize, Pid)> {
    let is_neighbour = |pid| roster.get(pid).is_some_and(|process| process.is_neighbour(board));
    roster.supervisor.slots().serving().filter(|(_, pid)| !is_neighbour(*pid)).collect()
}

/// Whether connections wait in any of these queues.
fn has_waiting(sockets: &[BorrowedFd<'_>]) -> bool {
    let mut waits: Vec<PollFd<'_>> = sockets.iter().map(|socket| PollFd::new(*socket, PollFlags::POLLIN)).collect();
    poll(&mut waits, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}
