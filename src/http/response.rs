//! A response, as a handler makes it.

use std::borrow::Cow;
use std::fmt;

use super::head::is_token;

/// A response: status, header fields, body.
///
/// The server adds Date, Content-Length and Connection, leaves the body out where the request or the status demands it, and
/// keeps HTTP/1.0 apart from 1.1.
///
/// ```
/// use forkpool::Response;
///
/// let page = Response::html("<p>gone</p>").status(410).header("Cache-Control", "no-store");
/// let data = Response::bytes("application/octet-stream", vec![1, 2, 3]);
/// # drop((page, data));
/// ```
#[derive(Clone)]
pub struct Response {
    pub(super) status: u16,
    pub(super) content_type: Option<Cow<'static, str>>,
    /// Rendered: `name: value CRLF`, and so on.
    pub(super) fields: Vec<u8>,
    pub(super) body: Cow<'static, [u8]>,
    pub(super) close: bool,
}

impl Response {
    /// A response without a body.
    ///
    /// # Panics
    ///
    /// Unless `status` is from 200 to 599: interim answers are the server's.
    pub fn new(status: u16) -> Response {
        assert!(is_final(status), "a response's status is from 200 to 599, not {status}");
        Response { status, content_type: None, fields: Vec::new(), body: Cow::Borrowed(b""), close: false }
    }

    /// 200 with plain text in UTF-8.
    pub fn text(body: impl Into<Cow<'static, str>>) -> Response {
        Response::with(Cow::Borrowed("text/plain; charset=utf-8"), from_text(body.into()))
    }

    /// 200 with an HTML page in UTF-8.
    pub fn html(body: impl Into<Cow<'static, str>>) -> Response {
        Response::with(Cow::Borrowed("text/html; charset=utf-8"), from_text(body.into()))
    }

    /// 200 with bytes of the given media type.
    ///
    /// # Panics
    ///
    /// When the media type is no valid field value.
    pub fn bytes(content_type: impl Into<Cow<'static, str>>, body: impl Into<Cow<'static, [u8]>>) -> Response {
        let content_type = content_type.into();
        assert!(is_value(content_type.as_bytes()), "the media type {content_type:?} is no valid field value");
        Response::with(content_type, body.into())
    }

    fn with(content_type: Cow<'static, str>, body: Cow<'static, [u8]>) -> Response {
        Response { status: 200, content_type: Some(content_type), fields: Vec::new(), body, close: false }
    }

    /// Sets the status.
    ///
    /// # Panics
    ///
    /// Unless it is from 200 to 599.
    pub fn status(mut self, status: u16) -> Response {
        assert!(is_final(status), "a response's status is from 200 to 599, not {status}");
        self.status = status;
        self
    }

    /// Adds a header field; a Content-Type replaces the one there is.
    ///
    /// # Panics
    ///
    /// Where [`try_header`](Response::try_header) fails; in a handler that becomes a 500. Use that one for values that come from
    /// outside.
    pub fn header(self, name: &str, value: &str) -> Response {
        match self.try_header(name, value) {
            Ok(response) => response,
            Err(error) => panic!("{error}"),
        }
    }

    /// Adds a header field; a Content-Type replaces the one there is.
    ///
    /// # Errors
    ///
    /// When the name is no token, when the value holds a control character (CR and LF would start another field, or another
    /// response), or when the field is one that the server sets (Content-Length, Connection, Date, …).
    pub fn try_header(mut self, name: &str, value: &str) -> Result<Response, InvalidHeader> {
        check_field(name, value)?;
        if name.eq_ignore_ascii_case("content-type") {
            self.content_type = Some(Cow::Owned(value.to_owned()));
        } else {
            push_field(&mut self.fields, name, value);
        }
        Ok(self)
    }

    /// Ends the connection after this response.
    pub fn close(mut self) -> Response {
        self.close = true;
        self
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.status)
            .field("content_type", &self.content_type)
            .field("fields", &String::from_utf8_lossy(&self.fields))
            .field("body_len", &self.body.len())
            .field("close", &self.close)
            .finish()
    }
}

/// A header field that may not be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidHeader {
    name: String,
    problem: &'static str,
}

impl fmt::Display for InvalidHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "header field {:?}: {}", self.name, self.problem)
    }
}

impl std::error::Error for InvalidHeader {}

fn from_text(text: Cow<'static, str>) -> Cow<'static, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

fn is_final(status: u16) -> bool {
    (200..600).contains(&status)
}

/// Whether a field may be added to a response.
pub(super) fn check_field(name: &str, value: &str) -> Result<(), InvalidHeader> {
    let problem = match () {
        () if !is_token(name.as_bytes()) => "the name is no token (RFC 9110 section 5.1)",
        () if !is_value(value.as_bytes()) => "the value holds a control character (RFC 9110 section 5.5)",
        () if THE_SERVERS.iter().any(|own| name.eq_ignore_ascii_case(own)) => "the server sets this field itself",
        () => return Ok(()),
    };
    Err(InvalidHeader { name: name.to_owned(), problem })
}

/// Renders a field that was checked.
pub(super) fn push_field(fields: &mut Vec<u8>, name: &str, value: &str) {
    for part in [name, ": ", value.trim_matches([' ', '\t']), "\r\n"] {
        fields.extend_from_slice(part.as_bytes());
    }
}

/// `field-value` of RFC 9110 section 5.5; bytes of 0x80 and above are its `obs-text`.
fn is_value(value: &[u8]) -> bool {
    value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~' | 0x80..))
}

/// Fields that frame a message or concern the connection.
const THE_SERVERS: [&str; 8] = [
    "Content-Length",
    "Transfer-Encoding",
    "Connection",
    "Keep-Alive",
    "Date",
    "Trailer",
    "Upgrade",
    "Proxy-Connection",
];
