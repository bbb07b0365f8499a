//! The sockets that workers share or inherit: looked at before they are handed on, and mended when a worker has broken
//! one. The kernel tells of a shutdown(2), a worker of a socket that it cannot accept from; anything else is found at the
//! next start.

use std::collections::BTreeSet;

use super::*;
use crate::shared::channel::Made;
use crate::sys::epoll::Hangups;

/// Between two replacements of a slot for the sake of its sockets: whoever breaks them again and again shall not have
/// the parent fork all the time.
const REST: Duration = Duration::from_secs(1);

/// In place of a slot, for what all workers share.
const SHARED: usize = usize::MAX;

/// What is to be mended.
#[derive(Debug)]
pub(super) struct Mending {
    hangups: Hangups,
    /// Slots whose worker is to be replaced by one with new sockets.
    broken: BTreeSet<usize>,
    /// Until when they are left alone.
    rests: BTreeMap<usize, Time>,
    /// What was given and cannot be mended, of which the log has told.
    hopeless: BTreeSet<usize>,
}

impl Mending {
    pub(super) fn new() -> io::Result<Mending> {
        let hangups = Hangups::new()?;
        Ok(Mending { hangups, broken: BTreeSet::new(), rests: BTreeMap::new(), hopeless: BTreeSet::new() })
    }

    pub(super) fn hangups(&self) -> &Hangups {
        &self.hangups
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.broken.iter().map(|slot| self.rest(*slot)).min()
    }

    fn rest(&self, slot: usize) -> Time {
        self.rests.get(&slot).copied().unwrap_or_default()
    }
}

impl Parent {
    /// Has the kernel tell when somebody shuts down a socket that is in custody, or that all workers share.
    pub(super) fn guard_all(&mut self) {
        for slot in self.custody.slots().to_vec() {
            self.guard(slot);
        }
        for socket in self.reserved.iter().filter(|it| !matches!(it, Reserved::Tcp(_))).filter_map(Reserved::fd) {
            self.mending.hangups.watch(socket);
        }
    }

    fn guard(&self, slot: usize) {
        for socket in self.custody.sockets(slot).map(SlotSockets::all).unwrap_or_default() {
            self.mending.hangups.watch(socket);
        }
    }

    /// Takes copies of the sockets that a worker has made.
    pub(super) fn keep(&mut self, slot: usize, made: Vec<Made>) {
        let mut sockets = SlotSockets::made(made, &self.reserved);
        let flaws = sockets.drop_flawed(&self.reserved);
        self.tell_flaws(slot, &flaws);
        sockets.relieve(&self.reserved);
        self.custody.keep(slot, sockets);
        self.guard(slot);
    }

    /// Sees to it that a slot's next worker gets sockets that are whole: what is not, it makes anew. They are made as
    /// they were, unless a program may want them otherwise that has them as well.
    pub(super) fn prepare_sockets(&mut self, slot: usize) {
        let (own_are_free, shared_are_free) = (!self.may_have_program(slot), !self.may_have_program(SHARED));
        let flaws = self.custody.check(slot, &self.reserved, own_are_free.then_some(self.config.backlog));
        self.tell_flaws(slot, &flaws);
        self.mend_shared(shared_are_free);
    }

    /// Whether a program may hold a slot's sockets, which may want them to block.
    pub(super) fn may_have_program(&self, slot: usize) -> bool {
        let mut processes = self.roster.iter();
        let has_program = processes.any(|(_, it)| it.ends.program.is_some() && (slot == SHARED || it.slot == slot));
        // Another pool's workers are programs, perhaps.
        has_program || self.predecessor.is_some()
    }

    fn tell_flaws(&mut self, slot: usize, flaws: &[String]) {
        for flaw in flaws {
            let text = format!("worker={slot} has a broken socket, which its next worker makes anew: {flaw}");
            self.journal.say_rarely(log::Level::Warn, Some(slot), text);
        }
    }

    /// Somebody has shut down a socket.
    pub(super) fn look_at_sockets(&mut self) {
        self.mending.hangups.clear();
        if self.is_stopping {
            return;
        }
        for slot in self.custody.slots().to_vec() {
            let flaws = self.custody.check(slot, &self.reserved, None);
            self.tell_flaws(slot, &flaws);
            if !flaws.is_empty() {
                self.mending.broken.insert(slot);
            }
        }
        if clock::now() < self.mending.rest(SHARED) {
            self.mending.broken.insert(SHARED);
        } else {
            self.mend_shared(false);
        }
    }

    /// A worker cannot accept from a socket of its own.
    pub(super) fn hear_of_broken(&mut self, pid: Pid) {
        let Some(slot) = self.roster.slot_of(pid) else { return };
        self.look_at_sockets();
        if self.custody.sockets(slot).is_some_and(|sockets| sockets.is_complete(&self.reserved)) {
            // The fault is in the process.
            self.tell(Event::Recycle { pid, why: Recycle::Socket });
        }
    }

    /// Has the workers replaced whose sockets are broken, if it is time.
    pub(super) fn mend(&mut self) {
        let now = clock::now();
        if self.is_stopping || self.mending.deadline().is_none_or(|due| now < due) {
            return;
        }
        for slot in std::mem::take(&mut self.mending.broken) {
            if now < self.mending.rest(slot) {
                self.mending.broken.insert(slot);
            } else if slot == SHARED {
                self.mend_shared(false);
            } else {
                self.replace_broken(slot, now);
            }
        }
    }

    fn replace_broken(&mut self, slot: usize, now: Time) {
        let is_whole = self.custody.sockets(slot).is_some_and(|sockets| sockets.is_complete(&self.reserved));
        if is_whole || slot >= self.roster.supervisor.wanted() {
            return;
        }
        if let Some(pid) = self.roster.serving_by_slot().get(&slot).copied() {
            self.tell(Event::Recycle { pid, why: Recycle::Socket });
        }
        // Until it has sockets again.
        self.mending.broken.insert(slot);
        self.mending.rests.insert(slot, now + REST);
    }

    /// Mends what all workers share. Those that run do not have what is made anew, so they are replaced.
    fn mend_shared(&mut self, are_free: bool) {
        let (backlog, mode) = (self.config.backlog, self.config.unix_mode);
        let Some(reserved) = Rc::get_mut(&mut self.reserved) else { return };
        let (mut lines, mut is_new) = (Vec::new(), false);
        for (index, reserved) in reserved.iter_mut().enumerate() {
            let mended = reserved.mend(backlog, mode, are_free);
            match mended {
                Ok(None) => _ = self.mending.hopeless.remove(&index),
                Ok(Some(flaw)) => {
                    is_new = true;
                    reserved.fd().into_iter().for_each(|socket| self.mending.hangups.watch(socket));
                    lines.push(format!("{reserved}: {flaw}; it is made anew, and all workers are replaced"));
                }
                Err(error) if self.mending.hopeless.insert(index) => {
                    lines.push(format!("{reserved} cannot be served as it should be: {error}"));
                }
                Err(_) => {}
            }
        }
        lines.into_iter().for_each(|line| self.journal.say(log::Level::Error, None, line));
        if is_new {
            self.mending.rests.insert(SHARED, clock::now() + REST);
            self.tell(Event::Restart);
        }
    }
}
