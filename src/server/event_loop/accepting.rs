//! How connections come into the loop: from the queues of listeners, and from the application.

use std::io;
use std::time::Duration;

use log::{debug, warn};
use mio::net::TcpStream;
use mio::Token;

use super::places::Idle;
use super::{Entry, Server};
use crate::server::acceptor::Refusal;
use crate::server::answer::response::Response;
use crate::server::client::Client;
use crate::server::connection::{self, Connection, Step};
use crate::server::deadlines::INDEX_MAX;
use crate::server::http::Request;
use crate::shared::listener;
use crate::shared::scoreboard::UNSETTLED;
use crate::time::Time;

/// Connections that one listener may bring in one turn, so that those that are open have theirs.
const ACCEPTS: usize = 64;

/// How long accepting rests when descriptors have run out and no connection of this worker ends.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// How long what waits is left to other workers that have places, by one that has none.
const YIELD: Duration = Duration::from_millis(10);

/// Connections that are looked at for one newcomer.
const LOOKS: usize = 16;

/// No deadline is nearer than this.
const CLOCK_STEP: Duration = Duration::from_millis(1);

/// How often it is said that connections are closed in favour of new ones.
const EVICTION_TOLD: Duration = Duration::from_secs(60);

/// Where a new connection goes.
#[derive(Clone, Copy, Debug)]
enum Seat {
    Free,
    /// In the place of this one, which is idle.
    Of(usize),
}

impl<H> Server<'_, H>
where
    H: FnMut(&Request<'_>) -> Response,
{
    pub(super) fn has_room(&self) -> bool {
        let max = match self.cx.config.max_connections {
            0 => INDEX_MAX,
            max => max.min(INDEX_MAX),
        };
        self.connections.len() + self.lent.count() < max
    }

    /// Takes in new connections, as far as limits and descriptors allow.
    pub(super) fn accept(&mut self) {
        if self.accept_retry.is_some_and(|due| self.cx.now < due) {
            return;
        }
        let was_paused = self.accept_retry.take().is_some();
        for key in 0..self.acceptors.capacity() {
            let has_waiting = self.acceptors.get(key).is_some_and(|acceptor| acceptor.has_waiting);
            if let Some(error) = has_waiting.then(|| self.take_in(key, ACCEPTS)).and_then(Result::err) {
                return self.pause(was_paused, &error);
            }
        }
        let has_room = self.has_room();
        // Where nobody has, somebody has to make some.
        let is_offered = has_room || !self.station.others_have_room(self.cx.now);
        for (_, acceptor) in &mut self.acceptors {
            acceptor.offer(&self.poll, is_offered);
        }
        self.show_room(has_room);
    }

    /// Takes in up to `most` connections of one listener.
    pub(super) fn take_in(&mut self, key: usize, most: usize) -> io::Result<()> {
        let is_all = most == usize::MAX;
        for _ in 0..most {
            let Some(acceptor) = self.acceptors.get_mut(key).filter(|it| it.has_waiting) else { break };
            let (station, now) = (&self.station, self.cx.now);
            let is_stalled = |slot| station.is_stalled(slot, now);
            let may_take = match station.is_sticky() {
                _ if is_all => true,
                true => acceptor.may_take_unserved(now, |slot| station.is_served(slot)),
                false => acceptor.may_take(now, is_stalled, |slot| station.is_idle_with_fewer(slot)),
            };
            if !may_take {
                break;
            }
            let is_own = acceptor.is_own();
            let Some(place) = (if is_all { Some(Seat::Free) } else { self.find_place(is_own) }) else { break };
            let Some(acceptor) = self.acceptors.get_mut(key) else { break };
            match acceptor.accept() {
                Ok((stream, peer)) => {
                    // One that the kernel gave to another slot settles nothing here: that slot's worker sees to it.
                    if acceptor.is_own() {
                        self.cx.row.settle(1);
                    }
                    if !self.cx.config.admits(peer) {
                        connection::refuse(peer, "it is none of the trusted proxies", &mut self.cx);
                        continue;
                    }
                    if let Seat::Of(index) = place {
                        self.evict(index);
                    }
                    let mut connection = Connection::new(stream, peer, self.cx.config, self.cx.running);
                    if self.cx.config.begins_with_header(peer) {
                        connection.await_header();
                    }
                    self.admit(connection);
                }
                Err(Refusal::Nothing) => {
                    acceptor.has_waiting = false;
                    self.settle_assigned();
                }
                Err(Refusal::Gone) => {}
                // The error may have come before it was seen whether a connection waits at all.
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

    /// When there may be a connection to take in, and a place for it.
    pub(super) fn accept_due(&self) -> Option<Time> {
        let due = self.acceptors.iter().filter_map(|(_, acceptor)| acceptor.due()).min()?;
        match self.has_room() {
            _ if self.accept_retry.is_some() => None,
            true => Some(due),
            false => Some(due.max(self.places.due())),
        }
    }

    /// A place for one more connection: a free one, or that of the connection that has been idle longest. What other
    /// workers can take as well is left to them as long as they have free ones.
    fn find_place(&mut self, is_own: bool) -> Option<Seat> {
        if self.has_room() {
            return Some(Seat::Free);
        }
        // That they have is what they say: it is believed for a moment only.
        if !is_own && self.station.others_have_room(self.cx.now) && self.places.yields() {
            self.places.rest(self.cx.now + YIELD);
            return None;
        }
        let index = self.longest_idle();
        // One that was looked at may have ended.
        if self.has_room() {
            Some(Seat::Free)
        } else {
            index.map(Seat::Of)
        }
    }

    /// The connection that has been idle longest, and of which nothing waits to be read: what does is answered first.
    fn longest_idle(&mut self) -> Option<usize> {
        for _ in 0..LOOKS {
            let Some(first) = self.places.first() else {
                if !self.places.is_due(self.cx.now) {
                    return None;
                }
                let (config, connections, lost) = (self.cx.config, &self.connections, self.lost);
                let idle = connections.iter().filter_map(|(index, entry)| {
                    let (is_new, since) = entry.connection.idle_since(config)?;
                    Some(Idle { is_new, since: since + lost, index, serial: entry.serial })
                });
                self.places.note(idle, connections.len(), self.cx.now);
                continue;
            };
            if self.is_still(first) {
                self.look(first.index);
                if self.is_still(first) {
                    return Some(first.index);
                }
            }
            self.places.drop_first();
        }
        // The others have a turn first.
        self.places.rest(self.cx.now + CLOCK_STEP);
        None
    }

    fn is_still(&self, idle: Idle) -> bool {
        let entry =
            self.connections.get(idle.index).filter(|entry| entry.serial == idle.serial && !entry.connection.is_again);
        let now_idle = entry.and_then(|entry| entry.connection.idle_since(self.cx.config));
        now_idle.is_some_and(|(is_new, since)| (is_new, since + self.lost) == (idle.is_new, idle.since))
    }

    /// Closes an idle connection in favour of a new one.
    fn evict(&mut self, index: usize) {
        if self.evicted.is_none_or(|evicted| self.cx.now.since(evicted) >= EVICTION_TOLD) {
            self.evicted = Some(self.cx.now);
            // The admin process has as many places as it needs.
            let remedy = "; raise max-connections or RLIMIT_NOFILE if they are wanted";
            warn!(
                "{} has reached its limit at {} connections: it closes those that have been idle longest to accept new ones{}",
                self.station.tag,
                self.connections.len(),
                if self.cx.config.evicts_unfinished { "" } else { remedy }
            );
        }
        self.places.drop_first();
        self.connections[index].connection.give_way();
        self.close(index);
    }

    /// Lets go of a listener that fails, as one does that was shut down. The others go on, and the parent mends it.
    fn lose(&mut self, key: usize, error: &io::Error) {
        let acceptor = self.acceptors.remove(key);
        acceptor.deregister(&self.poll);
        if let Some(neighbour) = acceptor.neighbour {
            return debug!(
                "{} no longer accepts from the queue of worker={}: {error}",
                self.station.tag, neighbour.slot
            );
        }
        warn!("{} can no longer accept on one of its sockets: {error}", self.station.tag);
        if !acceptor.is_shared() {
            // Its own come first, in the order of the addresses.
            self.station.lifeline.broken(key);
        }
    }

    /// A queue is empty. Pending connections are on their way, or will never come; of those that are always as many, at
    /// every such moment of a second, it does not matter which.
    fn settle_assigned(&mut self) {
        self.pending = self.pending.min(self.cx.row.pending());
        if self.cx.now.since(self.settled) >= UNSETTLED {
            self.cx.row.settle(std::mem::replace(&mut self.pending, i64::MAX));
            self.seen = self.station.look_for_pending(&self.seen, self.cx.now);
            self.settled = self.cx.now;
        }
    }

    /// Says when this worker has as many connections as it may have, so that the kernel chooses others.
    fn show_room(&mut self, has_room: bool) {
        if self.cx.config.max_connections > 0 && self.cx.row.says_full() == has_room {
            self.cx.row.set_full(!has_room);
            self.steer();
        }
    }

    fn admit(&mut self, connection: Connection) {
        self.accepted = self.accepted.wrapping_add(1);
        let entry = Entry { connection, serial: self.accepted, armed: Time::NEVER, held: 0 };
        let index = self.connections.insert(entry);
        self.cx.row.count_accepted();
        match self.connections[index].connection.register(self.poll.registry(), Token(index)) {
            Ok(()) => self.settle(index, Step::Wait),
            Err(error) => {
                warn!("{} dropped a connection: cannot watch it with epoll_ctl(2): {error}", self.station.tag);
                self.close(index);
            }
        }
    }

    /// Rests from accepting until a connection ends, and tries again now and then in case somebody else has freed a
    /// descriptor. What waits in the queues is not lost, and the loop does not spin.
    fn pause(&mut self, was_paused: bool, error: &io::Error) {
        if !was_paused {
            warn!(
                "{} stops accepting until a descriptor is free: {error}; it has {} connections; raise RLIMIT_NOFILE or set max-connections",
                self.station.tag,
                self.connections.len()
            );
        }
        // A connection may have been idle for long enough before that.
        self.accept_retry = Some((self.cx.now + ACCEPT_RETRY).min(self.places.due().max(self.cx.now + CLOCK_STEP)));
    }

    /// Takes in the connections that the application has for it.
    pub(super) fn adopt(&mut self) {
        for (stream, peer) in self.station.adoptions.take() {
            listener::keep_alive(&stream, self.cx.config.tcp_keepalive);
            let client = Client::Tcp(TcpStream::from_std(stream));
            self.admit(Connection::new(client, Some(peer), self.cx.config, self.cx.running));
        }
    }
}
