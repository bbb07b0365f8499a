//! Reads a connection, and keeps what is incomplete.

use std::io::{self, ErrorKind};

use super::timing::Timing;
use super::{Answered, Connection, Kept};
use crate::server::context::Context;
use crate::server::http::{Phase, Reject};

impl Connection {
    /// Copies what was kept to the front of the shared buffer, and reads once after it; returns the total length.
    #[inline]
    pub(super) fn fill(&mut self, cx: &mut Context<'_>) -> io::Result<usize> {
        let len = if self.kept.is_some() { self.fill_from_kept(cx) } else { 0 };
        if !self.transport.is_readable() || cx.input.len() == len {
            return Ok(len);
        }
        if self.codec.phase() == Phase::Body && self.lacks_room(cx) {
            return match self.transport.is_broken() {
                true => Err(ErrorKind::ConnectionReset.into()),
                false => Ok(self.wait_for_room(len, cx)),
            };
        }
        Ok(len + self.transport.read(&mut cx.input[len..])?)
    }

    /// Whether the body must wait for memory.
    fn lacks_room(&self, cx: &Context<'_>) -> bool {
        if cx.memory.is_free() || self.codec.room_needed() == 0 {
            return false;
        }
        if cx.memory.budget.fits_last(self.codec.room_needed()) && cx.memory.has_turn(cx.waker.place) {
            return false;
        }
        // An end of file needs no memory.
        !self.transport.is_ending() || self.transport.client.has_bytes()
    }

    /// Leaves what the client has sent in the kernel until there is memory for it.
    #[cold]
    fn wait_for_room(&mut self, len: usize, cx: &mut Context<'_>) -> usize {
        if self.timer.timing != Timing::Room {
            self.timer.start(Timing::Room, cx);
            cx.memory.wait(cx.waker.place);
        }
        len
    }

    pub(super) fn fill_from_kept(&mut self, cx: &mut Context<'_>) -> usize {
        let Some(kept) = self.kept.take() else { return 0 };
        cx.input[..kept.input.len()].copy_from_slice(&kept.input);
        kept.input.len()
    }

    #[inline]
    pub(super) fn keep_input(&mut self, read: &Answered, len: usize, cx: &mut Context<'_>) {
        if read.consumed < len && !self.codec.is_closing() {
            self.keep_rest(read, len, cx);
        }
    }

    fn keep_rest(&mut self, read: &Answered, len: usize, cx: &mut Context<'_>) {
        let rest = &cx.input[read.consumed..len];
        // What follows an unanswered request must not be refused before that is answered.
        if self.codec.phase() == Phase::Head
            && !read.is_cut_short
            && !read.has_outgoing
            && !cx.memory.budget.has_room(rest.len())
        {
            self.begin_refused(read.consumed..len, cx);
            return self.reject(Reject::NoRoom, cx);
        }
        self.kept = Some(Box::new(Kept { input: rest.to_vec(), ..Kept::default() }));
    }
}
