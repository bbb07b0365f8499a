//! What happens when the connections of a worker reach the memory limit.

use std::time::Duration;

use super::connections::Connections;
use crate::server::answer::response::Response;
use crate::server::connection::Step;
use crate::server::http::Request;
use crate::server::mailbox::Place;

/// How long memory is kept for a body of which nothing arrives.
const SILENCE_MAX: Duration = Duration::from_secs(1);

impl<H> Connections<'_, H>
where
    H: FnMut(&Request<'_>) -> Response,
{
    /// Accounts for the memory of a connection, and concludes its step.
    pub(super) fn account(&mut self, index: usize, step: Step) {
        let Some(entry) = self.table.entries.get_mut(index) else { return };
        if let Some(file) = entry.connection.waiting().file() {
            self.descriptors.sends(file);
        }
        let held = u32::try_from(entry.connection.waiting().memory()).unwrap_or(u32::MAX);
        let before = std::mem::replace(&mut entry.accounted, held);
        self.cx.memory.budget.change(before as usize, held as usize, self.cx.clock.now);
        self.cx.stats.row.set_held(self.cx.memory.budget.held());
        // A response cannot wait elsewhere, and a client that does not read it must not make others wait.
        // The same holds for a record that is incomplete while no request is: nothing else would end it.
        let is_too_much = self.cx.memory.budget.is_over()
            && held > before
            && (entry.connection.timer.is_unsent() || entry.connection.waiting().is_between_records());
        if is_too_much && step == Step::Wait {
            entry.connection.waiting().give_way();
            let step = entry.connection.expire(&mut self.cx);
            return self.settle(index, step);
        }
        self.settle(index, step);
    }

    /// Lets connections that wait for memory go on, if there is some. If there has been none for long, makes some
    /// release theirs.
    pub(super) fn relieve(&mut self) {
        let is_turn_over = self.cx.memory.turn_due.take().is_some_and(|due| due <= self.cx.clock.now);
        let is_full_for_long = self.cx.memory.budget.due().is_some_and(|due| due <= self.cx.clock.now);
        if is_full_for_long || is_turn_over && self.cx.is_draining() {
            self.shed();
        }
        if !self.cx.memory.waiting.is_empty() || !self.cx.memory.turns.is_empty() {
            self.give_turns();
        }
    }

    /// Lets the first of those that wait go on, as many as can complete their bodies in the memory there is. If all
    /// went on at once, none would finish. A client that sends nothing loses its turn. If nobody has a turn, the first
    /// gets one with less memory than it needs.
    fn give_turns(&mut self) {
        let mut kept = 0;
        let mut turns = std::mem::take(&mut self.cx.memory.turns);
        turns.retain(|place| match self.table.room_for_turn(*place, SILENCE_MAX, &self.cx) {
            Some(room) => {
                kept = room.saturating_add(kept);
                true
            }
            None => false,
        });
        self.cx.memory.turns = turns;
        // Each once.
        for _ in 0..self.cx.memory.waiting.len() {
            let Some(place) = self.cx.memory.waiting.front().copied() else { break };
            let entry = self.table.get_mut(place);
            let waiting = entry.filter(|entry| entry.connection.timer.waits_for_room());
            let needed =
                waiting.as_ref().map_or(0, |entry| entry.connection.waiting().room_needed().saturating_add(kept));
            let fits = self.cx.memory.budget.has_room(needed) || kept == 0 && self.cx.memory.budget.fits_last(needed);
            if waiting.is_some() && !fits {
                break;
            }
            self.cx.memory.waiting.pop_front();
            if let Some(entry) = waiting {
                entry.connection.timer.resume(&self.cx);
                self.cx.memory.turns.push(place);
                self.step(place.index, None);
                kept = self.table.room_for_turn(place, SILENCE_MAX, &self.cx).unwrap_or(0).saturating_add(kept);
            }
        }
        self.cx.memory.turn_due = (!self.cx.memory.waiting.is_empty()).then(|| self.cx.clock.now + SILENCE_MAX);
    }

    /// Ends the connections that hold memory and have made the least progress: first those whose clients are slow, the
    /// slowest first; then the oldest of those that wait for memory themselves, which would otherwise wait for each
    /// other.
    fn shed(&mut self) {
        self.table.look_at_queues(&mut self.cx);
        let is_draining = self.cx.is_draining();
        // A pool that stops does not wait for all of them one after the other.
        let stall_max = if is_draining { SILENCE_MAX } else { self.cx.memory.budget.stall_max() };
        let (config, now) = (self.cx.station.config, self.cx.clock.running);
        let holding = self.table.entries.iter().filter(|(_, entry)| entry.accounted > 0);
        let mut victims: Vec<_> = holding
            .filter_map(|(index, entry)| match entry.connection.waiting().stalled_for(config, now) {
                Some(stalled) if stalled >= stall_max => Some((0, std::cmp::Reverse(stalled), entry.serial, index)),
                _ if entry.connection.timer.waits_for_room() => {
                    Some((1, std::cmp::Reverse(stall_max), entry.serial, index))
                }
                _ => None,
            })
            .collect();
        victims.sort_unstable();
        for (is_waiting, .., index) in victims {
            if self.cx.memory.budget.surplus() == 0 && (is_waiting == 1 || !is_draining) {
                break;
            }
            if let Some(entry) = self.table.entries.get_mut(index) {
                self.cx.waker.place = Place { index, serial: entry.serial };
                entry.connection.waiting().give_way();
                let step = entry.connection.expire(&mut self.cx);
                self.account(index, step);
            }
        }
        self.cx.memory.budget.shed(self.cx.clock.now);
    }
}
