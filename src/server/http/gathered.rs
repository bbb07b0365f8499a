//! A request whose body comes piece by piece.

use super::body::{Chunked, Decoder};
use super::message::Framing;

/// A request whose body has not come whole, or is chunked.
#[derive(Debug)]
pub(super) struct Gathered {
    pub(super) head: Vec<u8>,
    pub(super) decoder: Decoder,
    pub(super) body: Vec<u8>,
    /// Of a body that is taken as it comes: the client waits to be told to go on; the last piece has been given out.
    pub(super) waits: bool,
    pub(super) is_done: bool,
    /// The protocols that the client offers to change to, as a list.
    pub(super) offered: Vec<u8>,
}

impl Gathered {
    pub(super) fn new(head: Vec<u8>, framing: Framing) -> Box<Gathered> {
        let decoder = match framing {
            Framing::Length(left) => Decoder::Length { left },
            Framing::Chunked => Decoder::Chunked(Chunked::default()),
        };
        Box::new(Gathered {
            head,
            decoder,
            body: Vec::new(),
            waits: false,
            is_done: framing == Framing::Length(0),
            offered: Vec::new(),
        })
    }
}
