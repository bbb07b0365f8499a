//! PURE. The limits of the codec.
#![forbid(unsafe_code)]

/// The maximum of `fields`: the stack has room for this number.
pub(crate) const FIELDS_MAX: usize = 128;

/// What the codec accepts from a client.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// The maximum length of a request target in bytes; a longer one gets 414.
    pub(crate) target: usize,
    /// The maximum length of a request head in bytes, from the method to the empty line; a longer one gets 431. Also
    /// the limit for the trailer section of a body.
    pub(crate) head: usize,
    /// The maximum number of header fields, at most [`FIELDS_MAX`]; a request with more gets 431.
    pub(crate) fields: usize,
    /// The maximum length of a request body in bytes; a longer one gets 413.
    pub(crate) body: usize,
    /// The number of requests after which a connection is closed; zero is no limit.
    pub(crate) requests: u64,
    /// Whether a query may hold non-ASCII characters, in UTF-8.
    pub(crate) utf8_query: bool,
}
