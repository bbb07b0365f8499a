//! How the loop comes to its end: the queues first, then the connections.

use std::os::fd::AsRawFd;
use std::time::Duration;

use log::{debug, warn};
use mio::unix::SourceFd;

use super::Server;
use crate::server::answer::response::Response;
use crate::server::connection::Step;
use crate::server::http::Request;

/// Over how long idle connections are closed. A pool that stops is to be gone within a second if nothing is in progress.
const SPREAD: Duration = Duration::from_millis(800);

/// How long a body may stand still while the worker drains.
const BODY_PAUSE: Duration = Duration::from_secs(5);

impl<H> Server<'_, H>
where
    H: FnMut(&Request<'_>) -> Response,
{
    /// Begins to finish: takes in what waits, then lets go of the listeners; answers become last ones, and idle
    /// connections are closed one after the other, within a second, so that their clients do not all come back at once,
    /// and those that are about to send a request still can. Its answer says that it is the last. A head that has begun
    /// has as long.
    pub(super) fn drain(&mut self) {
        if self.cx.is_draining {
            return;
        }
        debug!("{} drains {} connections", self.station.tag, self.connections.len());
        self.cx.is_draining = true;
        self.obey();
        for key in 0..self.acceptors.capacity() {
            let Some(acceptor) = self.acceptors.get_mut(key) else { continue };
            // A neighbour's only where nobody else does.
            if acceptor.neighbour.is_none_or(|neighbour| !self.station.is_served(neighbour.slot)) {
                acceptor.has_waiting = true;
                self.drain_queue(key);
            }
        }
        self.let_go(|_| true);
        self.accept_retry = None;
        let descriptor = self.lifeline.as_raw_fd();
        // At worst it wakes the loop once more.
        let _ = self.poll.registry().deregister(&mut SourceFd(&descriptor));
        self.spread_idle();
    }

    /// No head that is not whole holds the drain up, nor a connection that becomes idle later on.
    fn spread_idle(&mut self) {
        let window = match self.station.drain_timeout {
            Duration::ZERO => SPREAD,
            timeout => SPREAD.min(timeout / 2),
        };
        self.cx.drain_patience = window;
        self.cx.body_patience = match self.station.drain_timeout {
            Duration::ZERO => BODY_PAUSE,
            timeout => BODY_PAUSE.min(timeout / 2),
        };
        let mut idle = Vec::new();
        for index in 0..self.connections.capacity() {
            let Some(entry) = self.connections.get_mut(index) else { continue };
            if entry.connection.begin_to_drain(&self.cx) {
                idle.push(index);
            }
            self.settle(index, Step::Wait);
        }
        // The longest idle first: the least likely to have a request on its way.
        idle.sort_by_key(|index| self.connections[*index].connection.deadline);
        let count = u32::try_from(idle.len()).unwrap_or(u32::MAX);
        for (turn, index) in (1..).zip(idle) {
            let entry = &mut self.connections[index].connection;
            entry.deadline = entry.deadline.min(self.cx.running + window * turn / count);
            self.settle(index, Step::Wait);
        }
    }

    /// Takes in all that waits in one queue, as far as descriptors allow; perhaps more connections than a worker may have,
    /// since in a pool that stops nobody else will serve them.
    fn drain_queue(&mut self, key: usize) {
        if let Err(error) = self.take_in(key, usize::MAX) {
            warn!("{} leaves connections behind in a queue: {error}", self.station.tag);
        }
    }
}
