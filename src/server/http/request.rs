//! A request, as a handler sees it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::forwarded::{origin, Origin, TrustedProxies};
use super::headers::Headers;
use super::tls::TlsInfo;

/// The version of HTTP of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1; also HTTP/1.2 and later, which RFC 9110 section 2.5 says to treat as 1.1.
    Http11,
}

impl Version {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A request with its whole body. It borrows from the worker's buffers while the handler runs.
#[derive(Clone)]
pub struct Request<'a> {
    pub(super) method: &'a str,
    pub(super) target: &'a str,
    /// The position of the target's first `?`, or its end.
    pub(super) query_mark: usize,
    pub(super) version: Version,
    /// ASCII, since it was validated.
    pub(super) host: Option<&'a [u8]>,
    pub(super) fields: Headers<'a>,
    pub(super) body: &'a [u8],
    // What the codec cannot know.
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) worker: usize,
    pub(crate) via: Option<Via<'a>>,
    pub(crate) tls: Option<&'a TlsInfo>,
}

impl<'a> Request<'a> {
    /// The method as sent. Methods are case-sensitive (RFC 9110 section 9.1).
    #[inline]
    pub fn method(&self) -> &'a str {
        self.method
    }

    /// The request target as sent: `/path?query`, `http://host/path?query`, or `*` with OPTIONS.
    pub fn target(&self) -> &'a str {
        self.target
    }

    /// The target's path as sent, not percent-decoded and with `..` unresolved. `*` for the whole server.
    #[inline]
    pub fn path(&self) -> &'a str {
        match &self.target[self.authority_end()..self.query_mark] {
            "" => "/",
            path => path,
        }
    }

    /// The part of the target after the first `?`, as sent.
    #[inline]
    pub fn query(&self) -> Option<&'a str> {
        self.target.get(self.query_mark + 1..)
    }

    /// The position of the target's path, after scheme and authority if it has them.
    #[inline]
    fn authority_end(&self) -> usize {
        if self.target.starts_with('/') {
            return 0;
        }
        self.authority_end_of_absolute_form()
    }

    fn authority_end_of_absolute_form(&self) -> usize {
        let Some((scheme, rest)) = self.target.split_once("://") else { return 0 };
        let start = scheme.len() + "://".len();
        start + rest.find(['/', '?']).unwrap_or(rest.len())
    }

    /// The version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The host that the client asked, with its port if there was one: from a [trusted
    /// proxy](crate::Builder::trusted_proxies), else from the target's authority, else from the Host field (RFC 9112
    /// section 3.2.2). HTTP/1.0 may lack both.
    pub fn host(&self) -> Option<&'a str> {
        self.origin().host.or_else(|| std::str::from_utf8(self.host?).ok())
    }

    /// The host in the request itself.
    pub(crate) fn own_host(&self) -> Option<&'a [u8]> {
        self.host
    }

    /// The number of bytes of the head before a query.
    #[inline]
    pub(crate) fn name_len(&self) -> usize {
        self.method.len() + 1 + self.query_mark
    }

    /// `https` if the connection has TLS, or a [trusted proxy](crate::Builder::trusted_proxies) says that the client
    /// used it, else `http`.
    pub fn scheme(&self) -> &'static str {
        match self.tls.is_some() || self.origin().is_https {
            true => "https",
            false => "http",
        }
    }

    /// The TLS of the connection, if it has any: the version, the host name that the client has asked for, its
    /// certificate. A proxy may be between the client and this connection.
    #[inline]
    pub fn tls(&self) -> Option<&'a TlsInfo> {
        self.tls
    }

    /// The value of the first field with this name; case does not matter. Also `None` if the value is not UTF-8; see
    /// [`header_bytes`](Request::header_bytes).
    pub fn header(&self, name: &str) -> Option<&'a str> {
        std::str::from_utf8(self.header_bytes(name)?).ok()
    }

    /// The value of the first field with this name, without surrounding white space; case does not matter.
    pub fn header_bytes(&self, name: &str) -> Option<&'a [u8]> {
        self.find_header(name)
    }

    /// The same without a call, which costs as much as to look at some fields.
    #[inline(always)]
    pub(crate) fn find_header(&self, name: &str) -> Option<&'a [u8]> {
        self.fields.value_of(name)
    }

    /// All fields in the order sent: names and values.
    pub fn headers(&self) -> Headers<'a> {
        self.fields.clone()
    }

    /// The whole body, decoded; empty if there is none.
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// The address of the peer of the connection, a client or a proxy; `None` on a Unix socket.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// The address of the client: the last one in X-Forwarded-For or Forwarded that is not a [trusted
    /// proxy's](crate::Builder::trusted_proxies); else the one in the header of the [PROXY
    /// protocol](crate::Builder::proxy_protocol); else that of the [peer](Request::peer). `None` on a Unix socket
    /// without information from a proxy.
    ///
    /// Parses the fields at each call.
    pub fn client(&self) -> Option<IpAddr> {
        self.origin().address
    }

    /// The client, according to the proxies that are trusted.
    pub(crate) fn origin(&self) -> Origin<'a> {
        match &self.via {
            None => Origin { address: self.peer.map(|peer| peer.ip().to_canonical()), ..Origin::default() },
            Some(via) => origin(via.source.or(self.peer), &self.fields, via.trust),
        }
    }

    /// The slot of the worker that serves this request; see [`Worker::id`](crate::Worker::id).
    pub fn worker(&self) -> usize {
        self.worker
    }
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields: Vec<_> = self.headers().map(|(name, value)| (name, String::from_utf8_lossy(value))).collect();
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("target", &self.target)
            .field("version", &self.version)
            .field("fields", &fields)
            .field("body_len", &self.body.len())
            .field("peer", &self.peer)
            .field("client", &self.client())
            .field("worker", &self.worker)
            .finish()
    }
}

/// The proxies between the client and the server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Via<'a> {
    pub(crate) trust: TrustedProxies<'a>,
    /// The client's address in the header of the PROXY protocol.
    pub(crate) source: Option<SocketAddr>,
}
