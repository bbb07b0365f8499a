//! A connection that passes from one process to another, between two of its requests.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::timer::Timer;
use super::{Connection, Waiting};
use crate::server::client::{Client, Peer};
use crate::server::http::{Codec, Phase};
use crate::server::timing::Timing;
use crate::shared::config::ServerConfig;
use crate::shared::handover::Record;
use crate::time::Time;

impl<'c> Waiting<'c> {
    /// What another process must know to serve it from now on. `None` while a request is in progress, once the last
    /// response was given, and if the client has ended.
    pub(crate) fn record(self, waited: Duration) -> Option<Record<'c>> {
        let codec = &self.session.codec;
        let waits = matches!(self.timer.timing, Timing::Head | Timing::Idle) && codec.phase() != Phase::Body;
        if !waits || codec.ending.is_last() || codec.ending.stays() || self.session.exchange.is_some() {
            return None;
        }
        if self.transport.is_ending() || self.transport.is_broken() {
            return None;
        }
        let (awaits_header, source) = self.session.peer.header()?;
        let (requests, unread) = (codec.mode.requests(), self.buffers.unread()?);
        Some(Record { is_new: requests == 0, awaits_header, requests, waited, source, unread })
    }

    /// For how long it has waited.
    pub(crate) fn waited(self, config: &ServerConfig, now: Time) -> Duration {
        self.timer.begun(&config.timeouts).map_or(Duration::ZERO, |begun| now.since(begun))
    }

    pub(crate) fn socket(self) -> BorrowedFd<'c> {
        self.transport.as_fd()
    }

    /// Whether no other process can serve it.
    pub(crate) fn stays(self) -> bool {
        self.session.codec.ending.stays()
    }

    /// Whether it waits for a request, or for the rest of a head.
    pub(crate) fn is_between_requests(self) -> bool {
        matches!(self.timer.timing, Timing::Head | Timing::Idle)
    }
}

impl Connection {
    /// A connection that another process has served, and what that says about it. `None` if it begins with a header of
    /// the PROXY protocol, and this pool expects none.
    pub(crate) fn taken(
        client: Client,
        peer: Option<SocketAddr>,
        record: &Record<'_>,
        config: &ServerConfig,
        now: Time,
    ) -> Option<Connection> {
        let mut peer = match (config.begins_with_header(peer), record.awaits_header) {
            (true, false) => Peer::after_header(peer, record.source),
            (false, true) => return None,
            _ => Peer::from(peer),
        };
        if record.awaits_header {
            peer.await_header();
        }
        let mut connection = Connection::new(client, peer, config, now);
        connection.session.codec = Codec::after(record.requests);
        let is_head = record.requests == 0 || !record.unread.is_empty();
        connection.timer = Timer::resumed(is_head, record.waited, &config.timeouts, now);
        if !record.unread.is_empty() {
            connection.buffers.keep_input(record.unread);
        }
        Some(connection)
    }

    /// There is no room for it here: its next response is the last. Returns whether its client has sent something.
    pub(crate) fn end_after_next(&mut self) -> bool {
        self.session.codec.mode.end_after_next();
        self.buffers.is_some() || self.transport.client.has_bytes()
    }

    /// No other process can serve it. While the worker drains, each of its responses is the last.
    pub(crate) fn stay(&mut self) {
        self.session.codec.ending.stay();
    }
}
