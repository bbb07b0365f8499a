//! What the parent waits on.

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

/// The poll and the signals.
#[derive(Debug)]
pub(super) struct Wakeups {
    poll: Poll,
    signals: ParentSignals,
}

impl Wakeups {
    pub(super) fn new(signals: ParentSignals) -> Result<Wakeups> {
        let poll = Poll::new().map_err(|source| Error::system("wait for events with epoll_create(2)", source))?;
        let wakeups = Wakeups { poll, signals };
        wakeups.listen_to(wakeups.signals.readiness(), Source::Signals)?;
        Ok(wakeups)
    }

    /// Waits for so long, or for something to become readable: None when a signal came in between.
    pub(super) fn wait(&mut self, wait: Option<Duration>, events: &mut Events) -> Result<Option<Vec<Source>>> {
        match self.poll.poll(events, wait) {
            Ok(()) => Ok(Some(events.iter().filter_map(|event| Source::decode(event.token().0)).collect())),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
            Err(source) => Err(Error::system("wait for events with epoll_wait(2)", source)),
        }
    }

    /// What signals have asked for since they were looked at last.
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

    /// Has the poll tell again that there is something to read, which it says once for all that has come.
    pub(super) fn listen_again(&self, descriptor: RawFd, source: Source) {
        let (mut from, token) = (SourceFd(&descriptor), Token(source.encode()));
        if let Err(error) = self.poll.registry().reregister(&mut from, token, Interest::READABLE) {
            error!("cannot resume reading with epoll_ctl(2): {error}");
        }
    }

    pub(super) fn forget(&self, from: &impl AsRawFd) {
        // One that is not there is forgotten already.
        let _ = self.poll.registry().deregister(&mut SourceFd(&from.as_raw_fd()));
    }
}
