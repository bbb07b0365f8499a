//! The listeners of the loop: the worker's own, those that all workers share, and those of other slots.

use std::io;

use mio::{Poll, Token};
use slab::Slab;

use super::admission::Admission;
use crate::server::acceptor::Acceptor;
use crate::server::context::Context;
use crate::time::Time;

/// Tokens of listeners count down from here; those of connections count up from zero.
pub(super) const LISTENERS: usize = usize::MAX - 5;

/// The number of tokens reserved for listeners.
pub(super) const LISTENERS_MAX: usize = 1 << 20;

/// The listeners by their keys. The worker's own have the first ones, in the order of the addresses.
#[derive(Debug, Default)]
pub(super) struct Acceptors(Slab<Acceptor>);

impl Acceptors {
    /// Adds a listener, and waits for its connections.
    pub(super) fn add(&mut self, mut acceptor: Acceptor, poll: &Poll) -> io::Result<()> {
        let entry = self.0.vacant_entry();
        acceptor.register(poll, Token(LISTENERS - entry.key()))?;
        entry.insert(acceptor);
        Ok(())
    }

    /// An event has come for the listener with this token, which may have been dropped in this turn. Returns whether it
    /// is still there.
    pub(super) fn notice(&mut self, token: usize, now: Time) -> bool {
        let acceptor = self.0.get_mut(LISTENERS - token);
        acceptor.map(|acceptor| acceptor.notice(now)).is_some()
    }

    /// Connections may wait at any of them.
    pub(super) fn notice_all(&mut self, now: Time) {
        self.0.iter_mut().for_each(|(_, acceptor)| acceptor.notice(now));
    }

    /// Keys are smaller than this.
    pub(super) fn end(&self) -> usize {
        self.0.capacity()
    }

    pub(super) fn get_mut(&mut self, key: usize) -> Option<&mut Acceptor> {
        self.0.get_mut(key)
    }

    /// The listener with this key, if connections may wait there.
    pub(super) fn waiting(&mut self, key: usize) -> Option<&mut Acceptor> {
        self.0.get_mut(key).filter(|acceptor| acceptor.has_waiting)
    }

    pub(super) fn have_waiting(&self) -> bool {
        self.0.iter().any(|(_, acceptor)| acceptor.has_waiting)
    }

    /// There is no room for what may wait in this queue. The kernel wakes one worker for a connection (EPOLLEXCLUSIVE,
    /// epoll_ctl(2)), so the others may not know of it.
    pub(super) fn leave_to_others(&mut self, key: usize, admission: &mut Admission, cx: &Context<'_>) {
        let now = cx.clock.now;
        let Some(acceptor) = self.0.get_mut(key).filter(|_| admission.may_ask(now)) else { return };
        if acceptor.is_waited_for() {
            cx.station.lifeline.overflow(now);
        } else {
            acceptor.has_waiting = false;
            admission.eviction.reset();
        }
    }

    /// Whether the kernel is to wake this worker for connections that others can accept as well.
    pub(super) fn offer(&mut self, poll: &Poll, is_offered: bool) {
        self.0.iter_mut().for_each(|(_, acceptor)| acceptor.offer(poll, is_offered));
    }

    /// When to look at one of them. `due` makes that from the time from which a connection may wait there.
    pub(super) fn due(&self, due: impl Fn(&Acceptor, Time) -> Time) -> Option<Time> {
        self.0.iter().filter_map(|(_, acceptor)| Some(due(acceptor, acceptor.due()?))).min()
    }

    pub(super) fn remove(&mut self, key: usize, poll: &Poll) -> Acceptor {
        let acceptor = self.0.remove(key);
        acceptor.deregister(poll);
        acceptor
    }

    /// Stops accepting from those of another slot.
    pub(super) fn drop_slot(&mut self, slot: usize, poll: &Poll) {
        self.drop_if(poll, |acceptor| acceptor.neighbour.is_some_and(|neighbour| neighbour.slot == slot));
    }

    pub(super) fn drop_all(&mut self, poll: &Poll) {
        self.drop_if(poll, |_| true);
    }

    fn drop_if(&mut self, poll: &Poll, goes: impl Fn(&Acceptor) -> bool) {
        self.0.retain(|_, acceptor| {
            let goes = goes(acceptor);
            if goes {
                acceptor.deregister(poll);
            }
            !goes
        });
    }
}
