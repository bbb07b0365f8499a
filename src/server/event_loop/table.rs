//! The places of a worker's connections.

use std::time::Duration;

use mio::Token;
use slab::Slab;

use super::eviction::Idle;
use crate::server::connection::Connection;
use crate::server::context::Context;
use crate::server::mailbox::Place;
use crate::shared::scoreboard::OwnRow;
use crate::time::Time;

/// The connections of a worker by their places.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) entries: Slab<Entry>,
    /// Distinguishes successive connections in one place.
    serial: u32,
    /// How many have ended, those that the application had taken over too.
    closed: u32,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) connection: Connection,
    pub(super) serial: u32,
    /// When its alarm goes off.
    pub(super) armed: Time,
    /// Its share of the memory budget.
    pub(super) accounted: u32,
}

// With one word for its deadline, that is all that an idle connection costs. mio adds to it in debug builds.
#[cfg(all(target_pointer_width = "64", not(debug_assertions)))]
const _: () = assert!(size_of::<Entry>() == 120);

impl Entry {
    /// Whether it holds memory, or has held some that is still accounted for.
    #[inline]
    pub(super) fn may_hold(&self) -> bool {
        self.accounted != 0 || self.connection.waiting().is_holding()
    }
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn insert(&mut self, connection: Connection, row: OwnRow<'_>) -> (usize, Token) {
        row.count_accepted();
        self.serial = self.serial.wrapping_add(1);
        let index = self.entries.insert(Entry { connection, serial: self.serial, armed: Time::NEVER, accounted: 0 });
        (index, Token(index))
    }

    /// Another connection has ended.
    pub(super) fn count_closed(&mut self, row: OwnRow<'_>) {
        row.count_closed();
        self.closed = self.closed.wrapping_add(1);
    }

    /// How many have ended.
    pub(super) fn closed(&self) -> u32 {
        self.closed
    }

    /// The loop has ended, and all connections with it.
    pub(super) fn end(&mut self, cx: &mut Context<'_>) {
        self.entries.iter_mut().for_each(|(_, entry)| entry.connection.end(cx));
    }

    /// How much memory a connection needs that has a turn, if it still makes progress. A pause this long ends the turn.
    pub(super) fn room_for_turn(&self, place: Place, pause: Duration, cx: &Context<'_>) -> Option<usize> {
        self.get(place)?.connection.waiting().room_for_turn(cx.station.config, cx.clock.running, pause)
    }

    /// The connection in this place, if it is still the same.
    pub(super) fn get(&self, place: Place) -> Option<&Entry> {
        self.entries.get(place.index).filter(|entry| entry.serial == place.serial)
    }

    pub(super) fn get_mut(&mut self, place: Place) -> Option<&mut Entry> {
        self.entries.get_mut(place.index).filter(|entry| entry.serial == place.serial)
    }

    /// The idle connections.
    pub(super) fn idle<'t>(&'t self, cx: &'t Context<'_>) -> impl Iterator<Item = Idle> + 't {
        self.entries.iter().filter_map(|(index, entry)| {
            let (is_new, since) = entry.connection.waiting().idle_since(cx.station.config)?;
            Some(Idle { is_new, since: cx.clock.real(since), index, serial: entry.serial })
        })
    }

    /// Whether a connection has been idle ever since.
    pub(super) fn is_still(&self, idle: Idle, cx: &Context<'_>) -> bool {
        let place = Place { index: idle.index, serial: idle.serial };
        let entry = self.get(place).filter(|entry| !entry.connection.transport.is_again);
        let now_idle = entry.and_then(|entry| entry.connection.waiting().idle_since(cx.station.config));
        now_idle.is_some_and(|(is_new, since)| (is_new, cx.clock.real(since)) == (idle.is_new, idle.since))
    }

    /// The handshakes that wait for their clients.
    pub(super) fn handshakes<'t>(&'t self, cx: &'t Context<'_>) -> impl Iterator<Item = Idle> + 't {
        self.entries.iter().filter(|(_, entry)| !entry.connection.transport.is_again).filter_map(|(index, entry)| {
            let (is_new, since) = entry.connection.waiting().handshake_since(cx.station.config)?;
            Some(Idle { is_new, since: cx.clock.real(since), index, serial: entry.serial })
        })
    }

    /// Whether a handshake has waited for its client ever since.
    pub(super) fn is_still_awaited(&self, idle: Idle, cx: &Context<'_>) -> bool {
        let entry = self.get(Place { index: idle.index, serial: idle.serial });
        let entry = entry.filter(|entry| !entry.connection.transport.is_again);
        let awaited = entry.and_then(|entry| entry.connection.waiting().handshake_since(cx.station.config));
        awaited.is_some_and(|(is_new, since)| (is_new, cx.clock.real(since)) == (idle.is_new, idle.since))
    }

    /// Checks what the clients have read of the responses that are held for them.
    pub(super) fn look_at_queues(&mut self, cx: &mut Context<'_>) {
        for (index, entry) in self.entries.iter_mut().filter(|(_, entry)| entry.accounted > 0) {
            cx.waker.place = Place { index, serial: entry.serial };
            entry.connection.look_at_queue(cx);
        }
    }
}
