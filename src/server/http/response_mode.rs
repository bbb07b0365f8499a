//! What a request implies for its response.

use super::message::Head;
use super::request::{Request, Version};
use super::Limits;

/// After this many requests, the response to the next one is the last, whatever the limit.
const BEFORE_LAST: u32 = u32::MAX - 1;

/// What the current request implies for its response.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ResponseMode {
    pub(super) is_head: bool,
    pub(super) keep_alive: bool,
    /// Whether the client wants to change the protocol (RFC 9110 section 7.8).
    pub(super) upgrade: bool,
    pub(super) speaks: Speaks,
    /// The number of requests so far.
    requests: u32,
}

/// What the client supports in a response; in one byte, since each connection has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaks {
    Http10,
    Http11,
    /// HTTP/1.1, and it accepts trailers.
    Http11WithTrailers,
}

impl Default for ResponseMode {
    fn default() -> ResponseMode {
        ResponseMode { is_head: false, keep_alive: false, upgrade: false, speaks: Speaks::Http11, requests: 0 }
    }
}

impl ResponseMode {
    /// Nothing, after this many requests.
    pub(super) fn after(requests: u32) -> ResponseMode {
        ResponseMode { requests, ..ResponseMode::default() }
    }

    /// The number of requests so far.
    pub(crate) fn requests(&self) -> u32 {
        self.requests
    }

    /// Makes the next response the connection's last.
    #[inline]
    pub(crate) fn end_after_answer(&mut self) {
        self.keep_alive = false;
    }

    /// The response to the next request is the last.
    pub(crate) fn end_after_next(&mut self) {
        *self = ResponseMode::after(BEFORE_LAST);
    }

    /// Sets whether the client accepts trailers in the response to the current request.
    pub(crate) fn take_trailers(&mut self, takes: bool) {
        if takes && self.speaks == Speaks::Http11 {
            self.speaks = Speaks::Http11WithTrailers;
        }
    }

    /// Whether trailers can be sent with the response to the current request.
    pub(crate) fn takes_trailers(&self) -> bool {
        self.speaks == Speaks::Http11WithTrailers
    }

    /// Whether interim responses can be sent before it (RFC 9110 section 15.2).
    pub(crate) fn takes_interim(&self) -> bool {
        self.speaks != Speaks::Http10
    }

    /// Another request is passed on.
    #[inline]
    pub(super) fn learn(&mut self, head: &Head<'_>, limits: &Limits) {
        let Request { method, version, .. } = *head.request;
        let requests = self.requests.saturating_add(1);
        // No limit is the highest one.
        let is_limit = u64::from(requests) > limits.requests.wrapping_sub(1).min(BEFORE_LAST.into());
        *self = ResponseMode {
            is_head: method == "HEAD",
            keep_alive: head.keep_alive && !is_limit,
            upgrade: head.upgrade && version == Version::Http11,
            speaks: if version == Version::Http11 { Speaks::Http11 } else { Speaks::Http10 },
            requests,
        };
    }
}
