//! The connections of a worker: their places, which of them have more to do, and when to look at the others.

use mio::{Poll, Token};

use super::descriptors::Descriptors;
use super::drain_notices::DrainNotices;
use super::handover_queue::HandoverQueue;
use super::table::Table;
use super::upgrades::Upgrades;
use crate::server::answer::response::Response;
use crate::server::connection::{Connection, Step};
use crate::server::context::Context;
use crate::server::deadlines::{Deadlines, INDEX_MAX};
use crate::server::http::Request;
use crate::server::mailbox::Place;
use crate::sys::clock;
use crate::time::Time;

/// The connections of a worker, and what advances them.
pub(super) struct Connections<'w, H> {
    pub(super) cx: Context<'w>,
    pub(super) handler: H,
    /// The poll with which their sockets are registered.
    pub(super) poll: Poll,
    pub(super) table: Table,
    /// How many there may be at most.
    pub(super) most: usize,
    pub(super) upgrades: Upgrades,
    pub(super) deadlines: Deadlines,
    /// Those that have more to do in the next turn.
    pub(super) ready: Vec<usize>,
    /// When the worker drains: which connection is notified when.
    pub(super) notices: DrainNotices,
    pub(super) descriptors: Descriptors,
}

impl<'w, H> Connections<'w, H>
where
    H: FnMut(&Request<'_>) -> Response,
{
    pub(super) fn new(cx: Context<'w>, handler: H, poll: Poll) -> Connections<'w, H> {
        let most = match cx.station.config.capacity.max_connections {
            0 => INDEX_MAX,
            most => most.min(INDEX_MAX),
        };
        Connections {
            cx,
            most,
            handler,
            poll,
            table: Table::default(),
            upgrades: Upgrades::default(),
            deadlines: Deadlines::default(),
            ready: Vec::new(),
            notices: DrainNotices::default(),
            descriptors: Descriptors::new(),
        }
    }

    /// How many there are, including those that the application has taken over.
    pub(super) fn count(&self) -> usize {
        self.table.len() + self.upgrades.count()
    }

    /// Adds a connection, and answers what its client has sent already. It is watched only if it goes on: a client that
    /// sends at once, and whose connection ends with the response, costs no epoll_ctl(2), no alarm and no event. The
    /// step is no longer than any other.
    pub(super) fn admit(&mut self, connection: Connection, passing: &mut HandoverQueue) {
        if self.cx.is_timed() {
            // The handler may have taken long with those before it in this turn; its client has not waited for that.
            self.cx.clock.micros = clock::now_micros();
        }
        let (index, token) = self.table.insert(connection, self.cx.stats.row);
        let entry = &mut self.table.entries[index];
        entry.connection.transport.look();
        let place = Place { index, serial: entry.serial };
        self.cx.waker.place = place;
        let step = entry.connection.advance(&mut self.cx, &mut self.handler);
        if step == Step::Close || self.is_watched(index, token) {
            self.take_consequences(index, step);
        }
        if self.cx.is_draining() && self.table.get(place).is_some() {
            self.drain_new(index, passing);
        }
    }

    /// Adds a connection, which has its turn later.
    pub(super) fn add(&mut self, connection: Connection, passing: &mut HandoverQueue) {
        let (index, token) = self.table.insert(connection, self.cx.stats.row);
        if self.is_watched(index, token) {
            if self.cx.is_draining() {
                self.drain_new(index, passing);
            }
            self.settle(index, Step::Wait);
        }
    }

    /// Begins to wait for the events of a connection. If that is impossible, closes it.
    fn is_watched(&mut self, index: usize, token: Token) -> bool {
        let transport = &mut self.table.entries[index].connection.transport;
        let Err(error) = transport.register(self.poll.registry(), token) else { return true };
        log::warn!("{} dropped a connection: cannot watch it with epoll_ctl(2): {error}", self.cx.station.tag);
        self.close(index);
        false
    }

    /// Advances those that have more to do.
    pub(super) fn go_on(&mut self) {
        if self.ready.is_empty() {
            return;
        }
        for index in std::mem::take(&mut self.ready) {
            if let Some(entry) = self.table.entries.get_mut(index).filter(|entry| entry.connection.transport.is_again) {
                entry.connection.transport.is_again = false;
                self.step(index, None);
            }
        }
    }

    /// Advances those that other threads have woken.
    pub(super) fn deliver(&mut self) {
        for place in self.cx.waker.mailbox.take() {
            if self.table.get(place).is_some() {
                self.step(place.index, None);
            }
        }
        let given_back = self.cx.waker.mailbox.take_given_back();
        self.upgrades.end(given_back);
        (0..given_back).for_each(|_| self.table.count_closed(self.cx.stats.row));
    }

    /// When to look at one of them, or at what they share.
    pub(super) fn due(&self, now: Time) -> Time {
        let or_never = |due: Option<Time>| due.unwrap_or(Time::NEVER);
        let mut next = or_never(self.deadlines.next().map(|due| now.towards(self.cx.clock.real(due))));
        // Each is asked only if it has anything to do, as in few turns.
        if let Some(log) = &self.cx.logs.access {
            next = next.min(or_never(log.due()));
        }
        if !self.cx.memory.is_calm() {
            next = next.min(self.cx.memory.due());
        }
        if let Some(notice) = self.notices.next() {
            next = next.min(notice);
        }
        next
    }

    /// The loop has ended.
    pub(super) fn end(&mut self) {
        self.table.end(&mut self.cx);
        self.cx.stats.row.idle();
    }
}
