//! What a head says.

use super::request::Request;

/// What a head says.
#[derive(Debug)]
pub(super) struct Head<'a> {
    /// In slices of the head, and still without its body.
    pub(super) request: &'a mut Request<'a>,
    pub(super) framing: Framing,
    pub(super) keep_alive: bool,
    /// The client waits for 100 (Continue) before it sends the body.
    pub(super) expects_continue: bool,
    /// Both Upgrade and `Connection: upgrade` are there.
    pub(super) upgrade: bool,
}

impl Head<'_> {
    /// The protocols that the client offers to change to: the values of Upgrade, as one list.
    pub(super) fn offered(&self) -> Vec<u8> {
        let fields = self.request.headers().filter(|(name, _)| self.upgrade && name.eq_ignore_ascii_case("Upgrade"));
        fields.flat_map(|(_, value)| [value, b","]).collect::<Vec<_>>().concat()
    }
}

/// How the body behind a head is delimited (RFC 9112 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// By its length; zero when there is none.
    Length(u64),
    Chunked,
}
