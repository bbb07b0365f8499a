//! PURE. What the pool is told about its TLS.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::time::Duration;

/// Whether clients show a certificate ([`Builder::tls_client_auth`](crate::Builder::tls_client_auth)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TlsClientAuth {
    /// They are not asked for one.
    #[default]
    No,
    /// They are asked, and may have none. One that the authority has not signed is refused.
    Optional,
    /// Those without a certificate of the authority are refused.
    Require,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    #[default]
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

/// The files from which a pool has its certificates and keys, and how it authenticates clients.
#[derive(Clone, Debug, Default)]
pub(crate) struct IdentityConfig {
    pub(crate) certificates: Vec<PathBuf>,
    /// The keys of the certificates, in the same order.
    pub(crate) keys: Vec<PathBuf>,
    pub(crate) client_ca: Option<PathBuf>,
    pub(crate) client_auth: TlsClientAuth,
    pub(crate) min: TlsVersion,
}

/// How sessions resume.
#[derive(Clone, Debug)]
pub(crate) struct TicketConfig {
    /// How long a secret is used for new tickets. Zero is no tickets.
    pub(crate) period: Duration,
    /// The file from which the secrets are derived.
    pub(crate) secret: Option<PathBuf>,
}

impl Default for TicketConfig {
    fn default() -> TicketConfig {
        TicketConfig { period: Duration::from_secs(12 * 3600), secret: None }
    }
}
