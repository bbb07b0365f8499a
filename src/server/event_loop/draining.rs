//! How the loop ends: the queues first, then the connections.

use std::os::fd::AsRawFd;
use std::time::Duration;

use log::{debug, warn};
use mio::unix::SourceFd;

use super::accepting::ACCEPTS;
use super::connections::Connections;
use super::handover_queue::HandoverQueue;
use super::Server;
use crate::server::answer::response::Response;
use crate::server::connection::{Connection, Step, LINGER};
use crate::server::context::{Context, DrainLimits};
use crate::server::http::Request;

/// How long a body may pause while the worker drains.
const BODY_PAUSE: Duration = Duration::from_secs(5);

impl<H> Server<'_, H>
where
    H: FnMut(&Request<'_>) -> Response,
{
    /// Begins to finish: accepts the connections that wait in the queues, and at most about as many that come
    /// meanwhile, then drops the listeners. If other processes take over its connections, they get each of them between
    /// two requests. Otherwise each response is the last of its connection from now on, and idle connections are closed
    /// one after the other, within a second, so that their clients do not all reconnect at once, and those that are
    /// about to send a request still can. A head that has begun has as long.
    pub(super) fn drain(&mut self) {
        if self.connections.cx.is_draining() {
            return;
        }
        debug!("{} drains {} connections", self.connections.cx.station.tag, self.connections.table.len());
        self.obey();
        let passes_on = self.passing.begin(self.connections.cx.clock.now);
        let limits = DrainLimits { passes_on, ..self.connections.cx.drain_limits() };
        self.connections.cx.drain = Some(limits);
        for key in 0..self.acceptors.end() {
            let Some(acceptor) = self.acceptors.get_mut(key) else { continue };
            // From a neighbour's queue only if no other worker does, or if the kernel has woken this one for it: with
            // EPOLLEXCLUSIVE nobody else was, so what waits there would wait for the next connection.
            let is_served = |slot| self.connections.cx.station.is_served(slot);
            if acceptor.has_waiting || acceptor.neighbour.is_none_or(|neighbour| !is_served(neighbour.slot)) {
                acceptor.has_waiting = true;
                // Clients may connect so fast that the queue is never empty.
                let waiting = acceptor.waiting();
                // As far as descriptors allow. These may be more than the worker's limit, since no other worker will
                // serve them in a pool that stops.
                if let Err(error) = self.take_in(key, waiting.saturating_mul(2).saturating_add(ACCEPTS)) {
                    warn!("{} leaves connections behind in a queue: {error}", self.connections.cx.station.tag);
                }
            }
        }
        self.acceptors.drop_all(&self.connections.poll);
        self.admission.resume(self.connections.table.closed());
        let descriptor = self.lifeline.as_raw_fd();
        // At worst it wakes the loop once more.
        let _ = self.connections.poll.registry().deregister(&mut SourceFd(&descriptor));
        if self.passing.leads_to(self.connections.cx.station.id) {
            self.taking.stop(&self.connections.poll);
        }
        self.taking.notice();
        match passes_on {
            true => self.passing.line_up_all(&mut self.connections, limits.head),
            false => self.connections.spread_idle(limits.head, |_| true),
        }
        let Connections { notices, table, upgrades, cx, .. } = &mut self.connections;
        notices.begin(table, upgrades.take_drains(), cx.station.drain_timeout, cx.clock.now);
    }
}

impl Context<'_> {
    /// How long a drain waits for clients.
    fn drain_limits(&self) -> DrainLimits {
        let of = |most: Duration| match self.station.drain_timeout {
            Duration::ZERO => most,
            timeout => most.min(timeout / 2),
        };
        DrainLimits {
            head: of(self.station.config.timeouts.drain_spread),
            body: of(BODY_PAUSE),
            linger: self.clock.now + of(LINGER),
            passes_on: false,
        }
    }
}

impl<H> Connections<'_, H>
where
    H: FnMut(&Request<'_>) -> Response,
{
    /// A connection has come while the worker drains.
    pub(super) fn drain_new(&mut self, index: usize, passing: &mut HandoverQueue) {
        if self.cx.passes_on() && passing.gate.covers(&self.table.entries[index].connection.transport) {
            passing.line_up(index, self);
            return;
        }
        let entry = &mut self.table.entries[index];
        entry.connection.stay();
        let is_idle = entry.connection.begin_to_drain(&self.cx);
        if let Some(limits) = self.cx.drain.filter(|_| is_idle) {
            entry.connection.timer.end_by(self.cx.clock.running + limits.head);
        }
        self.settle(index, Step::Wait);
    }

    /// An incomplete head does not delay the drain, nor does a connection that becomes idle later. Idle connections are
    /// closed one after the other. All this if they are among those that are chosen.
    pub(super) fn spread_idle(&mut self, window: Duration, is_chosen: impl Fn(&Connection) -> bool) {
        let mut idle = Vec::new();
        for index in 0..self.table.entries.capacity() {
            let entry = self.table.entries.get_mut(index).filter(|entry| is_chosen(&entry.connection));
            let Some(entry) = entry else { continue };
            if entry.connection.begin_to_drain(&self.cx) {
                idle.push(index);
            }
            self.settle(index, Step::Wait);
        }
        // Those that have been idle longest first, since they are least likely to have a request on its way.
        idle.sort_by_key(|index| self.table.entries[*index].connection.timer.deadline);
        let count = u32::try_from(idle.len()).unwrap_or(u32::MAX);
        for (turn, index) in (1..).zip(idle) {
            self.table.entries[index].connection.timer.end_by(self.cx.clock.running + window * turn / count);
            self.settle(index, Step::Wait);
        }
    }
}
