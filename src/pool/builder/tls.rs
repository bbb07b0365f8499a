//! HTTPS.

use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use super::Builder;
use crate::shared::config::{quoted, Address};
use crate::shared::tls::{TlsClientAuth, TlsVersion};

impl Builder {
    /// Adds a TCP address to listen on for HTTPS, in a form of [`bind`](Builder::bind). It takes at least one
    /// [`tls_certificate`](Builder::tls_certificate) with its [`tls_key`](Builder::tls_key), and the feature `tls`.
    ///
    /// Requests are like those that come without TLS, except for [`Request::tls`](crate::Request::tls) and
    /// [`Request::scheme`](crate::Request::scheme). A server of your own accepts from the listeners of these addresses
    /// and begins TLS itself, with `Worker::tls_config`; one that does not fails to start.
    ///
    /// TLS 1.2 and 1.3 are spoken, with rustls and ring. Early data is not accepted. Clients resume their sessions with
    /// any worker.
    pub fn bind_tls(mut self, address: impl Display) -> Builder {
        let address = address.to_string();
        self.fix("tls-listen");
        match address.parse::<Address>() {
            Ok(address) => self.config.listening.tls.addresses.push(address),
            Err(problem) => self.mistaken("tls-listen", quoted("tls-listen", &address), problem),
        }
        self
    }

    /// Adds a file with a certificate chain in PEM, the server's own certificate first, then the one that has signed it
    /// and so on. Default: none. Its key is the [`tls_key`](Builder::tls_key) in the same position.
    ///
    /// A client gets the first certificate that is for the name it asks for, or for a wildcard of that name, and whose
    /// signatures it understands; or else the very first. The parent reads the files with its own rights, at the start
    /// and at each restart. If one of them is wrong, the start fails, or the restart is aborted and nothing changes.
    pub fn tls_certificate(self, path: impl AsRef<Path>) -> Builder {
        self.put("tls-certificate", |config| config.listening.tls.identity.certificates.push(path.as_ref().to_owned()))
    }

    /// Adds a file with a private key in PEM, not encrypted. Default: none.
    pub fn tls_key(self, path: impl AsRef<Path>) -> Builder {
        self.put("tls-key", |config| config.listening.tls.identity.keys.push(path.as_ref().to_owned()))
    }

    /// Sets the file with the certificates in PEM of the authorities that sign clients' certificates. Default: none.
    pub fn tls_client_ca(self, path: impl AsRef<Path>) -> Builder {
        self.put("tls-client-ca", |config| config.listening.tls.identity.client_ca = Some(path.as_ref().to_owned()))
    }

    /// Sets whether clients show a certificate. Default [`TlsClientAuth::No`].
    pub fn tls_client_auth(self, auth: TlsClientAuth) -> Builder {
        self.put("tls-client-auth", |config| config.listening.tls.identity.client_auth = auth)
    }

    /// Sets the lowest version of TLS to accept. Default `1.2`.
    pub fn tls_min(self, version: TlsVersion) -> Builder {
        self.put("tls-min", |config| config.listening.tls.identity.min = version)
    }

    /// Sets the maximum number of handshakes in progress per worker. Default 1000.
    ///
    /// At the limit, new connections wait in the queue, and the handshake that has waited longest for its client, for
    /// at least a second, is ended to make room. If nothing has come from the client, ten milliseconds are enough.
    /// Handshakes take turns with other connections, so many of them slow down each other, and hardly anybody else.
    pub fn tls_max_handshakes(self, count: usize) -> Builder {
        self.put("tls-max-handshakes", |config| config.server.capacity.max_handshakes = count)
    }

    /// Sets whether the built-in server redirects requests that come without TLS to the first
    /// [`bind_tls`](Builder::bind_tls), with status 308. Default `false`. Not redirected are requests that a [trusted
    /// proxy](Builder::trusted_proxies) says came by https, and paths under `/.well-known/acme-challenge/`, by which
    /// certificate authorities check names.
    pub fn https_redirect(self, redirects: bool) -> Builder {
        self.put("https-redirect", |config| config.listening.tls.redirect = redirects)
    }

    /// Sets how long the secret of session tickets is used for new ones. Default 12 h; zero issues no tickets.
    ///
    /// A session can be resumed for one period. The secrets outlive workers and [upgrades](crate::Handle::upgrade), but
    /// not the pool.
    pub fn tls_ticket_period(self, period: Duration) -> Builder {
        self.put("tls-ticket-period", |config| config.listening.tls.tickets.period = period)
    }

    /// Sets a file of at least 32 random bytes from which the secrets of session tickets are derived, so that clients
    /// resume their sessions with any of several hosts that have the same file, and after a new start of the pool. The
    /// hosts must have the same [period](Builder::tls_ticket_period), and clocks that agree. Who can read the file can
    /// decrypt recorded TLS 1.2 sessions; replace it from time to time. Default: none, the parent draws secrets at
    /// random.
    pub fn tls_ticket_secret(self, path: impl AsRef<Path>) -> Builder {
        self.put("tls-ticket-secret", |config| config.listening.tls.tickets.secret = Some(path.as_ref().to_owned()))
    }
}
