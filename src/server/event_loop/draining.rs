//! How the loop comes to its end: the queues first, then the connections.

use std::collections::VecDeque;
use std::os::fd::AsRawFd;
use std::sync::Weak;
use std::time::Duration;

use log::{debug, warn};
use mio::unix::SourceFd;

use super::Server;
use crate::server::answer::notice::Notice;
use crate::server::answer::response::Response;
use crate::server::connection::Step;
use crate::server::http::Request;
use crate::server::mailbox::Place;
use crate::time::Time;

/// Over how long idle connections are closed. A pool that stops is to be gone within a second if nothing is in progress.
const SPREAD: Duration = Duration::from_millis(800);

/// How long a body may stand still while the worker drains.
const BODY_PAUSE: Duration = Duration::from_secs(5);

/// What lasts until the application ends it is told to, one after the other, so that the clients do not all come back at
/// once: so far apart, and over this long at most.
const STEP: Duration = Duration::from_millis(10);
const SPREAD_OF_LASTING: Duration = Duration::from_secs(5);

/// Whose moment in the drain comes when, the next one first.
#[derive(Debug, Default)]
pub(super) struct Moments(VecDeque<(Time, Lasting)>);

/// What lasts until the application ends it.
#[derive(Clone, Debug)]
enum Lasting {
    Answer(Place),
    /// A connection of the application's own.
    Lent(Weak<Notice>),
}

impl Moments {
    /// Gives each a moment from now on, the last of them within `window`.
    fn spread(&mut self, all: Vec<Lasting>, now: Time, window: Duration) {
        let count = u32::try_from(all.len()).unwrap_or(u32::MAX);
        let window = window.min(STEP * count);
        self.0 = (1..).zip(all).map(|(turn, lasting)| (now + window * turn / count, lasting)).collect();
    }

    pub(super) fn next(&self) -> Option<Time> {
        self.0.front().map(|(due, _)| *due)
    }

    fn pop_due(&mut self, now: Time) -> Option<Lasting> {
        if self.next()? > now {
            return None;
        }
        self.0.pop_front().map(|(_, lasting)| lasting)
    }
}

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
        self.spread_lasting();
    }

    /// Gives all that may last a moment at which the application is told to end it.
    fn spread_lasting(&mut self) {
        let window = match self.station.drain_timeout {
            Duration::ZERO => SPREAD_OF_LASTING,
            timeout => SPREAD_OF_LASTING.min(timeout / 4),
        };
        let told = self.connections.iter().filter(|(_, entry)| entry.connection.is_told());
        let told = told.map(|(index, entry)| Lasting::Answer(Place { index, serial: entry.serial }));
        let lent = self.lent.take_drains().into_iter().filter(|drain| drain.strong_count() > 0).map(Lasting::Lent);
        self.moments.spread(told.chain(lent).collect(), self.cx.now, window);
    }

    /// Tells those whose moment has come.
    pub(super) fn tell(&mut self) {
        while let Some(lasting) = self.moments.pop_due(self.cx.now) {
            match lasting {
                Lasting::Answer(Place { index, serial }) => {
                    if let Some(entry) = self.connections.get(index).filter(|entry| entry.serial == serial) {
                        entry.connection.tell_drain();
                    }
                }
                Lasting::Lent(drain) => drain.upgrade().iter().for_each(|drain| drain.tell()),
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_apart_and_within_the_window() {
        let at = |millis: u64| Time::from_millis(1_000 + millis);
        let place = |index| Lasting::Answer(Place { index, serial: 0 });
        let index = |lasting| match lasting {
            Some(Lasting::Answer(place)) => Some(place.index),
            _ => None,
        };
        let (mut moments, window) = (Moments::default(), Duration::from_secs(5));
        moments.spread(Vec::new(), at(0), window);
        assert_eq!(moments.next(), None);
        moments.spread((0..2).map(place).collect(), at(0), window);
        assert_eq!(moments.next(), Some(at(10)), "few do not wait for long");
        assert_eq!([9, 10, 10, 20].map(|now| index(moments.pop_due(at(now)))), [None, Some(0), None, Some(1)]);
        assert_eq!(moments.next(), None);
        moments.spread((0..10_000).map(place).collect(), at(0), window);
        for second in 1..=5 {
            let told = std::iter::from_fn(|| moments.pop_due(at(second * 1000))).count();
            assert!((1_990..=2_010).contains(&told), "{told}");
        }
        assert_eq!(moments.next(), None);
    }
}
