//! A request, as a handler sees it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::forwarded::{origin, Origin, Trust};
use super::headers::Headers;

/// The version of HTTP that a request is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1; also what calls itself HTTP/1.2 and later, which RFC 9110 section 2.5 has understood as 1.1.
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

/// A request with its whole body. It borrows from the worker's buffers, for as long as the handler runs.
#[derive(Clone)]
pub struct Request<'a> {
    pub(super) method: &'a str,
    pub(super) target: &'a str,
    /// Where the target's first `?` is, or its end.
    pub(super) query_mark: usize,
    pub(super) version: Version,
    /// ASCII, since it is valid.
    pub(super) host: Option<&'a [u8]>,
    pub(super) fields: Headers<'a>,
    pub(super) body: &'a [u8],
    // What the codec cannot know.
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) worker: usize,
    pub(crate) via: Option<Via<'a>>,
}

impl<'a> Request<'a> {
    /// The method, as sent: methods are case-sensitive (RFC 9110 section 9.1).
    #[inline]
    pub fn method(&self) -> &'a str {
        self.method
    }

    /// The request target, as sent: `/path?query`, `http://host/path?query`, or `*` with OPTIONS.
    pub fn target(&self) -> &'a str {
        self.target
    }

    /// The target's path, as sent: not percent-decoded, and `..` not resolved. `*` for the whole server.
    #[inline]
    pub fn path(&self) -> &'a str {
        match &self.target[self.authority_end()..self.query_mark] {
            "" => "/",
            path => path,
        }
    }

    /// What follows the first `?` of the target, as sent.
    #[inline]
    pub fn query(&self) -> Option<&'a str> {
        self.target.get(self.query_mark + 1..)
    }

    /// Where the target's path begins: behind scheme and authority, if it has them.
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

    /// The host the client meant, with its port if it said one: what a [trusted proxy](crate::Builder::trusted_proxies) says,
    /// or else the target's authority, or else the Host field (RFC 9112 section 3.2.2). HTTP/1.0 may lack both.
    pub fn host(&self) -> Option<&'a str> {
        self.origin().host.or_else(|| std::str::from_utf8(self.host?).ok())
    }

    /// The host that the request itself names.
    pub(crate) fn own_host(&self) -> Option<&'a [u8]> {
        self.host
    }

    /// How many bytes of its head are before a query.
    #[inline]
    pub(crate) fn name_len(&self) -> usize {
        self.method.len() + 1 + self.query_mark
    }

    /// `https` where a [trusted proxy](crate::Builder::trusted_proxies) says that its client came by it, else `http`.
    pub fn scheme(&self) -> &'static str {
        match self.origin().is_https {
            true => "https",
            false => "http",
        }
    }

    /// The value of the first field with this name, in any case. `None` also when it is not UTF-8; see
    /// [`header_bytes`](Request::header_bytes).
    pub fn header(&self, name: &str) -> Option<&'a str> {
        std::str::from_utf8(self.header_bytes(name)?).ok()
    }

    /// The value of the first field with this name, in any case, without the white space around it.
    pub fn header_bytes(&self, name: &str) -> Option<&'a [u8]> {
        self.headers().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// All fields in the order sent: name and value.
    pub fn headers(&self) -> Headers<'a> {
        self.fields.clone()
    }

    /// The body, whole and decoded; empty when there is none.
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// The address of who is connected: the client, or a proxy in front; `None` on a Unix socket.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// The client's address: the last one in X-Forwarded-For, or Forwarded, that is not a
    /// [trusted proxy's](crate::Builder::trusted_proxies); before that, the one that the
    /// [PROXY protocol](crate::Builder::proxy_protocol) names; and without proxies, that of the [peer](Request::peer).
    /// `None` on a Unix socket, about whose client nobody says more.
    ///
    /// It is read from the fields at each call.
    pub fn client(&self) -> Option<IpAddr> {
        self.origin().address
    }

    /// What is known of the client, from whoever may be believed.
    pub(crate) fn origin(&self) -> Origin<'a> {
        match &self.via {
            None => Origin { address: self.peer.map(|peer| peer.ip().to_canonical()), ..Origin::default() },
            Some(via) => origin(via.source.or(self.peer), &self.fields, via.trust),
        }
    }

    /// The slot of the worker that serves it: [`Worker::id`](crate::Worker::id).
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

/// Who may stand between the client and the server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Via<'a> {
    pub(crate) trust: Trust<'a>,
    /// For whom the connection was made, as its first bytes say.
    pub(crate) source: Option<SocketAddr>,
}
