//! Bodies that are received as they arrive, and the memory of gathered ones.

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
        self.gathered.is_some()
    }

    /// How much memory the rest of a body needs in addition to what it has.
    pub(crate) fn room_needed(&self) -> usize {
        let gathered = self.gathered.as_ref().filter(|_| !self.is_streaming);
        gathered.map_or(0, |gathered| gathered.decoder.room_needed(&gathered.body))
    }

    /// How much memory that takes.
    pub(crate) fn held(&self) -> usize {
        self.gathered.as_ref().map_or(0, |gathered| gathered.head.capacity() + gathered.body.capacity())
    }

    /// The head of a request whose body is incomplete.
    pub(crate) fn gathered_head(&self) -> Option<&[u8]> {
        self.gathered.as_ref().map(|gathered| &gathered.head[..])
    }

    /// Whether the client of such a request waits for 100 (Continue). Returned once.
    pub(crate) fn take_waits(&mut self) -> bool {
        self.gathered.as_mut().is_some_and(|gathered| std::mem::take(&mut gathered.waits))
    }

    /// Takes the next piece of a body from the front of `input`. The body may have any length.
    pub(crate) fn next_piece<'a>(&'a mut self, input: &'a [u8], limits: &Limits) -> (usize, Piece<'a>) {
        let Some(gathered) = self.gathered.as_mut().filter(|gathered| !gathered.is_done) else {
            self.is_streaming = false;
            return (0, Piece::End);
        };
        if let Decoder::Length { left } = &mut gathered.decoder {
            let taken = input.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= taken as u64;
            gathered.is_done = *left == 0;
            return (taken, if taken == 0 { Piece::NeedMore } else { Piece::Data(&input[..taken]) });
        }
        gathered.body.clear();
        let unlimited = Limits { body: usize::MAX, ..limits.clone() };
        match gathered.decoder.decode(input, &mut gathered.body, &unlimited) {
            Err(reject) => (input.len(), Piece::Reject(reject)),
            Ok((taken, is_done)) => {
                gathered.is_done = is_done;
                if is_done && gathered.body.is_empty() {
                    self.is_streaming = false;
                    return (taken, Piece::End);
                }
                (taken, if gathered.body.is_empty() { Piece::NeedMore } else { Piece::Data(&gathered.body) })
            }
        }
    }
}
