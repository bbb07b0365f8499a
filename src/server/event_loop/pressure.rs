//! What happens when the connections of a worker hold as much memory as they may.

use super::Server;
use crate::server::answer::response::Response;
use crate::server::connection::Step;
use crate::server::http::Request;

impl<H> Server<'_, H>
where
    H: FnMut(&Request<'_>) -> Response,
{
    /// Takes what a connection holds into account, and settles its step.
    pub(super) fn account(&mut self, index: usize, step: Step) {
        let Some(entry) = self.connections.get_mut(index) else { return };
        let held = u32::try_from(entry.connection.held()).unwrap_or(u32::MAX);
        let before = std::mem::replace(&mut entry.held, held);
        self.cx.budget.change(before as usize, held as usize, self.cx.now);
        self.cx.row.set_held(self.cx.budget.held());
        // An answer that is made cannot wait elsewhere, and whoever does not take it must not make others wait.
        let is_too_much = self.cx.budget.is_over() && held > before && entry.connection.is_unsent();
        if is_too_much && step == Step::Wait {
            let step = entry.connection.expire(&mut self.cx);
            return self.settle(index, step);
        }
        self.settle(index, step);
    }

    /// Lets those go on that wait for room, if there is some; if there has been none for long, has some give theirs up.
    pub(super) fn relieve(&mut self) {
        if self.cx.budget.due().is_some_and(|due| due <= self.cx.now) {
            self.shed();
        }
        // Each once, since those for which there is still no room come back.
        for _ in 0..self.cx.waiting.len() {
            if !self.cx.budget.has_room(0) {
                break;
            }
            let Some(place) = self.cx.waiting.pop_front() else { break };
            let entry = self.connections.get_mut(place.index).filter(|entry| entry.serial == place.serial);
            if let Some(entry) = entry.filter(|entry| entry.connection.waits_for_room()) {
                entry.connection.resume(&self.cx);
                self.advance(place.index);
            }
        }
    }

    /// Ends the connections that hold something and have got on the least: first those whose clients are slow, the
    /// slowest first; then the oldest of those that wait for room themselves, which would otherwise wait for each other.
    fn shed(&mut self) {
        let (config, now, patience) = (self.cx.config, self.cx.running, self.cx.budget.patience());
        let holding = self.connections.iter().filter(|(_, entry)| entry.held > 0);
        let mut victims: Vec<_> = holding
            .filter_map(|(index, entry)| match entry.connection.stalled_for(config, now) {
                Some(stalled) if stalled >= patience => Some((0, std::cmp::Reverse(stalled), entry.serial, index)),
                _ if entry.connection.waits_for_room() => Some((1, std::cmp::Reverse(patience), entry.serial, index)),
                _ => None,
            })
            .collect();
        victims.sort_unstable();
        for (.., index) in victims {
            if self.cx.budget.surplus() == 0 {
                break;
            }
            if let Some(entry) = self.connections.get_mut(index) {
                self.cx.place = crate::server::mailbox::Place { index, serial: entry.serial };
                let step = entry.connection.expire(&mut self.cx);
                self.account(index, step);
            }
        }
        self.cx.budget.shed(self.cx.now);
    }
}
