//! A response as a handler makes it: a head, and one of several kinds of body.

use std::borrow::Cow;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use crate::server::answer::deferred::Pending;
use crate::server::answer::file::{self, FileBody, Opened, Representation};
use crate::server::answer::receive::Receiver;
use crate::server::answer::stream::{self, BodyWriter, StreamReader};
use crate::server::answer::upgrade::{Upgrade, Upgraded};
use crate::server::http::{announce_trailer, is_value, media_type, InvalidHeader, Request, ResponseHead};

/// A response: status, header fields, body.
///
/// The server adds Date, Content-Length or Transfer-Encoding, and Connection. It omits the body if the request or the
/// status requires it, and takes the version of HTTP into account.
///
/// ```
/// use forkpool::Response;
///
/// let page = Response::html("<p>gone</p>").status(410).header("Cache-Control", "no-store");
/// let data = Response::bytes("application/octet-stream", vec![1, 2, 3]);
/// let elsewhere = Response::redirect(303, "/done");
/// # drop((page, data, elsewhere));
/// ```
#[derive(Debug)]
#[must_use = "a response does nothing until the handler returns it"]
pub struct Response {
    pub(crate) head: ResponseHead,
    pub(crate) body: Body,
}

/// The body.
#[derive(Debug)]
pub(crate) enum Body {
    Bytes(Cow<'static, [u8]>),
    Shared(Arc<[u8]>),
    // Boxed, since it is rare and large, and a response is moved several times.
    File(Box<FileBody>),
    Stream(StreamReader),
    /// Head and body come later.
    Deferred(Pending<Response>),
    /// The application takes over the connection.
    Upgrade(Box<Upgrade>),
    /// The request's body is received first.
    Receive(Receiver<Response>),
}

impl Response {
    /// Makes a response without a body.
    ///
    /// # Panics
    ///
    /// Unless `status` is between 200 and 599; the server sends interim responses itself.
    pub fn new(status: u16) -> Response {
        Response { head: ResponseHead::new(status, None), body: Body::Bytes(Cow::Borrowed(b"")) }
    }

    /// Makes a 200 response with plain text in UTF-8.
    #[inline]
    pub fn text(body: impl Into<Cow<'static, str>>) -> Response {
        Response::with("text/plain; charset=utf-8", from_text(body.into()))
    }

    /// Makes a 200 response with an HTML page in UTF-8.
    #[inline]
    pub fn html(body: impl Into<Cow<'static, str>>) -> Response {
        Response::with("text/html; charset=utf-8", from_text(body.into()))
    }

    /// Makes a 200 response with text that is JSON already (RFC 8259). With the feature `serde`, `Response::json`
    /// serialises a value.
    #[inline]
    pub fn json_text(body: impl Into<Cow<'static, str>>) -> Response {
        Response::with("application/json", from_text(body.into()))
    }

    /// Makes a 200 response with bytes of the given media type.
    ///
    /// # Panics
    ///
    /// If the media type is not a valid field value.
    #[inline]
    pub fn bytes(content_type: impl Into<Cow<'static, str>>, body: impl Into<Cow<'static, [u8]>>) -> Response {
        Response::with(content_type, Body::Bytes(body.into()))
    }

    /// Makes a 200 response with bytes that are shared with other responses or threads. Only a short body is copied.
    ///
    /// # Panics
    ///
    /// If the media type is not a valid field value.
    pub fn shared(content_type: impl Into<Cow<'static, str>>, body: Arc<[u8]>) -> Response {
        Response::with(content_type, Body::Shared(body))
    }

    /// Redirects the client: 301, 302, 303 (with GET), 307 or 308 (with the same method).
    ///
    /// # Panics
    ///
    /// If `status` is not between 300 and 399, or the location contains a control character.
    pub fn redirect(status: u16, location: &str) -> Response {
        assert!((300..400).contains(&status), "a redirection's status is from 300 to 399, not {status}");
        Response::new(status).header("Location", location)
    }

    /// Makes a response with a file, as `request` asks for it: whole or in ranges (RFC 9110 section 14), or a 304 if
    /// the client already has it (section 13). Sets ETag, Last-Modified, and a Content-Type by the extension of the
    /// file's name. The kernel sends the file (sendfile(2)).
    ///
    /// `path` is used as it is: check a path that comes from a request, including `..` and links.
    ///
    /// ```no_run
    /// # use forkpool::{Pool, Response};
    /// # fn main() -> forkpool::Result<()> {
    /// Pool::bind("127.0.0.1:8000").serve(|request| match request.path() {
    ///     "/manual.pdf" => Response::file(request, "/srv/manual.pdf").unwrap_or_else(|_| Response::new(404)),
    ///     _ => Response::new(404),
    /// })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If the file cannot be opened, or is not a regular file ([`InvalidInput`](io::ErrorKind::InvalidInput)).
    pub fn file(request: &Request<'_>, path: impl AsRef<Path>) -> io::Result<Response> {
        let path = path.as_ref();
        let representation =
            Representation { content_type: media_type(path.as_os_str().as_bytes()).into(), coding: None };
        Ok(Response::of_file(request, Arc::new(Opened::open(path)?), representation))
    }

    /// A file that is already open.
    pub(crate) fn of_file(request: &Request<'_>, opened: Arc<Opened>, representation: Representation) -> Response {
        let (head, file) = file::respond(request, opened, representation);
        Response { head, body: file.map_or(Body::Bytes(Cow::Borrowed(b"")), Body::File) }
    }

    /// A whole file that is already open, with a status.
    pub(crate) fn of_whole_file(status: u16, opened: Arc<Opened>, representation: Representation) -> Response {
        let (head, file) = file::whole(status, opened, representation);
        Response { head, body: Body::File(file) }
    }

    /// Makes a response that receives the request's body in pieces, as they arrive, for uploads in constant memory. The
    /// request must be chosen by [`Worker::stream_bodies`](crate::Worker::stream_bodies); the body of any other request
    /// has already arrived, and comes in one piece.
    ///
    /// `take` runs on the worker's only thread, for each piece and then once with `None`, when it must return the
    /// response. It may return a response earlier: the rest of the body is then not read, and the connection is closed.
    /// It is dropped without a `None` if the client disconnects. The size of the body is not limited, not even by
    /// `max-body`: count the bytes.
    ///
    /// `take` may own what is bound to the thread, such as an `Rc`. So make the response in the handler; one that
    /// another thread has made for a [`Responder`](crate::Responder) counts as a panic.
    ///
    /// A handler that returns another kind of response to such a request refuses the body: it is not read, and the
    /// connection is closed.
    ///
    /// ```
    /// # use forkpool::Response;
    /// let mut length = 0;
    /// let response = Response::receive(move |piece| match piece {
    ///     Some(piece) => {
    ///         length += piece.len();
    ///         None
    ///     }
    ///     None => Some(Response::text(format!("{length} bytes\n"))),
    /// });
    /// # drop(response);
    /// ```
    pub fn receive(mut take: impl FnMut(Option<&[u8]>) -> Option<Response> + 'static) -> Response {
        let receiver = Receiver::new(move |piece| match take(piece) {
            // At the end there is nothing to wait for.
            None if piece.is_none() => Some(Response::text("the server failed to answer\n").status(500)),
            answer => answer,
        });
        Response { body: Body::Receive(receiver), ..Response::new(200) }
    }

    /// Makes a 200 response whose body is written while it is sent, by any thread. See [`BodyWriter`].
    ///
    /// The body is chunked in HTTP/1.1; in HTTP/1.0 it ends when the connection is closed.
    ///
    /// # Panics
    ///
    /// If the media type is not a valid field value.
    pub fn stream(content_type: impl Into<Cow<'static, str>>) -> (BodyWriter, Response) {
        let (writer, reader) = stream::pair(None);
        (writer, Response::with(content_type, Body::Stream(reader)))
    }

    /// As [`stream`](Response::stream), with a Trailer field that announces which fields may follow the body; see
    /// [`BodyWriter::add_trailer`]. A client that does not accept trailers gets neither.
    ///
    /// ```
    /// # use std::io::Write;
    /// # use forkpool::Response;
    /// let (mut body, response) = Response::stream_with_trailers("text/csv", &["Server-Timing"]);
    /// std::thread::spawn(move || {
    ///     if body.write_all(b"a,b\n1,2\n").is_ok() {
    ///         body.add_trailer("Server-Timing", "db;dur=53").expect("a valid field");
    ///     }
    /// });
    /// # drop(response);
    /// ```
    ///
    /// # Panics
    ///
    /// If the media type is not a valid field value, or a name is not allowed in a trailer.
    pub fn stream_with_trailers(content_type: impl Into<Cow<'static, str>>, names: &[&str]) -> (BodyWriter, Response) {
        let mut announced = String::new();
        for name in names {
            if let Err(error) = announce_trailer(&mut announced, name) {
                panic!("{error}");
            }
        }
        let (writer, reader) = stream::pair((!announced.is_empty()).then(|| announced.into()));
        (writer, Response::with(content_type, Body::Stream(reader)))
    }

    /// Makes a 101 response: passes the connection to `take_over`, to speak `protocol` on it (RFC 9110 section 7.8).
    ///
    /// `take_over` runs on the worker's only thread, once the response is sent. The connection then belongs to the
    /// application, so move it to its own thread. The server applies no timeouts to it. A drain waits until it is
    /// dropped, and notifies it.
    ///
    /// If the request did not offer this protocol, or was HEAD, the client gets 426 instead.
    ///
    /// # Panics
    ///
    /// If the protocol's name is not a valid field value.
    pub fn upgrade(protocol: &str, take_over: impl FnOnce(Upgraded) + Send + 'static) -> Response {
        assert!(is_value(protocol.as_bytes()), "the protocol {protocol:?} is no valid field value");
        Response {
            head: ResponseHead::new(426, None),
            body: Body::Upgrade(Box::new(Upgrade { protocol: protocol.to_owned(), take_over: Box::new(take_over) })),
        }
    }

    // The compiler checks the media type if it is a constant.
    #[inline(always)]
    fn with(content_type: impl Into<Cow<'static, str>>, body: impl Into<Body>) -> Response {
        Response { head: ResponseHead::with(content_type.into()), body: body.into() }
    }

    /// Sets the status.
    ///
    /// # Panics
    ///
    /// Unless the status is between 200 and 599.
    pub fn status(mut self, status: u16) -> Response {
        self.head.set_status(status);
        self
    }

    /// Adds a header field. A Content-Type replaces an earlier one.
    ///
    /// # Panics
    ///
    /// If [`try_header`](Response::try_header) would fail; in a handler that becomes a 500. Use `try_header` for values
    /// from outside.
    pub fn header(self, name: &str, value: &str) -> Response {
        match self.try_header(name, value) {
            Ok(response) => response,
            Err(error) => panic!("{error}"),
        }
    }

    /// Adds a header field. A Content-Type replaces an earlier one.
    ///
    /// # Errors
    ///
    /// If the name is not a token, if the value contains a control character (CR and LF would start another field, or
    /// another response), or if the server sets the field itself (Content-Length, Connection, Date, …). For an Upgrade
    /// field, the server adds the matching Connection.
    pub fn try_header(mut self, name: &str, value: &str) -> Result<Response, InvalidHeader> {
        if matches!(self.body, Body::Upgrade(_)) && name.eq_ignore_ascii_case("upgrade") {
            return Err(InvalidHeader::servers_own(name));
        }
        self.head.add(name, value)?;
        Ok(self)
    }

    /// Closes the connection after this response.
    pub fn close(mut self) -> Response {
        self.head.close = true;
        self
    }
}

impl From<Cow<'static, [u8]>> for Body {
    fn from(bytes: Cow<'static, [u8]>) -> Body {
        Body::Bytes(bytes)
    }
}

fn from_text(text: Cow<'static, str>) -> Cow<'static, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}
