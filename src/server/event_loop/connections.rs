//! The connections of a worker: their places, which of them have more to do, and when to look at the others.

use mio::event::Event;
use mio::{Poll, Token};
use nix::sys::resource::{getrlimit, Resource};
use slab::Slab;

use super::admission::first_left;
use super::drain_notices::DrainNotices;
use super::places::Idle;
use super::upgrades::Upgrades;
use crate::server::access_log::AccessLog;
use crate::server::answer::response::Response;
use crate::server::connection::{Connection, Step};
use crate::server::context::Context;
use crate::server::deadlines::Deadlines;
use crate::server::http::Request;
use crate::server::mailbox::Place;
use crate::time::Time;

/// The connections of a worker, and what advances them.
pub(super) struct Connections<'w, H> {
    pub(super) cx: Context<'w>,
    pub(super) handler: H,
    /// The poll with which their sockets are registered.
    pub(super) poll: Poll,
    pub(super) table: Slab<Entry>,
    /// Distinguishes successive connections in one place of the table.
    accepted: u32,
    /// How many have ended.
    pub(super) closed: u32,
    pub(super) upgrades: Upgrades,
    pub(super) deadlines: Deadlines,
    /// Those that have more to do in the next turn.
    pub(super) ready: Vec<usize>,
    /// When the worker drains: which connection is notified when.
    pub(super) notices: DrainNotices,
    /// The first descriptor that connections leave to others, and whether a file has taken one of those.
    pub(super) first_left: i32,
    pub(super) is_low: bool,
}

pub(super) struct Entry {
    pub(super) connection: Connection,
    pub(super) serial: u32,
    /// When its alarm rings.
    pub(super) armed: Time,
    /// Its share of the memory budget.
    pub(super) held: u32,
}

// With one word for its deadline, that is all that an idle connection costs. mio adds to it in debug builds.
#[cfg(all(target_pointer_width = "64", not(debug_assertions)))]
const _: () = assert!(size_of::<Entry>() == 112);

impl<'w, H> Connections<'w, H>
where
    H: FnMut(&Request<'_>) -> Response,
{
    pub(super) fn new(cx: Context<'w>, handler: H, poll: Poll) -> Connections<'w, H> {
        let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
        let first_left = first_left(descriptors);
        Connections {
            cx,
            handler,
            poll,
            table: Slab::new(),
            accepted: 0,
            closed: 0,
            upgrades: Upgrades::default(),
            deadlines: Deadlines::default(),
            ready: Vec::new(),
            notices: DrainNotices::default(),
            first_left,
            is_low: false,
        }
    }

    /// How many there are, including those that the application has taken over.
    pub(super) fn count(&self) -> usize {
        self.table.len() + self.upgrades.count()
    }

    /// How many have ended.
    pub(super) fn closed(&self) -> u32 {
        self.closed
    }

    /// The connection in this place, if it is still the same.
    pub(super) fn get_mut(&mut self, place: Place) -> Option<&mut Entry> {
        self.table.get_mut(place.index).filter(|entry| entry.serial == place.serial)
    }

    /// Adds a connection, if it can be watched.
    pub(super) fn admit(&mut self, connection: Connection) {
        self.accepted = self.accepted.wrapping_add(1);
        let entry = Entry { connection, serial: self.accepted, armed: Time::NEVER, held: 0 };
        let index = self.table.insert(entry);
        self.cx.stats.row.count_accepted();
        match self.table[index].connection.transport.register(self.poll.registry(), Token(index)) {
            Ok(()) => self.settle(index, Step::Wait),
            Err(error) => {
                let tag = &self.cx.station.tag;
                log::warn!("{tag} dropped a connection: cannot watch it with epoll_ctl(2): {error}");
                self.close(index);
            }
        }
    }

    /// An event has arrived for a connection.
    #[inline]
    pub(super) fn notice(&mut self, index: usize, event: &Event) {
        self.step(index, Some(event));
    }

    /// The idle connections.
    pub(super) fn idle(&self) -> impl Iterator<Item = Idle> + '_ {
        self.table.iter().filter_map(|(index, entry)| {
            let (is_new, since) = entry.connection.waiting().idle_since(self.cx.config)?;
            Some(Idle { is_new, since: self.cx.clock.real(since), index, serial: entry.serial })
        })
    }

    /// Whether a connection has been idle ever since.
    pub(super) fn is_still(&self, idle: Idle) -> bool {
        let entry =
            self.table.get(idle.index).filter(|entry| entry.serial == idle.serial && !entry.connection.is_again);
        let now_idle = entry.and_then(|entry| entry.connection.waiting().idle_since(self.cx.config));
        now_idle.is_some_and(|(is_new, since)| (is_new, self.cx.clock.real(since)) == (idle.is_new, idle.since))
    }

    /// Whether some have more to do.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Advances those that have more to do.
    pub(super) fn go_on(&mut self) {
        for index in std::mem::take(&mut self.ready) {
            if let Some(entry) = self.table.get_mut(index).filter(|entry| entry.connection.is_again) {
                entry.connection.is_again = false;
                self.advance(index);
            }
        }
    }

    /// Advances those for which other threads have rung.
    pub(super) fn deliver(&mut self) {
        for place in self.cx.waker.mailbox.take() {
            if self.get_mut(place).is_some() {
                self.advance(place.index);
            }
        }
        self.take_back(self.cx.waker.mailbox.take_given_back());
    }

    /// When to look at one of them, or at what they share.
    pub(super) fn due(&self, now: Time) -> Time {
        let or_never = |due: Option<Time>| due.unwrap_or(Time::NEVER);
        or_never(self.deadlines.next().map(|due| now.towards(self.cx.clock.real(due))))
            .min(or_never(self.cx.log.as_ref().and_then(AccessLog::due)))
            .min(or_never(self.cx.memory.budget.due()))
            .min(or_never(self.cx.memory.turn_due))
            .min(or_never(self.notices.next()))
    }

    /// The loop has ended.
    pub(super) fn end(&mut self) {
        for (_, entry) in &mut self.table {
            entry.connection.end(&mut self.cx);
        }
        self.cx.stats.row.idle();
    }
}
