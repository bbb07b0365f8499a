//! Why a request is refused.

/// A rule that a client has broken. Each has one response, and each ends the connection, since what follows cannot be
/// trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reject {
    /// RFC 9112 section 2.2: a line ends in CRLF; two parsers may disagree about a lone LF.
    LineEnd,
    /// RFC 9112 section 3: `method SP request-target SP HTTP-version`.
    RequestLine,
    /// RFC 9110 section 9.1: a method is a token.
    Method,
    /// RFC 9112 section 3: a method longer than any that is implemented.
    LongMethod,
    /// RFC 9112 section 2.3: `HTTP/1.` and a digit.
    Version,
    /// RFC 9112 section 3.2: origin, absolute or asterisk form, ASCII, no fragment.
    Target,
    TargetTooLong,
    /// CONNECT, RFC 9110 section 9.3.6: this is no proxy.
    Connect,
    /// RFC 9112 section 5: a token, immediately followed by a colon; a value without control characters; no folding.
    Field,
    HeadTooLarge,
    TooManyFields,
    /// RFC 9112 section 3.2: exactly one, and valid.
    Host,
    /// RFC 9112 section 6.2: one number in decimal digits.
    ContentLength,
    /// RFC 9112 section 6.1: `chunked`, once, last, and not in HTTP/1.0.
    TransferEncoding,
    /// RFC 9112 section 6.1: a coding that is not implemented.
    TransferCoding,
    /// RFC 9112 section 6.3: never both.
    TwoLengths,
    /// RFC 9110 section 10.1.1: `100-continue` is the only expectation.
    Expectation,
    BodyTooLarge,
    /// RFC 9112 section 7.1: chunk size, extensions, line ends.
    Chunk,
    /// RFC 9112 section 7.1.2.
    Trailer,
    HeadTimeout,
    BodyTimeout,
    /// There is no memory for the rest of the request (RFC 9110 section 15.6.4).
    NoRoom,
}

impl Reject {
    /// The status of the response.
    pub(crate) fn status(self) -> u16 {
        match self {
            Reject::Version => 505,
            Reject::LongMethod | Reject::Connect | Reject::TransferCoding => 501,
            Reject::HeadTooLarge | Reject::TooManyFields => 431,
            Reject::Expectation => 417,
            Reject::TargetTooLong => 414,
            Reject::BodyTooLarge => 413,
            Reject::HeadTimeout | Reject::BodyTimeout => 408,
            Reject::NoRoom => 503,
            _ => 400,
        }
    }

    /// The text for the client.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Reject::LineEnd => "a line does not end in CRLF\n",
            Reject::RequestLine => "the request line is malformed\n",
            Reject::Method => "the method is malformed\n",
            Reject::LongMethod => "the method is not implemented\n",
            Reject::Version => "only HTTP/1.0 and HTTP/1.1 are spoken here\n",
            Reject::Target => "the request target is malformed\n",
            Reject::TargetTooLong => "the request target is too long\n",
            Reject::Connect => "this server is no proxy\n",
            Reject::Field => "a header field is malformed\n",
            Reject::HeadTooLarge => "the request head is too large\n",
            Reject::TooManyFields => "the request has too many header fields\n",
            Reject::Host => "the request needs exactly one valid Host\n",
            Reject::ContentLength => "Content-Length is malformed\n",
            Reject::TransferEncoding => "Transfer-Encoding is not acceptable\n",
            Reject::TransferCoding => "the transfer coding is not implemented\n",
            Reject::TwoLengths => "Content-Length and Transfer-Encoding exclude each other\n",
            Reject::Expectation => "the expectation cannot be met\n",
            Reject::BodyTooLarge => "the request body is too large\n",
            Reject::Chunk => "the chunked body is malformed\n",
            Reject::Trailer => "the trailer section is malformed\n",
            Reject::HeadTimeout => "the request head took too long\n",
            Reject::BodyTimeout => "the request body took too long\n",
            Reject::NoRoom => "the server holds as much as it may: try again later\n",
        }
    }
}
