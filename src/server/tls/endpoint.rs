//! What the sessions of a worker share.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::server::ServerConfig;
use rustls::{AlertDescription, Error};

use super::session::{OVERHEAD, RECORD};
use crate::server::http::TlsInfo;
use crate::shared::counters::{Handshake, HANDSHAKES};
use crate::shared::tls::TlsVersion;

/// The number of records that are sealed before they are sent.
const RECORDS: usize = 4;

/// The bytes to read from a socket at once.
const READ: usize = 64 * 1024;

/// The number of steps of handshakes in each turn. One takes as long as some hundred requests.
const STEPS: u32 = 4;

/// What the sessions of a worker share: the configuration, buffers, counters.
pub(crate) struct Endpoint {
    pub(super) config: Arc<ServerConfig>,
    /// The addresses on which connections begin with a handshake.
    addresses: Vec<SocketAddr>,
    pub(super) buffers: RefCell<Buffers>,
    /// How many steps of handshakes this turn has left.
    steps: Cell<u32>,
    counts: Cell<[u64; HANDSHAKES]>,
    tag: String,
}

/// Buffers that are lent to one session at a time.
pub(super) struct Buffers {
    pub(super) received: Box<[u8]>,
    pub(super) sealed: Box<[u8]>,
    /// A part of a file.
    pub(super) plain: Box<[u8]>,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// `tag` is how the log names the worker.
    pub(crate) fn new(config: Arc<ServerConfig>, addresses: Vec<SocketAddr>, tag: String) -> Endpoint {
        let buffer = |len| vec![0; len].into_boxed_slice();
        let buffers = Buffers {
            received: buffer(READ),
            sealed: buffer(RECORDS * (RECORD + OVERHEAD)),
            plain: buffer(RECORDS * RECORD),
        };
        let (steps, counts) = (Cell::new(STEPS), Cell::default());
        Endpoint { config, addresses, buffers: RefCell::new(buffers), steps, counts, tag }
    }

    /// Whether connections to this address begin with a handshake.
    pub(crate) fn is_for(&self, address: SocketAddr) -> bool {
        self.addresses.contains(&address)
    }

    /// Another turn of the loop begins.
    pub(crate) fn begin_turn(&self) {
        self.steps.set(STEPS);
    }

    /// Whether a session may take a step of its handshake in this turn.
    pub(super) fn has_step(&self) -> bool {
        self.steps.get() > 0
    }

    pub(super) fn take_step(&self) {
        self.steps.set(self.steps.get().saturating_sub(1));
    }

    pub(crate) fn counts(&self) -> [u64; HANDSHAKES] {
        self.counts.get()
    }

    fn count(&self, way: Handshake) {
        let mut counts = self.counts.get();
        counts[way as usize] += 1;
        self.counts.set(counts);
    }

    pub(super) fn count_done(&self, info: &TlsInfo) {
        self.count(completed(info));
    }

    /// A client has gone within its handshake, or took too long for it.
    pub(super) fn count_unfinished(&self) {
        self.count(Handshake::Unfinished);
    }

    pub(super) fn count_plain(&self) {
        self.count(Handshake::Plain);
    }

    /// A session has failed.
    pub(super) fn fail(&self, error: &Error, is_handshaking: bool) {
        log::debug!("{} TLS failed: {error}", self.tag);
        if is_handshaking {
            self.count(ended_by(error));
        }
    }

    /// A client has gone without saying that it sends nothing more.
    pub(super) fn count_truncated(&self) {
        log::debug!("{} a client closed its TLS connection without close_notify", self.tag);
        self.count(Handshake::Truncated);
    }
}

/// How a handshake has ended that is complete.
pub(crate) fn completed(info: &TlsInfo) -> Handshake {
    match (info.version, info.is_resumed) {
        (TlsVersion::Tls12, false) => Handshake::Full12,
        (TlsVersion::Tls12, true) => Handshake::Resumed12,
        (TlsVersion::Tls13, false) => Handshake::Full13,
        (TlsVersion::Tls13, true) => Handshake::Resumed13,
    }
}

/// How a handshake has ended that an error has ended.
pub(crate) fn ended_by(error: &Error) -> Handshake {
    match error {
        Error::AlertReceived(AlertDescription::CloseNotify | AlertDescription::UserCanceled) => Handshake::Unfinished,
        Error::AlertReceived(_) => Handshake::Refused,
        _ => Handshake::Failed,
    }
}
