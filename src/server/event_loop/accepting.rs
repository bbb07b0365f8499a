//! How connections come into the loop: from the queues of listeners, and from the application.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use log::{debug, warn};
use mio::net::TcpStream;

use super::Server;
use crate::server::acceptor::Refusal;
use crate::server::answer::response::Response;
use crate::server::client::{Client, Peer};
use crate::server::connection::{self, Connection};
use crate::server::deadlines::INDEX_MAX;
use crate::server::http::Request;
use crate::shared::listener;
use crate::sys::clock;
use crate::time::Time;

/// The maximum number of connections from one listener per turn, so that open connections have theirs.
pub(super) const ACCEPTS: usize = 64;

/// Longer than the kernel's tick where that is four milliseconds or less (CONFIG_HZ of 250 and more).
const TICK: Duration = Duration::from_millis(5);

/// The maximum number of connections to examine for one new connection.
const EXAMINED_MAX: usize = 16;

/// The place of a new connection.
#[derive(Clone, Copy, Debug)]
enum Place {
    Free,
    /// The place of this idle connection.
    Of(usize),
}

impl<H> Server<'_, H>
where
    H: FnMut(&Request<'_>) -> Response,
{
    /// Whether there is room for a connection, also if this many more than usual may be open.
    pub(super) fn has_room(&self, excess: usize) -> bool {
        self.connections.count() < self.connections.most.saturating_add(excess).min(INDEX_MAX)
    }

    /// Accepts connections, as far as limits and descriptors allow.
    pub(super) fn accept(&mut self) {
        // Whoever adds a connection elsewhere ends the quiet, so that it is not counted at each turn.
        if self.admission.is_quiet() {
            return;
        }
        let closed = self.connections.table.closed();
        if self.admission.rests(closed, self.connections.cx.clock.now) {
            return;
        }
        let was_paused = self.admission.resume(closed);
        for key in 0..self.acceptors.end() {
            if let Err(error) = self.take_in(key, ACCEPTS) {
                return self.pause(key, was_paused, &error);
            }
        }
        let has_room = self.has_room(0);
        // If no worker has space, this one must make some.
        let is_offered = has_room || !self.connections.cx.station.others_have_room(self.connections.cx.clock.now);
        self.acceptors.offer(&self.connections.poll, is_offered);
        self.admission.set_quiet(has_room && !self.acceptors.have_waiting());
        self.show_room(has_room);
    }

    /// Accepts up to `most` connections of one listener; when the worker drains, also those for which there is no
    /// place.
    pub(super) fn take_in(&mut self, key: usize, most: usize) -> io::Result<()> {
        let is_all = self.connections.cx.is_draining();
        for taken in 0..most {
            let may_begin = is_all || self.handshakes.may_begin(key, &mut self.acceptors, &mut self.connections);
            let (station, now) = (&self.connections.cx.station, self.connections.cx.clock.now);
            let Some(acceptor) = self.acceptors.waiting(key).filter(|_| may_begin) else { break };
            if !is_all && !acceptor.may_take_now(station, now) {
                break;
            }
            let is_own = acceptor.is_own();
            let Some(place) = (if is_all { Some(Place::Free) } else { self.find_place(is_own) }) else {
                self.acceptors.leave_to_others(key, &mut self.admission, &self.connections.cx);
                break;
            };
            if !is_all
                && self.connections.descriptors.is_tight(self.connections.count())
                && self.connections.descriptors.is_short()
            {
                match self.acceptors.get_mut(key) {
                    Some(acceptor) if !acceptor.is_waited_for() => acceptor.has_waiting = false,
                    _ => match self.longest_idle() {
                        Some(index) => self.evict(index),
                        None => return Err(io::Error::from_raw_os_error(libc::EMFILE)),
                    },
                }
                continue;
            }
            let Some(acceptor) = self.acceptors.get_mut(key) else { break };
            // Another worker may have been faster at a neighbour's.
            let is_announced = taken == 0 && acceptor.is_own();
            match acceptor.accept(is_announced) {
                Ok((stream, peer)) => {
                    // A connection that the kernel assigned to another slot is settled by that slot's worker.
                    if acceptor.is_own() {
                        self.connections.cx.stats.row.settle(1);
                    }
                    if !self.connections.cx.station.config.admits(peer) {
                        connection::refuse(peer, "it is none of the trusted proxies", &mut self.connections.cx);
                        continue;
                    }
                    if let Place::Of(index) = place {
                        self.evict(index);
                    }
                    self.connections.descriptors.took(stream.as_fd().as_raw_fd(), self.connections.count());
                    let (config, now) = (self.connections.cx.station.config, self.connections.cx.clock.running);
                    let connection = Connection::new(stream, Peer::expected(peer, config), config, now);
                    match is_all {
                        // Whatever is in the queue comes out of it first.
                        true => self.connections.add(connection, &mut self.passing),
                        false => self.connections.admit(connection, &mut self.passing),
                    }
                }
                Err(Refusal::Nothing) => {
                    acceptor.has_waiting = false;
                    let cx = &self.connections.cx;
                    self.steering.settle(cx.stats.row, &cx.station, cx.clock.now);
                }
                Err(Refusal::Gone) => {}
                // The error may have come before accept(2) checked whether a connection waits at all.
                Err(Refusal::Exhausted(_)) if !acceptor.is_waited_for() => acceptor.has_waiting = false,
                Err(Refusal::Exhausted(error)) => match self.longest_idle() {
                    Some(index) => self.evict(index),
                    None => return Err(error),
                },
                Err(Refusal::Broken(error)) => self.lose(key, &error),
            }
        }
        Ok(())
    }

    /// If a file that is being sent has taken one of the descriptors that connections leave to others, closes idle
    /// connections, so that the next file finds a free one.
    pub(super) fn make_room_for_files(&mut self) {
        if !self.connections.descriptors.take_low() {
            return;
        }
        for _ in 0..EXAMINED_MAX {
            let Some(index) = (if self.connections.descriptors.is_short() { self.longest_idle() } else { None }) else {
                return;
            };
            self.evict(index);
        }
    }

    /// When accepting goes on after a pause; or else when there may be a connection to accept, and a place for it, if
    /// the turn ends at `now`.
    pub(super) fn accept_due(&self, now: Time) -> Option<Time> {
        if let Some(retry) = self.admission.retry(self.connections.table.closed()) {
            return Some(retry);
        }
        // A busy loop sees in its next turns that a neighbour's queue is due. A timer for that would have to be set and
        // cleared in each of them, and one that is nearer than the kernel's next tick sets the hardware's each time.
        let is_close = self.connections.cx.clock.turns_are_close(now);
        let due = self.acceptors.due(|acceptor, due| {
            let waits = is_close && acceptor.neighbour.is_some();
            self.handshakes.due(acceptor, if waits { due.max(now + TICK) } else { due })
        })?;
        match self.has_room(0) {
            true => Some(due),
            false => Some(due.max(self.admission.eviction.due())),
        }
    }

    /// Finds a place for another connection: a free one, or that of the connection that has been idle longest.
    /// Connections that other workers can accept as well are left to them as long as they have free places.
    fn find_place(&mut self, is_own: bool) -> Option<Place> {
        if self.has_room(0) {
            return Some(Place::Free);
        }
        let now = self.connections.cx.clock.now;
        if !is_own && self.connections.cx.station.others_have_room(now) && self.admission.yields(now) {
            return None;
        }
        let index = self.longest_idle();
        // A connection that was examined may have ended.
        if self.has_room(0) {
            Some(Place::Free)
        } else {
            index.map(Place::Of)
        }
    }

    /// The connection that has been idle longest and has nothing to read; if it has, that is answered first.
    fn longest_idle(&mut self) -> Option<usize> {
        let eviction = &mut self.admission.eviction;
        for _ in 0..EXAMINED_MAX {
            let Some(first) = eviction.first() else {
                let now = self.connections.cx.clock.now;
                if !eviction.is_due(now) {
                    return None;
                }
                eviction.note(self.connections.table.idle(&self.connections.cx), self.connections.table.len(), now);
                continue;
            };
            if self.connections.table.is_still(first, &self.connections.cx) {
                // What it is served now is later than what was served in this turn before.
                self.connections.cx.clock.go_on(clock::now_micros());
                self.connections.look(first.index);
                if self.connections.table.is_still(first, &self.connections.cx) {
                    return Some(first.index);
                }
            }
            eviction.drop_first();
        }
        self.admission.look_later(self.connections.cx.clock.now);
        None
    }

    /// Closes an idle connection in favour of a new one.
    fn evict(&mut self, index: usize) {
        let cx = &self.connections.cx;
        if self.admission.is_warning_due(cx.clock.now) {
            // The admin process has as many places as it needs.
            let remedy = "; raise max-connections or RLIMIT_NOFILE if they are wanted";
            warn!(
                "{} has reached its limit at {} connections: it closes those that have been idle longest to make \
                 room{}",
                cx.station.tag,
                self.connections.table.len(),
                if cx.station.config.capacity.evicts_unfinished { "" } else { remedy }
            );
        }
        self.admission.eviction.drop_first();
        self.connections.table.entries[index].connection.waiting().give_way();
        self.connections.close(index);
    }

    /// Drops a listener that fails, for example because it was shut down. The others go on, and the parent repairs it.
    fn lose(&mut self, key: usize, error: &io::Error) {
        let acceptor = self.acceptors.remove(key, &self.connections.poll);
        if let Some(neighbour) = acceptor.neighbour {
            return debug!(
                "{} no longer accepts from the queue of worker={}: {error}",
                self.connections.cx.station.tag, neighbour.slot
            );
        }
        warn!("{} can no longer accept on one of its sockets: {error}", self.connections.cx.station.tag);
        if !acceptor.is_shared() {
            // This slot's own listeners come first, in the order of the addresses.
            self.connections.cx.station.lifeline.broken(key);
        }
    }

    /// Reports whether this worker has reached its limit of connections, so that the kernel chooses others.
    fn show_room(&mut self, has_room: bool) {
        if self.connections.cx.station.config.capacity.max_connections > 0
            && self.connections.cx.stats.row.says_full() == has_room
        {
            self.connections.cx.stats.row.set_full(!has_room);
            self.steer();
        }
    }

    /// Pauses accepting. Connections in the queues are not lost, and the loop does not spin.
    fn pause(&mut self, key: usize, was_paused: bool, error: &io::Error) {
        self.acceptors.leave_to_others(key, &mut self.admission, &self.connections.cx);
        if !was_paused {
            warn!(
                "{} stops accepting until a descriptor is free: {error}; it has {} connections; raise RLIMIT_NOFILE or \
                 set max-connections",
                self.connections.cx.station.tag,
                self.connections.table.len()
            );
        }
        self.admission.pause(self.connections.table.closed(), self.connections.cx.clock.now);
    }

    /// Adopts the connections that the application passes to it.
    pub(super) fn adopt(&mut self) {
        for (stream, peer) in self.connections.cx.station.adoptions.take() {
            listener::keep_alive(&stream, self.connections.cx.station.config.timeouts.tcp_keepalive);
            let client = Client::Tcp(TcpStream::from_std(stream));
            let cx = &self.connections.cx;
            let connection = Connection::new(client, Peer::from(Some(peer)), cx.station.config, cx.clock.running);
            self.connections.add(connection, &mut self.passing);
            self.admission.wake();
        }
    }
}
