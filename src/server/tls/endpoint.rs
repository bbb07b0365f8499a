//! What the sessions of a worker share.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::server::ServerConfig;
use rustls::{AlertDescription, Error};

use super::session::{OVERHEAD, RECORD};
use crate::server::http::TlsInfo;
use crate::shared::counters::{Handshake, HandshakeCounts, HANDSHAKES};
use crate::shared::tls::TlsVersion;

/// The number of records that are sealed before they are sent.
const RECORDS: usize = 4;

/// The bytes to read from a socket at once.
const READ: usize = 64 * 1024;

/// The number of steps of handshakes in each turn. One takes as long as some hundred requests.
pub(crate) const STEPS: u32 = 4;

/// How long a client may take for its turn in a handshake before the handshake makes room for another.
pub(crate) const CLIENT_TURN_MAX: Duration = Duration::from_secs(1);

/// What the sessions of a worker share: the configuration, buffers, counters.
pub(crate) struct Endpoint {
    pub(super) config: Arc<ServerConfig>,
    /// The addresses on which connections begin with a handshake.
    addresses: Vec<SocketAddr>,
    pub(super) buffers: RefCell<Buffers>,
    /// How many steps of handshakes this turn has left.
    steps: Cell<u32>,
    /// Whether one had to wait for the next turn.
    defers: Cell<bool>,
    /// How many handshakes are in progress, and how many may be.
    handshakes: Cell<usize>,
    handshakes_max: usize,
    counts: HandshakeCounts,
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
    /// At most `handshakes_max` handshakes are in progress at a time. `tag` is how the log names the worker.
    pub(crate) fn new(
        config: Arc<ServerConfig>,
        addresses: Vec<SocketAddr>,
        handshakes_max: usize,
        tag: String,
    ) -> Endpoint {
        let buffer = |len| vec![0; len].into_boxed_slice();
        let buffers = Buffers {
            received: buffer(READ),
            sealed: buffer(RECORDS * (RECORD + OVERHEAD)),
            plain: buffer(RECORDS * RECORD),
        };
        Endpoint {
            config,
            addresses,
            buffers: RefCell::new(buffers),
            steps: Cell::new(STEPS),
            defers: Cell::new(false),
            handshakes: Cell::new(0),
            handshakes_max,
            counts: HandshakeCounts::default(),
            tag,
        }
    }

    /// Whether connections to this address begin with a handshake.
    pub(crate) fn is_for(&self, address: SocketAddr) -> bool {
        self.addresses.contains(&address)
    }

    /// Another turn of the loop begins.
    pub(crate) fn begin_turn(&self) {
        self.steps.set(STEPS);
        self.defers.set(false);
    }

    /// Whether a session may take a step of its handshake in this turn. If not, it has to ask again in the next one.
    pub(super) fn has_step(&self) -> bool {
        let has_step = self.steps.get() > 0;
        self.defers.set(self.defers.get() || !has_step);
        has_step
    }

    /// Whether handshakes wait for the next turn.
    pub(crate) fn defers(&self) -> bool {
        self.defers.get()
    }

    /// How many handshakes are in progress.
    pub(crate) fn handshakes(&self) -> usize {
        self.handshakes.get()
    }

    /// Whether no further handshake may begin.
    pub(crate) fn is_crowded(&self) -> bool {
        self.handshakes.get() >= self.handshakes_max
    }

    pub(super) fn take_step(&self) {
        self.steps.set(self.steps.get().saturating_sub(1));
    }

    pub(crate) fn counts(&self) -> [u64; HANDSHAKES] {
        self.counts.all()
    }

    fn count(&self, outcome: Handshake) {
        self.counts.add(outcome);
    }

    pub(super) fn count_done(&self, info: &TlsInfo) {
        self.count(completed(info));
    }

    /// A client has closed its connection during the handshake, or has taken too long.
    pub(super) fn count_unfinished(&self) {
        self.count(Handshake::Unfinished);
    }

    /// A handshake was ended in favour of another.
    pub(super) fn count_crowded(&self) {
        self.count(Handshake::Crowded);
    }

    pub(super) fn count_plain(&self) {
        self.count(Handshake::Plain);
    }

    /// A session has failed.
    pub(super) fn fail(&self, error: &Error, is_handshaking: bool) {
        log::debug!("{} TLS failed: {error}", self.tag);
        self.count(match is_handshaking {
            true => ended_by(error),
            false => Handshake::Broken,
        });
    }

    /// A client has closed its connection without close_notify.
    pub(super) fn count_truncated(&self) {
        log::debug!("{} a client closed its TLS connection without close_notify", self.tag);
        self.count(Handshake::Truncated);
    }
}

/// The outcome of a complete handshake.
pub(crate) fn completed(info: &TlsInfo) -> Handshake {
    match (info.version, info.is_resumed) {
        (TlsVersion::Tls12, false) => Handshake::Full12,
        (TlsVersion::Tls12, true) => Handshake::Resumed12,
        (TlsVersion::Tls13, false) => Handshake::Full13,
        (TlsVersion::Tls13, true) => Handshake::Resumed13,
    }
}

/// The outcome of a handshake that failed with this error.
pub(crate) fn ended_by(error: &Error) -> Handshake {
    match error {
        Error::AlertReceived(AlertDescription::CloseNotify | AlertDescription::UserCanceled) => Handshake::Unfinished,
        Error::AlertReceived(_) => Handshake::Refused,
        _ => Handshake::Failed,
    }
}

/// A handshake in progress.
#[derive(Debug)]
pub(super) struct InProgress(Rc<Endpoint>);

impl InProgress {
    pub(super) fn new(endpoint: &Rc<Endpoint>) -> InProgress {
        endpoint.handshakes.set(endpoint.handshakes.get() + 1);
        InProgress(Rc::clone(endpoint))
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.handshakes.set(self.0.handshakes.get().saturating_sub(1));
    }
}
