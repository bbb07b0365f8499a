//! Requests for a handler's tests, made without a connection.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::ops::Range;

use super::grammar::is_token;
use super::head;
use super::headers::Headers;
use super::request::{Request, Version};
use super::response::is_value;
use super::rules::HeadStorage;
use super::{Limits, FIELDS_MAX};

/// No limits but that of the fields, for which a head has a fixed number of places.
const LIMITS: Limits = Limits {
    target: usize::MAX,
    head: usize::MAX,
    fields: FIELDS_MAX,
    body: usize::MAX,
    requests: 0,
    utf8_query: true,
};

/// Makes a request for a handler's test; see [`Request::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder makes a request only by `build`"]
pub struct RequestBuilder {
    method: String,
    target: String,
    version: Version,
    /// Names and values.
    fields: Vec<(String, String)>,
    body: Vec<u8>,
    peer: Option<SocketAddr>,
    worker: usize,
    /// The rendered head, and the parts that a request borrows from it.
    head: String,
    places: Vec<(Range<usize>, Range<usize>)>,
    query_mark: usize,
    host: Option<String>,
}

impl Request<'_> {
    /// Begins a request for a unit test, by its method and target, such as `GET` and `/notes/1?full`. It needs neither
    /// a socket nor a pool.
    ///
    /// Like a real request, it has a Host field, `localhost` unless [`header`](RequestBuilder::header) sets another,
    /// and a Content-Length field if it has a body.
    ///
    /// ```
    /// use forkpool::{Request, Response};
    ///
    /// fn greet(request: &Request<'_>) -> Response {
    ///     match request.path() {
    ///         "/" => Response::text(format!("hello {}\n", request.header("X-Name").unwrap_or("world"))),
    ///         _ => Response::new(404),
    ///     }
    /// }
    ///
    /// let response = greet(&Request::builder("GET", "/").header("X-Name", "Ada").build());
    /// assert_eq!((response.status_code(), response.body_bytes()), (200, Some(&b"hello Ada\n"[..])));
    /// assert_eq!(greet(&Request::builder("GET", "/missing").build()).status_code(), 404);
    /// ```
    pub fn builder(method: impl Into<String>, target: impl Into<String>) -> RequestBuilder {
        RequestBuilder {
            method: method.into(),
            target: target.into(),
            version: Version::Http11,
            fields: Vec::new(),
            body: Vec::new(),
            peer: None,
            worker: 0,
            head: String::new(),
            places: Vec::new(),
            query_mark: 0,
            host: None,
        }
    }
}

impl RequestBuilder {
    /// Adds a header field. Fields keep their order, and may have the same name. A Host replaces the default one.
    ///
    /// # Panics
    ///
    /// If the name is not a token or the value contains a control character, and for Content-Length and
    /// Transfer-Encoding, which follow from the [body](RequestBuilder::body).
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> RequestBuilder {
        let (name, value) = (name.into(), value.into());
        assert!(is_token(name.as_bytes()), "the name {name:?} of a header field is no token (RFC 9110 section 5.1)");
        assert!(is_value(value.as_bytes()), "the value {value:?} of {name} holds a control character");
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        assert!(!is("content-length") && !is("transfer-encoding"), "{name} follows from the body; leave it out");
        self.fields.push((name, value));
        self
    }

    /// Sets the body. Default: none.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> RequestBuilder {
        self.body = body.into();
        self
    }

    /// Sets the version of HTTP. Default [`Version::Http11`].
    pub fn version(mut self, version: Version) -> RequestBuilder {
        self.version = version;
        self
    }

    /// Sets the address of the peer, which is also the client's. Default: none, as on a Unix socket.
    pub fn peer(mut self, peer: SocketAddr) -> RequestBuilder {
        self.peer = Some(peer);
        self
    }

    /// Sets the slot of the worker that serves the request. Default 0.
    pub fn worker(mut self, id: usize) -> RequestBuilder {
        self.worker = id;
        self
    }

    /// Returns the request. It borrows from the builder, so build it where it is used: `answer(&builder.build())`.
    ///
    /// # Panics
    ///
    /// If a server would refuse the request, with the reason: a malformed target or Host, more than 128 fields.
    pub fn build(&mut self) -> Request<'_> {
        self.render();
        let mut storage = HeadStorage::new();
        let head = match head::parse(self.head.as_bytes(), &mut storage, &LIMITS) {
            Ok(head) => head,
            Err(reject) => panic!("{} {}: {}", self.method, self.target, reject.reason().trim_end()),
        };
        self.query_mark = head.request.query_mark;
        // Its values are text, since the builder takes only text.
        self.host = head.request.host.and_then(|host| std::str::from_utf8(host).ok()).map(str::to_owned);
        Request {
            method: &self.method,
            target: &self.target,
            query_mark: self.query_mark,
            version: self.version,
            host: self.host.as_deref().map(str::as_bytes),
            fields: Headers::known(&self.head, &self.places),
            body: &self.body,
            peer: self.peer,
            worker: self.worker,
            via: None,
            tls: None,
        }
    }

    /// Writes the head as a client sends it, and notes where its fields are.
    fn render(&mut self) {
        self.head = format!("{} {} {}\r\n", self.method, self.target, self.version);
        self.places.clear();
        let length = self.body.len().to_string();
        let host =
            (!self.fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("host"))).then_some(("Host", "localhost"));
        let length = (!self.body.is_empty()).then_some(("Content-Length", length.as_str()));
        let own = self.fields.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in host.into_iter().chain(own).chain(length) {
            let value = value.trim_matches([' ', '\t']);
            let name_start = self.head.len();
            let value_start = name_start + name.len() + ": ".len();
            self.places.push((name_start..name_start + name.len(), value_start..value_start + value.len()));
            for part in [name, ": ", value, "\r\n"] {
                self.head.push_str(part);
            }
        }
        self.head.push_str("\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_built_request_is_as_one_that_was_parsed() {
        let mut builder = Request::builder("POST", "/a%20b?c=d").header("Accept", "  text/html ").body("text");
        let request = builder.build();
        assert_eq!((request.method(), request.path(), request.query()), ("POST", "/a%20b", Some("c=d")));
        assert_eq!((request.host(), request.scheme(), request.body()), (Some("localhost"), "http", &b"text"[..]));
        let fields: Vec<_> = request.headers().collect();
        assert_eq!(fields, [("Host", &b"localhost"[..]), ("Accept", b"text/html"), ("Content-Length", b"4")]);
        assert_eq!((request.peer(), request.client(), request.worker()), (None, None, 0));
    }

    #[test]
    fn a_test_chooses_what_the_connection_says() {
        let peer = SocketAddr::from(([192, 0, 2, 1], 1234));
        let builder = Request::builder("GET", "http://a.example/x").header("Host", "b.example").peer(peer).worker(3);
        let mut builder = builder.version(Version::Http10);
        let request = builder.build();
        assert_eq!((request.host(), request.path()), (Some("a.example"), "/x"));
        assert_eq!((request.client(), request.worker()), (Some(peer.ip()), 3));
        assert_eq!(request.version(), Version::Http10);
        // It can be built again.
        assert_eq!(builder.build().headers().count(), 1);
    }

    #[test]
    #[should_panic(expected = "the request target is malformed")]
    fn what_a_server_refuses_is_no_request() {
        let _ = Request::builder("GET", "no-slash").build();
    }
}
