//! Reads a connection, and buffers what is incomplete.

use std::io::{self, ErrorKind};
use std::ops::Range;

use super::linger;
use super::proxied::refuse;
use super::session::{Answered, Header};
use super::{Connection, Step};
use crate::server::context::Context;
use crate::server::http::{Phase, Reject};

impl Connection {
    /// Copies what was buffered to the front of the shared buffer, and reads once after it; returns the total length.
    #[inline]
    pub(super) fn fill(&mut self, cx: &mut Context<'_>) -> io::Result<usize> {
        let len = if self.buffers.is_some() { self.buffers.take_input(&mut cx.input) } else { 0 };
        if !self.transport.is_readable() || cx.input.len() == len {
            return Ok(len);
        }
        if self.session.exchange.is_receiving() && !self.session.exchange.check_room(&cx.waker) {
            return if self.transport.is_broken() { Err(ErrorKind::ConnectionReset.into()) } else { Ok(len) };
        }
        if self.session.codec.phase() == Phase::Body && self.session.lacks_room(cx) {
            // An end of file needs no memory.
            match self.transport.is_ending() && !self.transport.client.has_bytes() {
                true => {}
                false if self.transport.is_broken() => return Err(ErrorKind::ConnectionReset.into()),
                false => {
                    self.timer.wait_for_room(cx);
                    return Ok(len);
                }
            }
        }
        Ok(len + self.transport.read(&mut cx.input[len..])?)
    }

    #[inline]
    pub(super) fn keep_input(&mut self, read: &Answered, len: usize, cx: &mut Context<'_>) {
        if read.consumed < len && !self.session.codec.ending.is_last() {
            self.keep_rest(read, len, cx);
        }
    }

    fn keep_rest(&mut self, read: &Answered, len: usize, cx: &mut Context<'_>) {
        let rest = read.consumed..len;
        // What follows an unanswered request must not be refused before that is answered.
        if self.session.codec.phase() == Phase::Head
            && !read.is_cut_short
            && !read.has_outgoing
            && !cx.memory.budget.has_room(rest.len())
        {
            return self.session.refuse(Reject::NoRoom, rest, cx);
        }
        self.buffers.keep_input(&cx.input[rest]);
    }

    /// Removes the header of the PROXY protocol from the first `len` bytes of the buffer. Returns where the client's
    /// bytes are, or what to do with the connection while there are none.
    #[cold]
    pub(super) fn take_header(&mut self, len: usize, cx: &mut Context<'_>) -> Result<Range<usize>, Step> {
        match self.session.take_header(len, cx) {
            Header::Complete(start) if self.transport.client.begin_tls(&cx.input[start..len]) => {
                self.transport.look();
                self.transport.read(&mut cx.input).map(|len| 0..len).map_err(|_| linger::failed(self, cx))
            }
            Header::Complete(start) => Ok(start..len),
            Header::Incomplete { keep } => {
                if keep > 0 {
                    self.buffers.keep_input(&cx.input[..keep]);
                }
                Err(self.transport.wait())
            }
            Header::Invalid(problem) => {
                refuse(self.session.peer.address(), problem, cx);
                Err(Step::Close)
            }
        }
    }
}
