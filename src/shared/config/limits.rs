//! PURE. What the codec accepts.
#![forbid(unsafe_code)]

/// Most header fields that a request may be allowed to have: there is room on the stack for so many.
pub(crate) const FIELDS_MAX: usize = 128;

/// What the codec accepts from a client.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Bytes of a request's target; beyond it 414.
    pub(crate) target: usize,
    /// Bytes of a request's head, from the method to the empty line; beyond it 431. Also those of a body's trailer
    /// section.
    pub(crate) head: usize,
    /// Header fields of a request, at most [`FIELDS_MAX`]; beyond it 431.
    pub(crate) fields: usize,
    /// Bytes of a request's body; beyond it 413.
    pub(crate) body: usize,
    /// Requests on one connection before it is closed; zero is no limit.
    pub(crate) requests: u64,
    /// Whether a query may be of other characters than ASCII, in UTF-8.
    pub(crate) utf8_query: bool,
}
