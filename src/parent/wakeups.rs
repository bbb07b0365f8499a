//! What the parent waits for, and for how long.
//!
//! It owns the poll, the signals, and the time at which the parent meant to wake up. A process that wakes up much later
//! was frozen.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use log::error;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use super::source::Source;
use crate::error::{Error, Result};
use crate::shared::request::Request;
use crate::shared::signals::ParentSignals;
use crate::sys::clock;
use crate::time::{frozen, Time};

/// The poll and the signals.
#[derive(Debug)]
pub(super) struct Wakeups {
    poll: Poll,
    signals: ParentSignals,
    /// When the parent means to look at the clock again.
    next_look: Time,
}

impl Wakeups {
    pub(super) fn new(signals: ParentSignals) -> Result<Wakeups> {
        let poll = Poll::new().map_err(|source| Error::system("wait for events with epoll_create(2)", source))?;
        let wakeups = Wakeups { poll, signals, next_look: Time::NEVER };
        wakeups.listen_to(wakeups.signals.readiness(), Source::Signals)?;
        Ok(wakeups)
    }

    /// Waits until this time, or for something to become readable; `None` if a signal interrupted the wait.
    pub(super) fn wait(&mut self, until: Option<Time>, events: &mut Events) -> Result<Option<Vec<Source>>> {
        let now = clock::now();
        let wait: Option<Duration> = until.map(|at| at.since(now));
        self.next_look = wait.map_or(Time::NEVER, |wait| now + wait);
        match self.poll.poll(events, wait) {
            Ok(()) => Ok(Some(events.iter().filter_map(|event| Source::decode(event.token().0)).collect())),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
            Err(source) => Err(Error::system("wait for events with epoll_wait(2)", source)),
        }
    }

    /// How long the whole pool was frozen until now. The steps after this take no significant time.
    pub(super) fn frozen(&mut self, now: Time) -> Duration {
        let span = frozen(self.next_look, now);
        self.next_look = now;
        span
    }

    /// The requests of signals since the last call.
    pub(super) fn requests(&mut self) -> Vec<Request> {
        self.signals.pending()
    }

    pub(super) fn poll(&self) -> &Poll {
        &self.poll
    }

    pub(super) fn listen_to(&self, from: &impl AsRawFd, source: Source) -> Result<()> {
        let (descriptor, token) = (from.as_raw_fd(), Token(source.encode()));
        let registered = self.poll.registry().register(&mut SourceFd(&descriptor), token, Interest::READABLE);
        registered.map_err(|source| Error::system("watch a descriptor with epoll_ctl(2)", source))
    }

    /// Makes the poll report again that there is something to read, which it otherwise reports once for everything that
    /// has arrived.
    pub(super) fn listen_again(&self, descriptor: RawFd, source: Source) {
        let (mut from, token) = (SourceFd(&descriptor), Token(source.encode()));
        if let Err(error) = self.poll.registry().reregister(&mut from, token, Interest::READABLE) {
            error!("cannot resume reading with epoll_ctl(2): {error}");
        }
    }

    pub(super) fn forget(&self, from: &impl AsRawFd) {
        // A descriptor that is not registered needs no removal.
        let _ = self.poll.registry().deregister(&mut SourceFd(&from.as_raw_fd()));
    }
}
