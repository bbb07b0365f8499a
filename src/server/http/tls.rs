//! PURE. What a handler learns about the TLS of a request's connection.
#![forbid(unsafe_code)]

use crate::shared::tls::TlsVersion;

/// The TLS of a connection; [`Request::tls`](crate::Request::tls) returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsInfo {
    pub(crate) version: TlsVersion,
    pub(crate) server_name: Option<Box<str>>,
    pub(crate) alpn: Option<Box<[u8]>>,
    pub(crate) client_certificate: Option<Box<[u8]>>,
    pub(crate) is_resumed: bool,
}

impl TlsInfo {
    /// The version.
    pub fn version(&self) -> TlsVersion {
        self.version
    }

    /// The host name that the client has asked for (SNI, RFC 6066), in lower case.
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// The protocol that was agreed on (ALPN, RFC 7301).
    pub fn alpn(&self) -> Option<&[u8]> {
        self.alpn.as_deref()
    }

    /// The client's certificate in DER, which an authority of [`tls_client_ca`](crate::Builder::tls_client_ca) has
    /// signed.
    pub fn client_certificate(&self) -> Option<&[u8]> {
        self.client_certificate.as_deref()
    }

    /// Whether the session was resumed by a ticket.
    pub fn is_resumed(&self) -> bool {
        self.is_resumed
    }
}
