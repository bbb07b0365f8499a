//! Passes connections on to other processes, between two of their requests: all of them when this worker leaves, or
//! some so that others have as many. [`crate::shared::handover`] has the protocol.

use std::time::Duration;

use log::{debug, warn};

use super::connections::Connections;
use super::handover_queue::{Candidate, Destinations, HandoverQueue, Move, FULL_MAX};
use crate::server::answer::response::Response;
use crate::server::connection::{Connection, Step};
use crate::server::context::{Context, DrainLimits};
use crate::server::http::Request;
use crate::server::mailbox::Place;
use crate::shared::handover::plan::Selection;
use crate::shared::handover::{Sender, Sent};

/// The maximum number of connections to pass on in a turn.
const BATCH: usize = 128;

/// When to try again if all queues are full.
const RETRY_INTERVAL: Duration = Duration::from_millis(2);

/// A connection with a request in this time is a busy one. The parent has looked at the workers for at least as long.
const RECENT: Duration = Duration::from_secs(8);

impl HandoverQueue {
    /// The worker leaves, and others take over its connections: all that wait for a request are passed on at once, and
    /// the others when they have been answered. Those that nobody can take over are closed one after the other.
    pub(super) fn line_up_all(
        &mut self,
        connections: &mut Connections<'_, impl FnMut(&Request<'_>) -> Response>,
        window: Duration,
    ) {
        for index in 0..connections.table.entries.capacity() {
            let Some(entry) = connections.table.entries.get_mut(index) else { continue };
            if !self.gate.covers(&entry.connection.transport) {
                entry.connection.stay();
                continue;
            }
            match entry.connection.waiting().record(Duration::ZERO) {
                Some(_) => {
                    let place = Place { index, serial: entry.serial };
                    let deadline = entry.connection.timer.deadline;
                    self.queue.push_back(Candidate { place, deadline });
                }
                None => {
                    entry.connection.begin_to_drain(&connections.cx);
                    connections.settle(index, Step::Wait);
                }
            }
        }
        connections.spread_idle(window, |connection| connection.waiting().stays());
    }

    /// A connection has reached its deadline. If it waits for its client, that only means that it can be passed on, and
    /// it is lined up. Returns whether it is not to be closed.
    pub(super) fn line_up(
        &mut self,
        index: usize,
        connections: &mut Connections<'_, impl FnMut(&Request<'_>) -> Response>,
    ) -> bool {
        let end = self.gives_up_at(connections.cx.station.drain_timeout);
        let Some(entry) = connections.table.entries.get_mut(index) else { return false };
        let waiting = entry.connection.waiting();
        if waiting.record(Duration::ZERO).is_some() {
            entry.connection.timer.restart(&connections.cx.station.config.timeouts, connections.cx.clock.running);
            let place = Place { index, serial: entry.serial };
            self.queue.push_back(Candidate { place, deadline: entry.connection.timer.deadline });
            connections.settle(index, Step::Wait);
            return true;
        }
        if !waiting.is_between_requests() || end <= connections.cx.clock.running {
            return false;
        }
        entry.connection.timer.deadline = end;
        connections.settle(index, Step::Wait);
        true
    }

    /// Passes connections on, as many as a turn allows.
    pub(super) fn pass_on(&mut self, connections: &mut Connections<'_, impl FnMut(&Request<'_>) -> Response>) {
        if self.due().is_none_or(|due| due > connections.cx.clock.now) {
            return;
        }
        self.retry = None;
        match connections.cx.passes_on() {
            true => self.pass_queue_on(connections),
            false => self.pass_some_on(connections),
        }
    }

    fn pass_queue_on(&mut self, connections: &mut Connections<'_, impl FnMut(&Request<'_>) -> Response>) {
        let mut destinations = std::mem::take(&mut self.destinations);
        let mut sent = Sent::Full;
        // Each once, since some may come back.
        for _ in 0..self.queue.len().min(BATCH) {
            let Some(candidate) = self.queue.pop_front() else { break };
            let Some(entry) = connections.table.get_mut(candidate.place) else { continue };
            if entry.connection.timer.deadline != candidate.deadline {
                // It has had a request since, and will be lined up again.
                continue;
            }
            if entry.connection.transport.is_again {
                self.queue.push_back(candidate);
                continue;
            }
            match connections.pass(candidate.place.index, &mut destinations) {
                Some(Sent::Done) => {
                    sent = Sent::Done;
                    self.progress = connections.cx.clock.now;
                }
                Some(other) => {
                    self.queue.push_front(candidate);
                    if sent != Sent::Done {
                        sent = other;
                    }
                    self.retry = Some(connections.cx.clock.now + RETRY_INTERVAL);
                    break;
                }
                None => connections.hurry(candidate.place.index),
            }
        }
        self.destinations = destinations;
        let is_over = self.destinations.senders.is_empty();
        if is_over || self.retry.is_some() && sent != Sent::Done {
            self.check_progress(is_over, connections);
        }
    }

    /// Serves on, and then closes what is idle, if no other process takes the connections.
    fn check_progress(
        &mut self,
        is_over: bool,
        connections: &mut Connections<'_, impl FnMut(&Request<'_>) -> Response>,
    ) {
        let Some(limits) = connections.cx.drain else { return };
        if !is_over && connections.cx.clock.now < self.gives_up_at(connections.cx.station.drain_timeout) {
            return;
        }
        let (tag, left) = (&connections.cx.station.tag, self.queue.len());
        let why = if is_over { "nobody is left to take them" } else { "nobody takes them" };
        warn!("{tag} cannot pass {left} connections on, and closes them when they are idle: {why}");
        connections.cx.drain = Some(DrainLimits { passes_on: false, ..limits });
        self.queue.clear();
        connections.spread_idle(limits.head, |_| true);
    }

    /// Begins to pass some connections on while the worker serves.
    pub(super) fn begin_to_move<H>(
        &mut self,
        slot: usize,
        selection: Selection,
        to: Sender,
        connections: &Connections<'_, H>,
    ) {
        let cx = &connections.cx;
        if cx.is_draining() {
            return;
        }
        let (left, is_of_busy) = match selection {
            Selection::Any(count) => (count as usize, false),
            Selection::Busy(thousandths) => {
                let busy = connections.table.entries.iter().filter(|(_, entry)| is_busy(&entry.connection, cx)).count();
                (busy.saturating_mul(thousandths as usize) / 1_000, true)
            }
        };
        self.add_move(slot, left, is_of_busy, to, cx.clock.now);
    }

    /// Passes idle connections on as the orders say. While the queue of one slot is full, the next order has its turn.
    fn pass_some_on(&mut self, connections: &mut Connections<'_, impl FnMut(&Request<'_>) -> Response>) {
        let mut room = BATCH;
        for _ in 0..self.moves.len() {
            let Some(mut order) = self.moves.pop_front() else { return };
            if self.pass_for(&mut order, &mut room, connections) == Sent::Done {
                let tag = &connections.cx.station.tag;
                debug!("{tag} has passed idle connections on; {} fewer than it was asked to", order.left);
            } else {
                self.moves.push_back(order);
            }
            if room == 0 {
                return;
            }
        }
        if !self.moves.is_empty() {
            self.retry = Some(connections.cx.clock.now + RETRY_INTERVAL);
        }
    }

    /// Passes on as many as there is room for in this turn. `Done` if the order is carried out, as far as it can be.
    fn pass_for(
        &self,
        order: &mut Move,
        room: &mut usize,
        connections: &mut Connections<'_, impl FnMut(&Request<'_>) -> Response>,
    ) -> Sent {
        let capacity = connections.table.entries.capacity();
        while order.left > 0 && order.index < capacity && *room > 0 {
            let entry = connections.table.entries.get(order.index);
            let is_idle = entry.is_some_and(|entry| {
                !entry.connection.transport.is_again
                    && entry.connection.waiting().is_idle()
                    && (!order.is_of_busy || is_busy(&entry.connection, &connections.cx))
                    && self.gate.covers(&entry.connection.transport)
            });
            let sent = if is_idle { connections.pass(order.index, &mut order.destinations) } else { None };
            match sent {
                Some(Sent::Done) => {
                    *room -= 1;
                    order.left -= 1;
                    order.until = connections.cx.clock.now + FULL_MAX;
                }
                Some(Sent::Full) if connections.cx.clock.now < order.until => return Sent::Full,
                Some(Sent::Full | Sent::Never) => return Sent::Done,
                None => {}
            }
            order.index += 1;
        }
        match order.left > 0 && order.index < capacity {
            true => Sent::Full,
            false => Sent::Done,
        }
    }
}

impl<H> Connections<'_, H>
where
    H: FnMut(&Request<'_>) -> Response,
{
    /// Passes a connection on. `None` if it cannot be passed on now.
    fn pass(&mut self, index: usize, destinations: &mut Destinations) -> Option<Sent> {
        let entry = self.table.entries.get(index)?;
        let waiting = entry.connection.waiting();
        let record = waiting.record(waiting.waited(self.cx.station.config, self.cx.clock.running))?;
        // The shared buffer is empty between two steps.
        let mut bytes = std::mem::take(&mut self.cx.output);
        let is_small = record.encode(&mut bytes);
        let station = &self.cx.station;
        let is_full = |slot| station.is_full(slot);
        let sent = is_small.then(|| destinations.send(&bytes, waiting.socket(), is_full));
        bytes.clear();
        self.cx.output = bytes;
        if sent == Some(Sent::Done) {
            // Another process has the connection.
            let mut connection = self.remove(index);
            connection.transport.deregister(self.poll.registry());
            connection.end(&mut self.cx);
            self.cx.stats.row.count_handed();
            self.table.count_closed(self.cx.stats.row);
        }
        sent
    }

    /// A connection that cannot be passed on ends soon.
    fn hurry(&mut self, index: usize) {
        let Some(limits) = self.cx.drain else { return };
        if let Some(entry) = self.table.entries.get_mut(index) {
            entry.connection.timer.end_by(self.cx.clock.running + limits.head);
            self.settle(index, Step::Wait);
        }
    }
}

/// Whether a connection has had a request lately.
fn is_busy(connection: &Connection, cx: &Context<'_>) -> bool {
    let waiting = connection.waiting();
    !waiting.is_idle() || waiting.waited(cx.station.config, cx.clock.running) < RECENT
}
