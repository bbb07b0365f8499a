//! Passes connections on to other processes, between two of their requests: all of them when this worker leaves, or some
//! so that others have as many. [`crate::shared::handover`] has the protocol.

use std::time::Duration;

use log::{debug, warn};

use super::connections::Connections;
use super::handover_queue::{Candidate, Outlets, PATIENCE};
use crate::server::answer::response::Response;
use crate::server::connection::{Connection, Step};
use crate::server::context::Patience;
use crate::server::http::Request;
use crate::server::mailbox::Place;
use crate::shared::handover::plan::Part;
use crate::shared::handover::{Sender, Sent};

/// The maximum number of connections to pass on in a turn.
const BATCH: usize = 128;

/// When to try again if all queues are full.
const RETRY: Duration = Duration::from_millis(2);

/// A connection with a request in this time is a busy one. The parent has looked at the workers for at least as long.
const LATELY: Duration = Duration::from_secs(8);

impl<H> Connections<'_, H>
where
    H: FnMut(&Request<'_>) -> Response,
{
    /// The worker leaves, and others take over its connections: all that wait for a request are passed on at once, and
    /// the others when they have been answered. Those that nobody can take over are closed one after the other.
    pub(super) fn line_up_all(&mut self, window: Duration) {
        for index in 0..self.table.entries.capacity() {
            let Some(entry) = self.table.entries.get_mut(index) else { continue };
            if !self.passing.gate.covers(&entry.connection.transport) {
                entry.connection.stay();
                continue;
            }
            match entry.connection.waiting().record(Duration::ZERO) {
                Some(_) => {
                    let place = Place { index, serial: entry.serial };
                    let deadline = entry.connection.timer.deadline;
                    self.passing.queue.push_back(Candidate { place, deadline });
                }
                None => {
                    entry.connection.begin_to_drain(&self.cx);
                    self.settle(index, Step::Wait);
                }
            }
        }
        self.spread_idle(window, |connection| connection.waiting().stays());
    }

    /// A connection has reached its deadline. If it waits for its client, that only means that it can be passed on, and
    /// it is lined up. Returns whether it is not to be closed.
    pub(super) fn line_up(&mut self, index: usize) -> bool {
        let end = self.passing.progress + self.patience();
        let Some(entry) = self.table.entries.get_mut(index) else { return false };
        let waiting = entry.connection.waiting();
        if waiting.record(Duration::ZERO).is_some() {
            entry.connection.timer.restart(&self.cx.config.timeouts, self.cx.clock.running);
            let place = Place { index, serial: entry.serial };
            self.passing.queue.push_back(Candidate { place, deadline: entry.connection.timer.deadline });
            self.settle(index, Step::Wait);
            return true;
        }
        if !waiting.is_between_requests() || end <= self.cx.clock.running {
            return false;
        }
        entry.connection.timer.deadline = end;
        self.settle(index, Step::Wait);
        true
    }

    /// Passes connections on, as many as a turn allows.
    pub(super) fn pass_on(&mut self) {
        if self.passing.due().is_none_or(|due| due > self.cx.clock.now) {
            return;
        }
        self.passing.retry = None;
        match self.cx.passes_on() {
            true => self.pass_queue_on(),
            false => self.pass_some_on(),
        }
    }

    fn pass_queue_on(&mut self) {
        let mut outlets = std::mem::take(&mut self.passing.outlets);
        let mut sent = Sent::Full;
        // Each once, since some may come back.
        for _ in 0..self.passing.queue.len().min(BATCH) {
            let Some(candidate) = self.passing.queue.pop_front() else { break };
            let Some(entry) = self.table.get_mut(candidate.place) else { continue };
            if entry.connection.timer.deadline != candidate.deadline {
                // It has had a request since, and will be lined up again.
                continue;
            }
            if entry.connection.is_again {
                self.passing.queue.push_back(candidate);
                continue;
            }
            match self.pass(candidate.place.index, &mut outlets) {
                Some(Sent::Done) => {
                    sent = Sent::Done;
                    self.passing.progress = self.cx.clock.now;
                }
                Some(other) => {
                    self.passing.queue.push_front(candidate);
                    if sent != Sent::Done {
                        sent = other;
                    }
                    self.passing.retry = Some(self.cx.clock.now + RETRY);
                    break;
                }
                None => self.hurry(candidate.place.index),
            }
        }
        self.passing.outlets = outlets;
        let is_over = self.passing.outlets.senders.is_empty();
        if is_over || self.passing.retry.is_some() && sent != Sent::Done {
            self.check_patience(is_over);
        }
    }

    /// How long receivers may leave their queues full while the worker leaves.
    fn patience(&self) -> Duration {
        match self.cx.station.drain_timeout {
            Duration::ZERO => PATIENCE,
            timeout => PATIENCE.min(timeout / 2),
        }
    }

    /// Serves on, and then closes what is idle, if no other process takes the connections.
    fn check_patience(&mut self, is_over: bool) {
        let Some(patience) = self.cx.drain else { return };
        if !is_over && self.cx.clock.now < self.passing.progress + self.patience() {
            return;
        }
        let (tag, left) = (&self.cx.station.tag, self.passing.queue.len());
        let why = if is_over { "nobody is left to take them" } else { "nobody takes them" };
        warn!("{tag} cannot pass {left} connections on, and closes them when they are idle: {why}");
        self.cx.drain = Some(Patience { passes_on: false, ..patience });
        self.passing.queue.clear();
        self.spread_idle(patience.head, |_| true);
    }

    /// Begins to pass some connections on while the worker serves.
    pub(super) fn begin_to_move(&mut self, slot: usize, part: Part, to: Sender) {
        if self.cx.is_draining() {
            return;
        }
        let (left, is_of_busy) = match part {
            Part::Any(count) => (count as usize, false),
            Part::Busy(thousandths) => {
                let busy = self.table.entries.iter().filter(|(_, entry)| self.is_busy(&entry.connection)).count();
                (busy.saturating_mul(thousandths as usize) / 1_000, true)
            }
        };
        self.passing.add_move(slot, left, is_of_busy, to, self.cx.clock.now);
    }

    /// Whether a connection has had a request lately.
    fn is_busy(&self, connection: &Connection) -> bool {
        let waiting = connection.waiting();
        !waiting.is_idle() || waiting.waited(self.cx.config, self.cx.clock.running) < LATELY
    }

    /// Passes idle connections on as the orders say.
    fn pass_some_on(&mut self) {
        let Some(mut order) = self.passing.moves.pop_front() else { return };
        let capacity = self.table.entries.capacity();
        let mut count = 0;
        while order.left > 0 && order.index < capacity && count < BATCH {
            let entry = self.table.entries.get(order.index);
            let is_idle = entry.is_some_and(|entry| {
                !entry.connection.is_again
                    && entry.connection.waiting().is_idle()
                    && (!order.is_of_busy || self.is_busy(&entry.connection))
                    && self.passing.gate.covers(&entry.connection.transport)
            });
            let sent = if is_idle { self.pass(order.index, &mut order.outlets) } else { None };
            match sent {
                Some(Sent::Done) => {
                    count += 1;
                    order.left -= 1;
                }
                Some(Sent::Full) if self.cx.clock.now < order.until => {
                    self.passing.retry = Some(self.cx.clock.now + RETRY);
                    return self.passing.moves.push_front(order);
                }
                Some(Sent::Full | Sent::Never) => order.left = 0,
                None => {}
            }
            order.index += 1;
        }
        if order.left > 0 && order.index < capacity {
            order.until = self.cx.clock.now + PATIENCE;
            self.passing.moves.push_front(order);
        } else {
            debug!("{} has passed idle connections on; {} fewer than it was asked to", self.cx.station.tag, order.left);
        }
    }

    /// Passes a connection on. `None` if it cannot be passed on now.
    fn pass(&mut self, index: usize, outlets: &mut Outlets) -> Option<Sent> {
        let entry = self.table.entries.get(index)?;
        let waiting = entry.connection.waiting();
        let record = waiting.record(waiting.waited(self.cx.config, self.cx.clock.running))?;
        // The shared buffer is empty between two steps.
        let mut bytes = std::mem::take(&mut self.cx.output);
        let is_small = record.encode(&mut bytes);
        let station = &self.cx.station;
        let is_full = |slot| station.is_full(slot);
        let sent = is_small.then(|| outlets.send(&bytes, waiting.socket(), is_full));
        bytes.clear();
        self.cx.output = bytes;
        if sent == Some(Sent::Done) {
            self.leave(index);
        }
        sent
    }

    /// Another process has the connection.
    fn leave(&mut self, index: usize) {
        let mut connection = self.remove(index);
        connection.transport.deregister(self.poll.registry());
        connection.end(&mut self.cx);
        self.cx.stats.row.count_handed();
        self.forget();
    }

    /// A connection that cannot be passed on ends soon.
    fn hurry(&mut self, index: usize) {
        let Some(patience) = self.cx.drain else { return };
        if let Some(entry) = self.table.entries.get_mut(index) {
            entry.connection.timer.end_by(self.cx.clock.running + patience.head);
            self.settle(index, Step::Wait);
        }
    }
}
