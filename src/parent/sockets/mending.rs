//! Sockets that workers share or inherit. They are checked before they are passed on, and repaired if a worker has
//! broken one. The kernel reports a shutdown(2), and a worker reports a socket on which it cannot accept. Anything else
//! is found at the next start.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::parent::journal::Journal;
use crate::parent::subject::Subject;
use crate::shared::config::Config;
use crate::shared::listener::Reserved;
use crate::sys::epoll::Hangups;
use crate::time::Time;

/// The interval between two replacements of a slot because of its sockets. A worker that breaks them again and again
/// must not make the parent fork all the time.
const REPLACE_INTERVAL: Duration = Duration::from_secs(1);

/// Stands for the sockets that all workers share.
pub(super) const SHARED: usize = usize::MAX;

/// What has to be repaired.
#[derive(Debug)]
pub(super) struct Mending {
    hangups: Hangups,
    /// Slots whose worker must be replaced by one with new sockets.
    broken: BTreeSet<usize>,
    /// Until when they are left alone.
    rests: BTreeMap<usize, Time>,
    /// Sockets that were passed to the pool and cannot be repaired, already logged.
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

    /// Makes the kernel report a shutdown of this socket.
    pub(super) fn guard(&self, socket: BorrowedFd<'_>) {
        self.hangups.watch(socket);
    }

    /// Consumes the kernel's reports, so that it can report others.
    pub(super) fn clear_hangups(&self) {
        self.hangups.clear();
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.broken.iter().map(|slot| self.rest(*slot)).min()
    }

    fn rest(&self, slot: usize) -> Time {
        self.rests.get(&slot).copied().unwrap_or_default()
    }

    /// The sockets of a slot are broken.
    pub(super) fn note(&mut self, slot: usize) {
        self.broken.insert(slot);
    }

    /// Whether repairs there are suspended for the moment.
    pub(super) fn rests(&self, slot: usize, now: Time) -> bool {
        now < self.rest(slot)
    }

    /// A repair was made; suspends further ones for a moment.
    pub(super) fn begin_rest(&mut self, slot: usize, now: Time) {
        self.rests.insert(slot, now + REPLACE_INTERVAL);
    }

    /// The slots that are due; they count as repaired until they are noted again.
    pub(super) fn take_due(&mut self, now: Time) -> Vec<usize> {
        let (due, resting) = std::mem::take(&mut self.broken).into_iter().partition(|slot| !self.rests(*slot, now));
        self.broken = resting;
        let due: BTreeSet<usize> = due;
        due.into_iter().collect()
    }

    /// Repairs the sockets that all workers share; returns whether a socket was made anew. Running workers do not have
    /// it, so they must be replaced.
    pub(super) fn mend_shared(
        &mut self,
        reserved: &mut [Reserved],
        config: &Config,
        are_free: bool,
        journal: &mut Journal,
        now: Time,
    ) -> bool {
        let (mut lines, mut is_new) = (Vec::new(), false);
        for (index, reserved) in reserved.iter_mut().enumerate() {
            let mended = reserved.mend(config.listening.backlog, config.listening.unix_mode, are_free);
            match mended {
                Ok(None) => _ = self.hopeless.remove(&index),
                Ok(Some(flaw)) => {
                    is_new = true;
                    reserved.fd().into_iter().for_each(|socket| self.hangups.watch(socket));
                    lines.push(format!("{reserved}: {flaw}; making a new socket and replacing all workers"));
                }
                Err(error) if self.hopeless.insert(index) => {
                    lines.push(format!("cannot repair the socket of {reserved}: {error}"));
                }
                Err(_) => {}
            }
        }
        lines.into_iter().for_each(|line| journal.log(log::Level::Error, Subject::pool("broken_socket"), line));
        if is_new {
            self.begin_rest(SHARED, now);
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_breaks_again_and_again_is_mended_once_a_second() {
        let at = Time::from_millis;
        let mut mending = Mending::new().expect("an epoll instance");
        assert_eq!((mending.deadline(), mending.take_due(at(0))), (None, vec![]));
        mending.note(1);
        mending.note(2);
        assert_eq!(mending.take_due(at(5_000)), [1, 2]);
        mending.begin_rest(1, at(5_000));
        mending.note(1);
        mending.note(2);
        assert!(mending.rests(1, at(5_999)) && !mending.rests(2, at(5_000)));
        assert_eq!(mending.take_due(at(5_500)), [2]);
        assert_eq!((mending.deadline(), mending.take_due(at(5_999))), (Some(at(6_000)), vec![]));
        assert_eq!((mending.take_due(at(6_000)), mending.deadline()), (vec![1], None));
    }
}
