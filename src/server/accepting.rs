//! How connections come into the loop: from the queues of listeners, and from the application.

use std::io;
use std::time::Duration;

use log::warn;
use mio::net::TcpStream;
use mio::Token;

use super::{Entry, Server};
use crate::acceptor::Refusal;
use crate::client::Client;
use crate::connection::{Connection, Step};
use crate::deadlines::INDEX_MAX;
use crate::http::Request;
use crate::response::Response;
use crate::time::Time;

/// Connections that one listener may bring in one turn, so that those that are open have theirs.
const ACCEPTS: usize = 64;

/// How long accepting rests when descriptors have run out and no connection of this worker ends.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// How long a connection may be on its way to a worker's queue: longer than most round trips.
const UNSETTLED: Duration = Duration::from_secs(1);

impl<H> Server<'_, H>
where
    H: FnMut(&Request<'_>) -> Response,
{
    pub(super) fn has_room(&self) -> bool {
        let max = match self.cx.config.max_connections {
            0 => INDEX_MAX,
            max => max.min(INDEX_MAX),
        };
        self.connections.len() < max
    }

    /// Takes in new connections, as far as limits and descriptors allow.
    pub(super) fn accept(&mut self) {
        if self.accept_retry.is_some_and(|due| self.cx.now < due) {
            return;
        }
        let was_paused = self.accept_retry.take().is_some();
        for key in 0..self.acceptors.capacity() {
            if let Err(error) = self.take_in(key, ACCEPTS) {
                return self.pause(was_paused, &error);
            }
        }
        let has_room = self.has_room();
        for (_, acceptor) in &mut self.acceptors {
            acceptor.offer(&self.poll, has_room);
        }
        self.show_room(has_room);
    }

    /// Takes in up to `most` connections of one listener.
    pub(super) fn take_in(&mut self, key: usize, most: usize) -> io::Result<()> {
        let is_all = most == usize::MAX;
        for _ in 0..most {
            let has_room = is_all || self.has_room();
            let Some(acceptor) = self.acceptors.get_mut(key).filter(|it| it.has_waiting && has_room) else { break };
            let is_stalled = |slot| self.worker.is_stalled(slot, self.cx.now);
            if !is_all && !acceptor.may_take(self.cx.now, is_stalled, |slot| self.worker.is_idle_with_fewer(slot)) {
                break;
            }
            match acceptor.accept() {
                Ok((stream, peer)) => {
                    match acceptor.neighbour {
                        Some(neighbour) => self.worker.count_settled(neighbour.slot),
                        None if acceptor.own().is_some() => self.worker.row().count_settled(),
                        None => {}
                    }
                    self.admit(Connection::new(stream, peer, self.cx.config, self.cx.now));
                }
                Err(Refusal::Nothing) => {
                    acceptor.has_waiting = false;
                    self.settle_assigned();
                }
                Err(Refusal::Gone) => {}
                Err(Refusal::Exhausted(error)) => return Err(error),
            }
        }
        Ok(())
    }

    /// A queue is empty. Pending connections are on their way, or will never come; of those that are always as many, at
    /// every such moment of a second, it does not matter which.
    fn settle_assigned(&mut self) {
        self.pending = self.pending.min(self.worker.row().pending());
        if self.cx.now.since(self.settled) >= UNSETTLED {
            self.worker.row().settle(std::mem::replace(&mut self.pending, i64::MAX));
            self.seen = self.worker.settle_idle(&self.seen);
            self.settled = self.cx.now;
        }
    }

    /// Says when this worker has as many connections as it may have, so that the kernel chooses others.
    fn show_room(&mut self, has_room: bool) {
        if self.cx.config.max_connections > 0 && self.worker.row().is_full() == has_room {
            self.worker.row().set_full(!has_room);
            self.steer();
        }
    }

    fn admit(&mut self, connection: Connection) {
        self.accepted = self.accepted.wrapping_add(1);
        let entry = Entry { connection, serial: self.accepted, armed: Time::NEVER, is_again: false };
        let index = self.connections.insert(entry);
        self.worker.row().count_accepted();
        match self.connections[index].connection.register(self.poll.registry(), Token(index)) {
            Ok(()) => self.settle(index, Step::Wait),
            Err(error) => {
                warn!("{} dropped a connection: cannot watch it with epoll_ctl(2): {error}", self.worker.tag());
                self.close(index);
            }
        }
    }

    /// Rests from accepting until a connection ends, and tries again now and then in case somebody else has freed a
    /// descriptor. What waits in the queues is not lost, and the loop does not spin.
    fn pause(&mut self, was_paused: bool, error: &io::Error) {
        if !was_paused {
            warn!(
                "{} accepts nothing until a descriptor is free: {error}; it has {} connections, raise RLIMIT_NOFILE \
                 or set max-connections",
                self.worker.tag(),
                self.connections.len()
            );
        }
        self.accept_retry = Some(self.cx.now + ACCEPT_RETRY);
    }

    /// Takes in the connections that the application has for it.
    pub(super) fn adopt(&mut self) {
        for (stream, peer) in self.worker.take_adopted() {
            let client = Client::Tcp(TcpStream::from_std(stream));
            self.admit(Connection::new(client, Some(peer), self.cx.config, self.cx.now));
        }
    }
}
