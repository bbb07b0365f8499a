//! Responses to requests: how they are framed, and which is the connection's last.

use super::codec::{Codec, Phase};
use super::encode::{self, Connection, Encoder};
use super::ending::Ending;
use super::response::ResponseHead;
use super::response_mode::Speaks;
use super::Reject;

/// The length of a response's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    Known(u64),
    /// Not known in advance.
    Unknown,
}

/// How to send the body of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transfer {
    /// Not at all: the request was HEAD, or the status allows no body.
    Nothing,
    AsIs,
    /// In [`chunk`](super::chunk)s, with [`last_chunk`](super::last_chunk) at the end.
    Chunked,
}

impl Codec {
    /// Appends the head of the response to the current request; returns how to send its body.
    #[inline]
    pub(crate) fn respond(
        &mut self,
        head: &ResponseHead,
        length: Length,
        encoder: &mut Encoder,
        out: &mut Vec<u8>,
    ) -> Transfer {
        // RFC 9110 sections 8.6, 15.3.6 and 15.4.5: no length in a 204, only zero in a 205, and none needed in a 304.
        let has_none = matches!(head.status, 204 | 205 | 304);
        let framing = match length {
            _ if has_none && head.status == 205 => encode::Framing::Length(0),
            _ if has_none => encode::Framing::None,
            // For HEAD a handler need not make the body, whose length is then unknown (section 8.6).
            Length::Known(0) if self.mode.is_head => encode::Framing::None,
            Length::Known(length) => encode::Framing::Length(length),
            Length::Unknown if self.mode.speaks == Speaks::Http10 => encode::Framing::Close,
            Length::Unknown => encode::Framing::Chunked,
        };
        let is_delimiter = framing == encode::Framing::Close;
        // The rest of a body is not read, and must not be taken for a request.
        let is_last = is_delimiter || self.is_streaming || head.close || !self.mode.keep_alive;
        if is_last {
            self.ending = Ending::last(self.is_streaming, is_delimiter && !self.mode.is_head);
        }
        let connection = match self.mode.speaks {
            _ if is_last => Connection::Close,
            Speaks::Http10 => Connection::KeepAlive,
            Speaks::Http11 | Speaks::Http11WithTrailers => Connection::Implied,
        };
        encoder.head(head, framing, connection, out);
        self.is_streaming = false;
        if self.partial.is_some() {
            self.partial = None;
        }
        self.phase = Phase::Idle;
        match framing {
            _ if has_none || self.mode.is_head => Transfer::Nothing,
            encode::Framing::Chunked => Transfer::Chunked,
            _ => Transfer::AsIs,
        }
    }

    /// Whether the client has offered this protocol with the current request. The rest of a body would be taken for the
    /// other protocol (RFC 9110 section 7.8), and a response to HEAD has no content.
    pub(crate) fn may_upgrade(&self, protocol: &str) -> bool {
        let offered = self.partial.as_ref().map(|partial| &partial.offered[..]).unwrap_or_default();
        let mut offered = offered.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        let may = self.mode.upgrade && !self.mode.is_head && !self.is_streaming;
        may && !protocol.is_empty() && offered.any(|one| one.eq_ignore_ascii_case(protocol.as_bytes()))
    }

    /// Appends the response that changes the protocol. What follows does not concern this codec.
    pub(crate) fn upgrade(&mut self, head: &ResponseHead, protocol: &str, encoder: &Encoder, out: &mut Vec<u8>) {
        encoder.switching(head, protocol, out);
        self.partial = None;
        self.phase = Phase::Idle;
    }

    /// Appends the response to a client that should have offered to change the protocol (RFC 9110 section 15.5.22).
    pub(crate) fn require_upgrade(
        &mut self,
        head: &ResponseHead,
        protocol: &str,
        encoder: &Encoder,
        out: &mut Vec<u8>,
    ) {
        self.ending = Ending::last(self.is_streaming, false);
        self.is_streaming = false;
        self.partial = None;
        self.phase = Phase::Idle;
        encoder.requiring(head, protocol, out);
    }

    /// Appends the response to a broken rule, which is the connection's last.
    pub(crate) fn reject(&mut self, reject: Reject, encoder: &mut Encoder, out: &mut Vec<u8>) -> usize {
        self.ending = Ending::last(true, false);
        self.is_streaming = false;
        self.partial = None;
        self.phase = Phase::Idle;
        let mut head = ResponseHead::new(reject.status(), Some("text/plain; charset=utf-8".into()));
        if reject == Reject::NoRoom {
            head.add_valid("Retry-After", "1");
        }
        let reason = reject.reason().as_bytes();
        let framing = encode::Framing::Length(reason.len() as u64);
        encoder.head(&head, framing, Connection::Close, out);
        let content = if self.mode.is_head { b"" } else { reason };
        out.extend_from_slice(content);
        content.len()
    }
}
