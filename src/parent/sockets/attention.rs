//! Steering for workers with a server of their own, who do not look at their siblings: the parent does, as long as
//! connections come.
//!
//! Each of their listeners is watched for one event, without which an idle pool would not sleep. After it the parent
//! looks every few milliseconds at who is busy, or, where a server does not say so, at whose queue holds connections
//! longer than from one look to the next; when all has been quiet for a while it watches again.
//!
//! **Neighbours.** Steering comes too late for a connection that already waits behind a worker which has just begun
//! something long. So each slot's listener is watched by three other workers as well, with EPOLLEXCLUSIVE: the kernel
//! wakes the first of its watchers that waits, in the order in which they registered. That is the slot's own worker,
//! unless it is busy; then it is a neighbour, who takes the connection at once if that worker is stalled, and
//! otherwise two milliseconds later if it is still there; ten, if that worker is idle and has fewer connections than
//! the neighbour: it waits for a processor, as after a burst of new connections on a busy machine, which the first to
//! run would otherwise all keep. No timer runs without a connection, and the same rule serves a slot whose worker is
//! dead, starting or backing off. When a slot gets a new worker, its neighbours register again, to be behind it. A
//! listener is deregistered before it is dropped: its registration belongs to the socket, which others hold too, and
//! would go on to take wake-ups.
//!
//! **Servers of one's own** do not look at their siblings, so the parent does for them, as long as connections come:
//! their listeners are watched for one event (EPOLLONESHOT), after which the parent looks every five milliseconds at
//! who says that it is busy (`Meter`), or whose queue holds connections from one look to the next; after a second
//! without any it watches for an event again.
//!
//! **A slot that was scaled away** is looked after by its neighbours for three seconds more, for handshakes whose
//! packets were lost; then its sockets are shut down and closed, when nobody else says that it holds copies: only
//! then is it known when the group's indexes change, and who has kept copies all the same gets nothing.

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

/// How often the parent looks: a connection that waits this long in a queue has found a busy worker.
const LOOK: Duration = Duration::from_millis(5);

/// Looks that find every queue empty before it stops looking.
const QUIET: u32 = 200;

/// What the parent knows about queues that it attends.
#[derive(Debug, Default)]
pub(super) struct Attention {
    next: Option<Time>,
    quiet: u32,
    /// The slots whose queue held connections at the latest look.
    waiting: Vec<usize>,
    /// The slots whose listeners are watched for an event, and by which process they are served.
    armed: BTreeMap<usize, Pid>,
}

impl Attention {
    pub(super) fn deadline(&self) -> Option<Time> {
        self.next
    }

    /// Watches the listeners of workers with a server of their own that are not watched yet.
    pub(super) fn attend(&mut self, roster: &Roster, board: &ParentBoard, custody: &Custody, wakeups: &Poll) {
        if self.next.is_some() {
            return;
        }
        for (slot, pid) in own_servers(roster, board) {
            if self.armed.insert(slot, pid) == Some(pid) {
                continue;
            }
            let sockets = custody.sockets(slot).map(SlotSockets::fds).unwrap_or_default();
            for socket in sockets {
                if let Err(error) = epoll::watch_once(wakeups, socket, Token(Source::Attention.encode())) {
                    debug!("cannot watch the queue of worker={slot} with epoll_ctl(2): {error}");
                }
            }
        }
    }

    /// A connection has come to one of them.
    pub(super) fn begin(&mut self, now: Time) {
        self.quiet = 0;
        self.armed.clear();
        self.next.get_or_insert(now + LOOK);
    }

    /// Looks at them, if it is time.
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
        self.next = (self.quiet < QUIET).then(|| now + LOOK);
    }
}

/// The slots whose worker serves and does not run the built-in server.
fn own_servers(roster: &Roster, board: &ParentBoard) -> Vec<(usize, Pid)> {
    let is_able = |pid| roster.get(pid).is_some_and(|process| process.is_able(board));
    roster.serving().filter(|(_, pid)| !is_able(*pid)).collect()
}

/// Whether connections wait in any of these queues.
fn has_waiting(sockets: &[BorrowedFd<'_>]) -> bool {
    let mut waits: Vec<PollFd<'_>> = sockets.iter().map(|socket| PollFd::new(*socket, PollFlags::POLLIN)).collect();
    poll(&mut waits, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}
