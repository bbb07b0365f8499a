//! What servers need from their worker, mainly the built-in one.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use nix::poll::{poll, PollFd, PollFlags, PollTimeout};

use super::Worker;
use crate::error::{Error, Result};
use crate::server::access_log::AccessLog;
use crate::server::adoption::Adoptions;
use crate::server::http::{CommonFields, Request};
use crate::server::resources::Resources;
use crate::server::station::Station;
use crate::shared::channel::WorkerEnd;
use crate::shared::config::{AccessLogFormat, ServerConfig};
use crate::shared::scoreboard::OwnRow;
#[cfg(feature = "tls")]
use crate::shared::tls::Secrets;
use crate::worker::keeper::KeeperOptions;
#[cfg(feature = "tls")]
use crate::worker::tls::Tls;

/// How a worker serves, and what user code has set before it does.
#[derive(Debug)]
pub(crate) struct Serving {
    config: Rc<ServerConfig>,
    /// The number of requests that it may serve; 0 is no limit.
    max_requests: Cell<u64>,
    drain_timeout: Duration,
    access_log: RefCell<Option<(Rc<File>, AccessLogFormat)>>,
    pub(super) common: RefCell<CommonFields>,
    pub(super) streams: RefCell<Option<Streams>>,
    /// Connections passed to the built-in server.
    pub(super) adoptions: Arc<Adoptions>,
    #[cfg(feature = "tls")]
    pub(super) tls: Tls,
}

impl Serving {
    pub(crate) fn new(config: Rc<ServerConfig>, max_requests: u64, drain_timeout: Duration) -> Serving {
        Serving {
            config,
            max_requests: Cell::new(max_requests),
            drain_timeout,
            access_log: RefCell::default(),
            common: RefCell::new(CommonFields::new()),
            streams: RefCell::default(),
            adoptions: Arc::default(),
            #[cfg(feature = "tls")]
            tls: Tls::default(),
        }
    }

    #[cfg(any(feature = "hyper", feature = "tls"))]
    pub(super) fn config(&self) -> &ServerConfig {
        &self.config
    }

    #[cfg(feature = "tls")]
    pub(crate) fn with_secrets(self, secrets: Option<Secrets>) -> Serving {
        Serving { tls: Tls::new(secrets), ..self }
    }

    /// Makes the configuration of TLS, if there are certificates.
    ///
    /// # Errors
    ///
    /// If the library refuses it.
    #[cfg(feature = "tls")]
    pub(super) fn begin_tls(&mut self) -> Result<()> {
        self.config.tls.as_ref().map_or(Ok(()), |keyring| self.tls.begin(keyring))
    }

    /// The port to which requests without TLS are redirected.
    pub(super) fn https_port(&self) -> Option<u16> {
        self.config.https_port
    }

    pub(crate) fn with_access_log(self, log: Option<(Rc<File>, AccessLogFormat)>) -> Serving {
        Serving { access_log: RefCell::new(log), ..self }
    }

    pub(crate) fn drain_timeout(&self) -> Duration {
        self.drain_timeout
    }
}

/// What [`Worker::stream_bodies`] was given.
pub(super) struct Streams(pub(super) Box<dyn FnMut(&Request<'_>) -> bool>);

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streams").finish_non_exhaustive()
    }
}

impl Worker {
    /// Returns what the built-in server needs from this worker, and what it takes over.
    ///
    /// # Errors
    ///
    /// If no descriptor is free.
    pub(super) fn station(&self) -> Result<(Station<'_>, Resources)> {
        let listen = |source| Error::system("listen in the worker with epoll_ctl(2)", source);
        let shutdown = self.shutdown_signal().map_err(listen)?;
        let log = self.take_access_log();
        let log = log.map_err(|source| Error::system("copy the access log's descriptor with fcntl(2)", source))?;
        let all_collected = || Box::new(|_: &Request<'_>| false) as Box<_>;
        let resources = Resources {
            shutdown,
            listeners: self.sockets.own.take(),
            shared_listeners: self.sockets.shared.take(),
            unix_listeners: self.take_unix_listeners(),
            handover: self.sockets.handover.take(),
            inbox: self.take_inbox(),
            common: self.serving.common.borrow().clone(),
            streams: self.serving.streams.take().map_or_else(all_collected, |streams| streams.0),
            log,
            #[cfg(feature = "tls")]
            tls: self.endpoint(),
            #[cfg(not(feature = "tls"))]
            tls: None,
        };
        let station = Station {
            id: self.identity.slot,
            tag: self.tag(),
            lifeline: &self.lifeline,
            page: &self.page,
            config: &self.serving.config,
            drain_timeout: self.serving.drain_timeout,
            quit: &self.quit,
            max_requests: &self.serving.max_requests,
            adoptions: Arc::clone(&self.serving.adoptions),
            woken: Cell::default(),
        };
        Ok((station, resources))
    }

    /// Takes the access log, if there is one.
    ///
    /// # Errors
    ///
    /// If no descriptor is free.
    fn take_access_log(&self) -> io::Result<Option<AccessLog>> {
        let Some((file, format)) = self.serving.access_log.take() else { return Ok(None) };
        // It may be a standard stream, which a worker in its sandbox cannot copy.
        let file = Rc::try_unwrap(file).or_else(|file| file.try_clone())?.into();
        let (lines, slot) = (self.page.lines().cloned(), self.identity.slot);
        Ok(Some(AccessLog::new(file, lines, format, slot, std::process::id(), self.tag())))
    }

    /// Whether this worker is to finish.
    pub(crate) fn is_over(&self) -> io::Result<bool> {
        is_over(self.lifeline.stream())
    }

    pub(crate) fn keeper_options(&self) -> &KeeperOptions {
        &self.keeper_options
    }

    pub(crate) fn drain_timeout(&self) -> Duration {
        self.serving.drain_timeout
    }

    pub(crate) fn lifeline(&self) -> &WorkerEnd {
        &self.lifeline
    }

    /// How the log names this worker.
    pub(crate) fn tag(&self) -> String {
        self.identity.tag()
    }

    pub(crate) fn row(&self) -> OwnRow<'_> {
        self.page.row()
    }
}

/// Whether a worker with this lifeline is to finish.
pub(super) fn is_over(lifeline: &UnixStream) -> io::Result<bool> {
    let mut stream = [PollFd::new(lifeline.as_fd(), PollFlags::POLLIN)];
    Ok(poll(&mut stream, PollTimeout::ZERO)? > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::channel;
    use crate::worker::is_draining;

    #[test]
    fn a_worker_is_over_when_its_lifeline_ends() {
        let (parent, worker) = channel::channel(0, false).expect("a socket pair");
        assert!(!is_over(worker.stream()).expect("a descriptor"));
        parent.close();
        assert!(is_over(worker.stream()).expect("a descriptor"));
        assert!(!is_draining(), "this process is no worker");
    }
}
