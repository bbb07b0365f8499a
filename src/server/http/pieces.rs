//! Bodies that are received as they arrive, and the memory of those that are collected.

use super::body::Decoder;
use super::codec::Codec;
use super::{Limits, Reject};

/// The next piece of a body that is received as it arrives.
#[derive(Debug)]
pub(crate) enum Piece<'a> {
    NeedMore,
    Data(&'a [u8]),
    /// It was the last one. Call [`Codec::respond`] next.
    End,
    /// A broken rule. Call [`Codec::reject`] next.
    Reject(Reject),
}

impl Codec {
    /// Whether the current request has a body that must still be received.
    pub(crate) fn is_streaming(&self) -> bool {
        self.is_streaming
    }

    /// Whether a part of a request is kept here.
    #[inline]
    pub(crate) fn is_gathering(&self) -> bool {
        self.partial.is_some()
    }

    /// How much memory the rest of a body needs in addition to what it has.
    pub(crate) fn room_needed(&self) -> usize {
        let partial = self.partial.as_ref().filter(|_| !self.is_streaming);
        partial.map_or(0, |partial| partial.decoder.room_needed(&partial.body))
    }

    /// How much memory that takes.
    pub(crate) fn held(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| partial.head.capacity() + partial.body.capacity())
    }

    /// The head of a request whose body is incomplete.
    pub(crate) fn partial_head(&self) -> Option<&[u8]> {
        self.partial.as_ref().map(|partial| &partial.head[..])
    }

    /// Whether the client of such a request waits for 100 (Continue). Returned once.
    pub(crate) fn take_waits(&mut self) -> bool {
        self.partial.as_mut().is_some_and(|partial| std::mem::take(&mut partial.waits))
    }

    /// Takes the next piece of a body from the front of `input`. The body may have any length.
    pub(crate) fn next_piece<'a>(&'a mut self, input: &'a [u8], limits: &Limits) -> (usize, Piece<'a>) {
        let Some(partial) = self.partial.as_mut().filter(|partial| !partial.is_done) else {
            self.is_streaming = false;
            return (0, Piece::End);
        };
        if let Decoder::Length { left } = &mut partial.decoder {
            let taken = input.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= taken as u64;
            partial.is_done = *left == 0;
            return (taken, if taken == 0 { Piece::NeedMore } else { Piece::Data(&input[..taken]) });
        }
        partial.body.clear();
        let unlimited = Limits { body: usize::MAX, ..limits.clone() };
        match partial.decoder.decode(input, &mut partial.body, &unlimited) {
            Err(reject) => (input.len(), Piece::Reject(reject)),
            Ok((taken, is_done)) => {
                partial.is_done = is_done;
                if is_done && partial.body.is_empty() {
                    self.is_streaming = false;
                    return (taken, Piece::End);
                }
                (taken, if partial.body.is_empty() { Piece::NeedMore } else { Piece::Data(&partial.body) })
            }
        }
    }
}
