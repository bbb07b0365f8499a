//! A step of a connection, and its consequences.

use std::panic::{self, AssertUnwindSafe};

use log::{error, warn};
use mio::event::Event;

use super::connections::Connections;
use super::handover_queue::HandoverQueue;
use super::table::Entry;
use crate::server::answer::response::Response;
use crate::server::connection::{Connection, Step};
use crate::server::deadlines::Alarm;
use crate::server::http::Request;
use crate::server::mailbox::Place;
use crate::shared::log_text::panic_message;
use crate::time::Time;

impl<H> Connections<'_, H>
where
    H: FnMut(&Request<'_>) -> Response,
{
    /// Takes a step with a connection, for which an event may have come.
    #[inline]
    pub(super) fn step(&mut self, index: usize, event: Option<&Event>) {
        let Some(entry) = self.table.entries.get_mut(index) else { return };
        if let Some(event) = event {
            entry.connection.transport.notice(event);
        }
        self.cx.waker.place = Place { index, serial: entry.serial };
        let step = entry.connection.advance(&mut self.cx, &mut self.handler);
        // For nearly all steps there is nothing to do.
        if step != Step::Wait || entry.may_hold() || entry.connection.timer.deadline < entry.armed {
            self.take_consequences(index, step);
        }
    }

    pub(super) fn take_consequences(&mut self, index: usize, step: Step) {
        match self.table.entries.get(index).is_some_and(Entry::may_hold) {
            true => self.account(index, step),
            false => self.settle(index, step),
        }
    }

    pub(super) fn settle(&mut self, index: usize, step: Step) {
        match step {
            Step::Close => return self.close(index),
            Step::Upgrade => return self.upgrade(index),
            Step::Again => {
                // An event may have arrived for a connection that has its turn already.
                if let Some(entry) =
                    self.table.entries.get_mut(index).filter(|entry| !entry.connection.transport.is_again)
                {
                    entry.connection.transport.is_again = true;
                    self.ready.push(index);
                }
                debug_assert!(self.ready.len() <= self.table.len(), "a connection has one turn at a time");
            }
            Step::Wait => {}
        }
        let Some(entry) = self.table.entries.get_mut(index) else { return };
        let due = entry.connection.waiting().due(&self.cx);
        if due < entry.armed {
            entry.armed = due;
            self.deadlines.push(Alarm { due: entry.armed, index });
        }
    }

    pub(super) fn close(&mut self, index: usize) {
        // Its response must not go to the next connection.
        self.cx.output.clear();
        let mut connection = self.remove(index);
        connection.end(&mut self.cx);
        if connection.transport.is_taken() {
            // The process that has passed it on may have a copy.
            connection.transport.deregister(self.poll.registry());
        }
        drop(connection);
        self.table.count_closed(self.cx.stats.row);
    }

    pub(super) fn remove(&mut self, index: usize) -> Connection {
        let entry = self.table.entries.remove(index);
        self.cx.memory.forget(index);
        if entry.accounted > 0 {
            self.cx.memory.budget.change(entry.accounted as usize, 0, self.cx.clock.now);
            self.cx.stats.row.set_held(self.cx.memory.budget.held());
        }
        if entry.connection.transport.is_again {
            self.ready.retain(|again| *again != index);
        }
        entry.connection
    }

    /// Passes a connection to the application.
    fn upgrade(&mut self, index: usize) {
        let connection = self.remove(index);
        // Whatever happens to it, it is returned at the end.
        let guard = self.upgrades.begin(&self.cx.waker.mailbox, self.cx.is_draining());
        match connection.into_upgraded(self.poll.registry(), guard) {
            Ok((upgrade, upgraded)) => {
                let (protocol, take_over) = (upgrade.protocol, upgrade.take_over);
                if let Err(panic) = panic::catch_unwind(AssertUnwindSafe(|| take_over(upgraded))) {
                    self.cx.stats.row.count_panic();
                    error!("{} panicked in an upgrade to {protocol}: {}", self.cx.station.tag, panic_message(&*panic));
                }
            }
            Err(error) => warn!("{} dropped a connection: cannot hand it over: {error}", self.cx.station.tag),
        }
    }

    /// Ends the connections that have reached their deadlines, and writes log lines that have waited long enough.
    pub(super) fn expire(&mut self, passing: &mut HandoverQueue) {
        if let Some(log) = &mut self.cx.logs.access {
            log.expire(self.cx.clock.now);
        }
        while let Some(alarm) = self.deadlines.pop_due(self.cx.clock.running) {
            let Some(entry) = self.table.entries.get_mut(alarm.index) else { continue };
            if entry.armed != alarm.due {
                continue;
            }
            entry.armed = Time::NEVER;
            let serial = entry.serial;
            let is_due = entry.connection.timer.deadline <= self.cx.clock.running;
            if is_due && self.cx.passes_on() && passing.line_up(alarm.index, self) {
                continue;
            }
            if is_due {
                // Bytes that arrived in time count, even if their event was not handled yet.
                self.look(alarm.index);
            }
            let Some(entry) = self.table.get_mut(Place { index: alarm.index, serial }) else {
                continue;
            };
            self.cx.waker.place = Place { index: alarm.index, serial };
            entry.connection.look_at_queue(&mut self.cx);
            let is_over = is_due
                && entry.connection.timer.deadline <= self.cx.clock.running
                && !entry.connection.transport.is_again;
            let step = match is_over {
                true => entry.connection.expire(&mut self.cx),
                false if entry.connection.waiting().is_lost(&mut self.cx) => {
                    entry.connection.waiting().reset();
                    Step::Close
                }
                false => Step::Wait,
            };
            self.account(alarm.index, step);
        }
    }

    /// Takes a step with a connection as if an event had arrived.
    pub(super) fn look(&mut self, index: usize) {
        if let Some(entry) = self.table.entries.get_mut(index) {
            entry.connection.transport.look();
            self.step(index, None);
        }
    }
}
