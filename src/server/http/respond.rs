//! The answers to requests: how they are framed, and which is the connection's last.

use super::asked::Speaks;
use super::codec::{Codec, Phase};
use super::encode::{self, Connection, Encoder};
use super::response::ResponseHead;
use super::Reject;

/// How long a response's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    Known(u64),
    /// It ends when it ends.
    Unknown,
}

/// How a response's body is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transfer {
    /// Not at all: the request was HEAD, or the status has none.
    Nothing,
    AsIs,
    /// In [`chunk`](super::chunk)s and with [`last_chunk`](super::last_chunk) at the end.
    Chunked,
}

impl Codec {
    /// Makes the next answer the connection's last.
    #[inline]
    pub(crate) fn end_after_answer(&mut self) {
        self.asked.keep_alive = false;
    }

    /// The client takes trailers with the answer to the request that was given out last.
    pub(crate) fn take_trailers(&mut self, takes: bool) {
        if takes && self.asked.speaks == Speaks::Http11 {
            self.asked.speaks = Speaks::Http11WithTrailers;
        }
    }

    /// Whether trailers can be sent with the answer to the request that was given out last.
    pub(crate) fn takes_trailers(&self) -> bool {
        self.asked.speaks == Speaks::Http11WithTrailers
    }

    /// Whether interim answers can be sent before it (RFC 9110 section 15.2).
    pub(crate) fn takes_interim(&self) -> bool {
        self.asked.speaks != Speaks::Http10
    }

    /// Appends the head of the answer to the request that was given out last, and tells how its body is to follow.
    #[inline]
    pub(crate) fn respond(
        &mut self,
        head: &ResponseHead,
        length: Length,
        encoder: &mut Encoder,
        out: &mut Vec<u8>,
    ) -> Transfer {
        // RFC 9110 sections 8.6, 15.3.6 and 15.4.5: no length in a 204, none but zero in a 205, and none needed in a
        // 304.
        let has_none = matches!(head.status, 204 | 205 | 304);
        let framing = match length {
            _ if has_none && head.status == 205 => encode::Framing::Length(0),
            _ if has_none => encode::Framing::None,
            // A handler need not make the body for HEAD, and what it would be is not known then (section 8.6).
            Length::Known(0) if self.asked.is_head => encode::Framing::None,
            Length::Known(length) => encode::Framing::Length(length),
            Length::Unknown if self.asked.speaks == Speaks::Http10 => encode::Framing::Close,
            Length::Unknown => encode::Framing::Chunked,
        };
        let is_delimiter = framing == encode::Framing::Close;
        // What is left of a body is not read, and not taken for a request either.
        self.is_closed = is_delimiter || self.is_streaming || head.close || !self.asked.keep_alive;
        let connection = match self.asked.speaks {
            _ if self.is_closed => Connection::Close,
            Speaks::Http10 => Connection::KeepAlive,
            Speaks::Http11 | Speaks::Http11WithTrailers => Connection::Implied,
        };
        encoder.head(head, framing, connection, out);
        self.is_streaming = false;
        if self.gathered.is_some() {
            self.gathered = None;
        }
        self.phase = Phase::Idle;
        match framing {
            _ if has_none || self.asked.is_head => Transfer::Nothing,
            encode::Framing::Chunked => Transfer::Chunked,
            _ => Transfer::AsIs,
        }
    }

    /// Whether the client has offered to change to the protocol with the request that was given out last. What is left of
    /// a body would be taken for the other protocol (RFC 9110 section 7.8), and an answer to HEAD has no content.
    pub(crate) fn may_upgrade(&self, protocol: &str) -> bool {
        let offered = self.gathered.as_ref().map(|gathered| &gathered.offered[..]).unwrap_or_default();
        let mut offered = offered.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        let may = self.asked.upgrade && !self.asked.is_head && !self.is_streaming;
        may && !protocol.is_empty() && offered.any(|one| one.eq_ignore_ascii_case(protocol.as_bytes()))
    }

    /// Appends the answer that changes the protocol. Whatever follows is not this codec's.
    pub(crate) fn upgrade(&mut self, head: &ResponseHead, protocol: &str, encoder: &Encoder, out: &mut Vec<u8>) {
        encoder.switching(head, protocol, out);
        self.gathered = None;
        self.phase = Phase::Idle;
    }

    /// Appends the answer to a client that should have offered to change the protocol (RFC 9110 section 15.5.22).
    pub(crate) fn require_upgrade(
        &mut self,
        head: &ResponseHead,
        protocol: &str,
        encoder: &Encoder,
        out: &mut Vec<u8>,
    ) {
        self.is_closed = true;
        self.is_streaming = false;
        self.gathered = None;
        self.phase = Phase::Idle;
        encoder.requiring(head, protocol, out);
    }

    /// Appends the answer to a broken rule, the connection's last.
    pub(crate) fn reject(&mut self, reject: Reject, encoder: &mut Encoder, out: &mut Vec<u8>) {
        self.is_closed = true;
        self.is_streaming = false;
        self.gathered = None;
        self.phase = Phase::Idle;
        let mut head = ResponseHead::new(reject.status(), Some("text/plain; charset=utf-8".into()));
        if reject == Reject::NoRoom {
            head.add_valid("Retry-After", "1");
        }
        let reason = reject.reason().as_bytes();
        let framing = encode::Framing::Length(reason.len() as u64);
        encoder.head(&head, framing, Connection::Close, out);
        if !self.asked.is_head {
            out.extend_from_slice(reason);
        }
    }
}
