//! The meaning of a head.

use super::request::Request;

/// The meaning of a head.
#[derive(Debug)]
pub(super) struct Head<'a> {
    /// As slices of the head, and without its body.
    pub(super) request: &'a mut Request<'a>,
    pub(super) framing: Framing,
    pub(super) keep_alive: bool,
    /// Whether the client waits for 100 (Continue) before it sends the body.
    pub(super) expects_continue: bool,
    /// Whether it has both Upgrade and `Connection: upgrade`.
    pub(super) upgrade: bool,
}

impl Head<'_> {
    /// The protocols to which the client offers to change: the values of Upgrade, as one list.
    #[inline(always)]
    pub(super) fn offered(&self) -> Vec<u8> {
        if self.upgrade {
            upgrades(self.request)
        } else {
            Vec::new()
        }
    }
}

/// Apart from the head, which otherwise would have to be in memory for every request.
#[cold]
fn upgrades(request: &Request<'_>) -> Vec<u8> {
    let fields = request.headers().filter(|(name, _)| name.eq_ignore_ascii_case("Upgrade"));
    fields.flat_map(|(_, value)| [value, b","]).collect::<Vec<_>>().concat()
}

/// How the body after a head is delimited (RFC 9112 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// By its length; zero if there is none.
    Length(u64),
    Chunked,
}
