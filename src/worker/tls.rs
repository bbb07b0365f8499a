//! The TLS of a worker.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use rustls::ServerConfig;

use super::Worker;
use crate::error::{Error, Result};
use crate::server::tls::Endpoint;
use crate::shared::tls::{Keyring, Secrets};

/// What a worker needs to speak TLS.
#[derive(Debug, Default)]
pub(super) struct Tls {
    secrets: Option<Secrets>,
    config: Option<Arc<ServerConfig>>,
    /// Whether a server has asked for the configuration.
    is_spoken: Cell<bool>,
}

impl Tls {
    pub(super) fn new(secrets: Option<Secrets>) -> Tls {
        Tls { secrets, ..Tls::default() }
    }

    pub(super) fn begin(&mut self, keyring: &Keyring) -> Result<()> {
        self.config = Some(keyring.server_config(self.secrets.take())?);
        Ok(())
    }
}

impl Worker {
    /// The configuration of TLS for a server of your own, such as one that uses tokio-rustls: the pool's certificates,
    /// and session tickets with which clients resume with any worker. `None` if the pool has no certificates.
    ///
    /// Which protocols to offer (ALPN) is up to the server: the configuration offers HTTP/1.1. To offer others, change
    /// a clone of it. [`tls_addresses`](Worker::tls_addresses) tells on which addresses clients expect TLS. A server
    /// that never calls this cannot speak TLS, so if there are such addresses, its [`ready`](Worker::ready) fails.
    pub fn tls_config(&self) -> Option<Arc<ServerConfig>> {
        self.serving.tls.is_spoken.set(true);
        self.serving.tls.config.clone()
    }

    /// The local addresses of the listeners on which clients expect TLS; see
    /// [`Builder::bind_tls`](crate::Builder::bind_tls).
    pub fn tls_addresses(&self) -> &[SocketAddr] {
        &self.sockets.tls
    }

    /// The port of the first address for HTTPS, of which this one was asked for.
    pub(super) fn https_port(&self, asked: u16) -> u16 {
        match (asked, self.sockets.tls.first()) {
            (0, Some(address)) => address.port(),
            _ => asked,
        }
    }

    /// What the connections of the built-in server share.
    pub(super) fn endpoint(&self) -> Option<Rc<Endpoint>> {
        let config = self.tls_config()?;
        let most = self.serving.config().capacity.max_handshakes;
        Some(Rc::new(Endpoint::new(config, self.sockets.tls.clone(), most, self.tag())))
    }

    /// Whether its server speaks TLS where clients expect it.
    ///
    /// # Errors
    ///
    /// If it does not.
    pub(super) fn check_tls(&self) -> Result<()> {
        match self.sockets.tls.is_empty() || self.serving.tls.is_spoken.get() {
            true => Ok(()),
            false => Err(Error::config(
                "tls-listen",
                "this server speaks no TLS; use listen, or begin TLS with the configuration of Worker::tls_config; \
                 serve_tower does with the feature hyper-tls",
            )),
        }
    }
}
