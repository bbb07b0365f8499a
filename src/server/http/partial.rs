//! A request whose body arrives in pieces.

use super::body::{Chunked, Decoder};
use super::message::Framing;

/// A request whose body is incomplete or chunked.
#[derive(Debug)]
pub(super) struct PartialRequest {
    pub(super) head: Vec<u8>,
    pub(super) decoder: Decoder,
    pub(super) body: Vec<u8>,
    /// For a body that is received as it arrives: whether the client waits for 100 (Continue), and whether the last
    /// piece was passed on.
    pub(super) waits: bool,
    pub(super) is_done: bool,
    /// The protocols to which the client offers to change, as a list.
    pub(super) offered: Vec<u8>,
}

impl PartialRequest {
    pub(super) fn new(head: Vec<u8>, framing: Framing) -> Box<PartialRequest> {
        let decoder = match framing {
            Framing::Length(left) => Decoder::Length { left },
            Framing::Chunked => Decoder::Chunked(Chunked::default()),
        };
        Box::new(PartialRequest {
            head,
            decoder,
            body: Vec::new(),
            waits: false,
            is_done: framing == Framing::Length(0),
            offered: Vec::new(),
        })
    }
}
