//! Encodes responses.

use std::io::Write as _;

use super::date::CommonFields;
use super::response::ResponseHead;

/// The interim response to a client that waits before it sends a body (RFC 9110 section 15.2.1).
pub(crate) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// How a response's body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is none: 204, 304.
    None,
    Length(u64),
    Chunked,
    /// By the end of the connection.
    Close,
}

/// The value of the Connection field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Connection {
    /// None: the default of HTTP/1.1.
    Implied,
    /// HTTP/1.0 needs it.
    KeepAlive,
    Close,
}

/// Renders the heads of a worker's responses.
///
/// Most heads equal an earlier one except for the length of the body. So a rendered head is kept, and copied for a
/// response with the same fields.
#[derive(Clone, Debug)]
pub(crate) struct Encoder {
    common: CommonFields,
    kept: Option<Kept>,
    /// The number of heads that differed from the kept one.
    unlike: u32,
}

/// Of this many heads that differ from the kept one, one replaces it. If no two heads are alike, trying costs next to
/// nothing.
const TRY_EVERY: u32 = 16;

/// A rendered head, and what it was rendered from.
#[derive(Clone, Debug)]
struct Kept {
    rendered: Vec<u8>,
    /// Where the fields begin that frame the body.
    fields: usize,
    head: ResponseHead,
    framing: Framing,
    connection: Connection,
}

impl Encoder {
    pub(crate) fn new(common: CommonFields) -> Encoder {
        Encoder { common, kept: None, unlike: 0 }
    }

    /// Renders the Date for a second since 1970.
    pub(crate) fn refresh(&mut self, second: u64) {
        self.common.refresh(second);
        self.kept = None;
    }

    /// Appends the head of a response. It is always HTTP/1.1, the server's version (RFC 9110 section 6.2).
    #[inline]
    pub(super) fn head(&mut self, head: &ResponseHead, framing: Framing, connection: Connection, out: &mut Vec<u8>) {
        match &self.kept {
            Some(kept) if kept.connection == connection && kept.head.renders_as(head) => {
                if kept.framing == framing {
                    out.extend_from_slice(&kept.rendered);
                } else {
                    out.extend_from_slice(&kept.rendered[..kept.fields]);
                    append_framing(framing, out);
                }
            }
            _ => self.render(head, framing, connection, out),
        }
    }

    fn render(&mut self, head: &ResponseHead, framing: Framing, connection: Connection, out: &mut Vec<u8>) {
        let start = out.len();
        append_fields(head, connection, &self.common, out);
        let fields = out.len() - start;
        append_framing(framing, out);
        self.unlike = self.unlike.wrapping_add(1);
        if self.kept.is_none() || self.unlike % TRY_EVERY == 0 {
            self.kept = Some(Kept { rendered: out[start..].to_vec(), fields, head: head.clone(), framing, connection });
        }
    }

    /// Appends the response that changes the protocol (RFC 9110 section 15.2.2).
    pub(super) fn switching(&self, head: &ResponseHead, protocol: &str, out: &mut Vec<u8>) {
        self.upgrade("101 Switching Protocols", &["Connection: Upgrade\r\n"], head, protocol, out);
    }

    /// Appends the response that requires a change of the protocol (RFC 9110 section 15.5.22).
    pub(super) fn requiring(&self, head: &ResponseHead, protocol: &str, out: &mut Vec<u8>) {
        let fields = ["Connection: close, Upgrade\r\n", "Content-Length: 0\r\n"];
        self.upgrade("426 Upgrade Required", &fields, head, protocol, out);
    }

    fn upgrade(&self, status: &str, fields: &[&str], head: &ResponseHead, protocol: &str, out: &mut Vec<u8>) {
        for part in ["HTTP/1.1 ", status, "\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
        out.extend_from_slice(self.common.rendered());
        out.extend_from_slice(&head.fields);
        for part in fields.iter().chain(&["Upgrade: ", protocol, "\r\n\r\n"]) {
            out.extend_from_slice(part.as_bytes());
        }
    }
}

/// Appends the head of a response up to the fields that frame the body.
fn append_fields(head: &ResponseHead, connection: Connection, common: &CommonFields, out: &mut Vec<u8>) {
    out.reserve(HEAD_GUESS + head.fields.len());
    match head.status {
        200 => out.extend_from_slice(common.behind_ok()),
        status => {
            out.extend_from_slice(b"HTTP/1.1 ");
            match reason(status) {
                Some(line) => out.extend_from_slice(line.as_bytes()),
                None => {
                    out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
                    out.push(b' ');
                }
            }
            out.extend_from_slice(b"\r\n");
            out.extend_from_slice(common.rendered());
        }
    }
    out.extend_from_slice(&head.fields);
    if let Some(content_type) = &head.content_type {
        out.extend_from_slice(b"Content-Type: ");
        out.extend_from_slice(content_type.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    match connection {
        Connection::Implied => {}
        Connection::KeepAlive => out.extend_from_slice(b"Connection: keep-alive\r\n"),
        Connection::Close => out.extend_from_slice(b"Connection: close\r\n"),
    }
}

/// Appends the rest of a head: the fields that frame the body, and the empty line.
fn append_framing(framing: Framing, out: &mut Vec<u8>) {
    match framing {
        Framing::None | Framing::Close => out.extend_from_slice(b"\r\n"),
        Framing::Length(length) => {
            out.extend_from_slice(b"Content-Length: ");
            out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
            out.extend_from_slice(b"\r\n\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n"),
    }
}

/// Appends a chunk of a chunked body (RFC 9112 section 7.1). Omits an empty chunk, which would end the body.
pub(crate) fn chunk(data: &[u8], out: &mut Vec<u8>) {
    if !data.is_empty() {
        write!(out, "{:x}\r\n", data.len()).expect("a Vec takes all that is written");
        out.extend_from_slice(data);
        out.extend_from_slice(b"\r\n");
    }
}

/// Appends the end of a chunked body, with rendered trailers.
pub(crate) fn last_chunk(trailers: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    out.extend_from_slice(trailers);
    out.extend_from_slice(b"\r\n");
}

/// The length of an ordinary head, so that one allocation is enough.
const HEAD_GUESS: usize = 256;

/// Status code and reason phrase, as registered (RFC 9110 section 15 and the IANA registry).
fn reason(status: u16) -> Option<&'static str> {
    Some(match status {
        200 => "200 OK",
        201 => "201 Created",
        202 => "202 Accepted",
        203 => "203 Non-Authoritative Information",
        204 => "204 No Content",
        205 => "205 Reset Content",
        206 => "206 Partial Content",
        207 => "207 Multi-Status",
        208 => "208 Already Reported",
        226 => "226 IM Used",
        300 => "300 Multiple Choices",
        301 => "301 Moved Permanently",
        302 => "302 Found",
        303 => "303 See Other",
        304 => "304 Not Modified",
        305 => "305 Use Proxy",
        307 => "307 Temporary Redirect",
        308 => "308 Permanent Redirect",
        400 => "400 Bad Request",
        401 => "401 Unauthorized",
        402 => "402 Payment Required",
        403 => "403 Forbidden",
        404 => "404 Not Found",
        405 => "405 Method Not Allowed",
        406 => "406 Not Acceptable",
        407 => "407 Proxy Authentication Required",
        408 => "408 Request Timeout",
        409 => "409 Conflict",
        410 => "410 Gone",
        411 => "411 Length Required",
        412 => "412 Precondition Failed",
        413 => "413 Content Too Large",
        414 => "414 URI Too Long",
        415 => "415 Unsupported Media Type",
        416 => "416 Range Not Satisfiable",
        417 => "417 Expectation Failed",
        421 => "421 Misdirected Request",
        422 => "422 Unprocessable Content",
        423 => "423 Locked",
        424 => "424 Failed Dependency",
        425 => "425 Too Early",
        426 => "426 Upgrade Required",
        428 => "428 Precondition Required",
        429 => "429 Too Many Requests",
        431 => "431 Request Header Fields Too Large",
        451 => "451 Unavailable For Legal Reasons",
        500 => "500 Internal Server Error",
        501 => "501 Not Implemented",
        502 => "502 Bad Gateway",
        503 => "503 Service Unavailable",
        504 => "504 Gateway Timeout",
        505 => "505 HTTP Version Not Supported",
        506 => "506 Variant Also Negotiates",
        507 => "507 Insufficient Storage",
        508 => "508 Loop Detected",
        511 => "511 Network Authentication Required",
        _ => return None,
    })
}
