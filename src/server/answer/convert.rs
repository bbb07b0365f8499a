//! Requests and responses as values of the crate `http` (feature `http`).

use std::borrow::Cow;

use http::{HeaderMap, StatusCode};

use crate::server::answer::into_response::{failed, IntoResponse};
use crate::server::answer::response::{Body, Response};
use crate::server::http::{InvalidHeader, Request, Version};

/// Copies the whole request. The peer's address, if there is one, is an extension of type `SocketAddr`.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut builder = forkpool::Request::builder("POST", "/a?b").header("X-C", "d").body("e");
/// let request = http::Request::try_from(&builder.build())?;
/// assert_eq!((request.method().as_str(), request.uri().query()), ("POST", Some("b")));
/// assert_eq!((&request.headers()["x-c"], request.body()), (&"d".parse()?, &b"e".to_vec()));
/// # Ok(())
/// # }
/// ```
impl TryFrom<&Request<'_>> for http::Request<Vec<u8>> {
    /// The target is not a URI for the crate `http`, which is stricter in some places.
    type Error = http::Error;

    fn try_from(request: &Request<'_>) -> Result<Self, Self::Error> {
        let version = match request.version() {
            Version::Http10 => http::Version::HTTP_10,
            Version::Http11 => http::Version::HTTP_11,
        };
        let builder = http::Request::builder().method(request.method()).uri(request.target()).version(version);
        let builder = request.headers().fold(builder, |builder, (name, value)| builder.header(name, value));
        let mut converted = builder.body(request.body().to_vec())?;
        if let Some(peer) = request.peer() {
            converted.extensions_mut().insert(peer);
        }
        Ok(converted)
    }
}

/// Takes status, fields and body. Fields that the server sets itself, such as Content-Length, are left out; trailers
/// and extensions are dropped.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let made = http::Response::builder().status(201).header("x-a", "b").body("made\n")?;
/// let response = forkpool::Response::try_from(made)?;
/// assert_eq!((response.status_code(), response.header_value("X-A")), (201, Some("b")));
/// # Ok(())
/// # }
/// ```
impl<B: Into<Vec<u8>>> TryFrom<http::Response<B>> for Response {
    /// A status below 200 or above 599, named `:status`, or a value that is not UTF-8.
    type Error = InvalidHeader;

    fn try_from(response: http::Response<B>) -> Result<Response, InvalidHeader> {
        let (head, body) = response.into_parts();
        if !(200..600).contains(&head.status.as_u16()) {
            return Err(InvalidHeader::of(":status", "must be from 200 to 599"));
        }
        let mut converted = Response::new(head.status.as_u16());
        converted.body = Body::Bytes(Cow::Owned(body.into()));
        for (name, value) in &head.headers {
            let name = name.as_str();
            let value =
                std::str::from_utf8(value.as_bytes()).map_err(|_| InvalidHeader::of(name, "the value is not UTF-8"))?;
            if !InvalidHeader::is_servers_own(name) {
                converted = converted.try_header(name, value)?;
            }
        }
        Ok(converted)
    }
}

/// Copies a response whose body is in memory.
impl TryFrom<Response> for http::Response<Vec<u8>> {
    /// The response itself, if its body is a file, a stream, or made later.
    type Error = Response;

    fn try_from(response: Response) -> Result<Self, Response> {
        let Some(body) = response.body_bytes().map(<[u8]>::to_vec) else { return Err(response) };
        let mut converted = http::Response::new(body);
        // Both crates allow the same bytes in names and values, and this one fewer statuses.
        *converted.status_mut() = StatusCode::from_u16(response.status_code()).unwrap_or_default();
        let fields = response.headers().filter_map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?)));
        *converted.headers_mut() = fields.fold(HeaderMap::new(), |mut all, (name, value): (http::HeaderName, _)| {
            all.append(name, value);
            all
        });
        Ok(converted)
    }
}

impl<B: Into<Vec<u8>>> IntoResponse for http::Response<B> {
    fn into_response(self) -> Response {
        Response::try_from(self).unwrap_or_else(|error| failed(&error))
    }
}

impl IntoResponse for StatusCode {
    fn into_response(self) -> Response {
        Response::new(self.as_u16())
    }
}
