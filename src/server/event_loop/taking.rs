//! Takes over connections that other processes pass to this slot. [`crate::shared::handover`] has the protocol.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use log::debug;
use mio::unix::SourceFd;
use mio::{Interest, Poll, Token};

use super::Server;
use crate::server::answer::response::Response;
use crate::server::client::Client;
use crate::server::connection::{self, Connection};
use crate::server::context::Context;
use crate::server::http::Request;
use crate::shared::handover::record::RECORD_MAX;
use crate::shared::handover::{Admitted, Receiver, Record, Taken, RECORDS};
use crate::time::Time;

/// When to try again if no descriptor was free, or there was no room for a connection.
const RETRY_DELAY: Duration = Duration::from_millis(50);

/// How long connections may wait in the queue for room. Their clients see nothing of it, and may send requests.
const FULL_MAX: Duration = Duration::from_secs(1);

/// The maximum number of connections beyond the limit whose clients have sent a request, and get a last response.
const EXCESS: usize = 512;

/// The queues from which connections are taken over.
#[derive(Debug)]
pub(super) struct Taking {
    /// That of this slot.
    own: Option<Receiver>,
    /// Those of slots that are no more. Nothing is added to them.
    rests: Vec<Receiver>,
    /// Whether there may be something in the own queue.
    has_more: bool,
    /// When to look again.
    retry: Option<Time>,
    /// Since when there has been no room.
    full_since: Option<Time>,
    bytes: Vec<u8>,
}

impl Taking {
    pub(super) fn new(own: Option<Receiver>) -> Taking {
        // What a process before this one has left there brings no event of its own.
        let has_more = own.is_some();
        Taking { own, rests: Vec::new(), has_more, retry: None, full_since: None, bytes: Vec::new() }
    }

    pub(super) fn register(&self, poll: &Poll, token: Token) -> std::io::Result<()> {
        let Some(own) = &self.own else { return Ok(()) };
        poll.registry().register(&mut SourceFd(&own.as_fd().as_raw_fd()), token, Interest::READABLE)
    }

    /// Something may have come.
    pub(super) fn notice(&mut self) {
        self.has_more = self.own.is_some();
    }

    /// Takes over the rest of a queue as well.
    pub(super) fn add_rest(&mut self, from: Receiver) {
        self.rests.push(from);
    }

    /// Leaves the own queue to the next process of the slot.
    pub(super) fn stop(&mut self, poll: &Poll) {
        if let Some(own) = self.own.take() {
            // At worst it wakes the loop once more.
            let _ = poll.registry().deregister(&mut SourceFd(&own.as_fd().as_raw_fd()));
        }
        self.has_more = false;
    }

    /// When to take the next.
    pub(super) fn due(&self) -> Option<Time> {
        (!self.is_empty()).then(|| self.retry.unwrap_or_default())
    }

    /// Whether there is nothing to take over.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        !self.has_more && self.rests.is_empty()
    }

    /// Whether to take the next connection, which evicts none: there is room, or there has been none for long.
    fn may_take(&mut self, has_room: bool, now: Time) -> bool {
        if has_room {
            self.full_since = None;
            return true;
        }
        let since = *self.full_since.get_or_insert(now);
        now.since(since) >= FULL_MAX
    }

    /// Takes the next record out of a queue; `None` if there is none, or no descriptor is free.
    fn next(&mut self, now: Time) -> Option<Option<(usize, OwnedFd)>> {
        self.bytes.resize(RECORD_MAX, 0);
        loop {
            let (receiver, is_own) = match (&self.own, self.rests.last()) {
                (Some(own), _) if self.has_more => (own, true),
                (_, Some(rest)) => (rest, false),
                _ => return None,
            };
            match receiver.take(&mut self.bytes) {
                Taken::Record(len, socket) => return Some(Some((len, socket))),
                Taken::Junk => return Some(None),
                Taken::NoRoom => {
                    self.retry = Some(now + RETRY_DELAY);
                    return None;
                }
                Taken::Nothing | Taken::End if is_own => self.has_more = false,
                Taken::Nothing | Taken::End => _ = self.rests.pop(),
            }
        }
    }
}

impl<H> Server<'_, H>
where
    H: FnMut(&Request<'_>) -> Response,
{
    /// Takes over connections, as many as a turn allows and as there is room for.
    pub(super) fn take_over(&mut self) {
        let now = self.connections.cx.clock.now;
        if self.taking.due().is_none_or(|due| due > now) {
            return;
        }
        self.taking.retry = None;
        for _ in 0..RECORDS {
            let is_tight = self.connections.descriptors.is_tight(self.connections.count())
                && self.connections.descriptors.is_short();
            let has_room = self.has_room(0) && !is_tight || self.connections.cx.is_draining();
            if !self.taking.may_take(has_room, now) {
                self.taking.retry = Some(now + RETRY_DELAY);
                break;
            }
            match self.taking.next(now) {
                None => break,
                Some(None) => self.connections.cx.discard("a malformed record"),
                Some(Some((len, socket))) => self.take_one_over(len, socket),
            }
        }
        if self.taking.due().is_none() {
            // The buffer is only needed now and then.
            self.taking.bytes = Vec::new();
        }
    }

    fn take_one_over(&mut self, len: usize, socket: OwnedFd) {
        let bytes = std::mem::take(&mut self.taking.bytes);
        match Record::decode(&bytes[..len]) {
            Some(record) => self.serve_taken(&record, socket),
            None => self.connections.cx.discard("a malformed record, or of another version"),
        }
        self.taking.bytes = bytes;
    }

    fn serve_taken(&mut self, record: &Record<'_>, socket: OwnedFd) {
        let (client, peer) = match self.passing.gate.admit(socket) {
            Ok(Admitted::Tcp(socket, peer)) => (Client::Taken { socket, is_unix: false }, Some(peer)),
            Ok(Admitted::Unix(socket)) => (Client::Taken { socket, is_unix: true }, None),
            Err(what) => return self.connections.cx.discard(what),
        };
        if !self.connections.cx.station.config.admits(peer) {
            return connection::refuse(peer, "it is none of the trusted proxies", &mut self.connections.cx);
        }
        let descriptor = client.as_fd().as_raw_fd();
        self.connections.descriptors.took(descriptor, self.connections.count());
        let cx = &self.connections.cx;
        let Some(mut connection) = Connection::taken(client, peer, record, cx.station.config, cx.clock.running) else {
            return cx.discard("a connection with a PROXY header, which this pool does not expect");
        };
        // A client that has sent a request gets a response, although there is no room for its connection.
        if self.taking.full_since.is_some() && !(connection.end_after_next() && self.has_room(EXCESS)) {
            // Its client can connect again, to a worker that has room.
            return debug!("{} closes an idle connection that was passed to it: it has no room", cx.station.tag);
        }
        cx.stats.row.count_taken();
        self.connections.admit(connection, &mut self.passing);
        self.admission.wake();
    }
}

impl Context<'_> {
    fn discard(&self, what: &str) {
        self.stats.row.count_discarded();
        debug!("{} drops what another process has passed to it: {what}", self.station.tag);
    }
}
