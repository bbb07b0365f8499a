//! PURE. Bytes to requests, responses to bytes.

/// What the codec accepts from a client.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Bytes of a request's target; beyond it 414.
    pub(crate) target: usize,
    /// Bytes of a request's head, from the method to the empty line; beyond it 431.
    pub(crate) head: usize,
    /// Header fields of a request; beyond it 431.
    pub(crate) fields: usize,
    /// Bytes of a request's body; beyond it 413.
    pub(crate) body: usize,
    /// Requests on one connection before it is closed; zero is no limit.
    pub(crate) requests: u64,
}
