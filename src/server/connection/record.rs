//! What a connection counts of its answers, and tells the access log: that nothing, and at next to no cost, when there
//! is none.

use std::ops::Range;

use super::Connection;
use crate::server::context::Context;
use crate::server::http::Reject;

impl Connection {
    /// A request is to be refused, and this part of the input, or what the codec has gathered, is how it begins.
    pub(super) fn begin_refused(&mut self, input: Range<usize>, cx: &mut Context<'_>) {
        if let Some(log) = &mut cx.log {
            let head = self.codec.gathered_head().unwrap_or(&cx.input[input]);
            log.begin_refused(self.peer.track(), head, cx.clock.micros);
        }
    }

    /// The refusal is in the shared output.
    pub(super) fn refused(&mut self, reject: Reject, cx: &mut Context<'_>) {
        cx.stats.row.count_response(reject.status());
        if let Some(track) = self.peer.logged() {
            track.head(reject.status(), cx.output.len() - reject.reason().len());
        }
        self.answered(cx);
    }

    /// The head of an answer is in the shared output.
    #[inline]
    pub(super) fn has_head(&mut self, status: u16, cx: &Context<'_>) {
        cx.stats.row.count_response(status);
        if cx.log.is_some() {
            if let Some(track) = self.peer.logged() {
                track.head(status, cx.output.len());
            }
        }
    }

    /// An answer is complete: sent, or in the shared output.
    #[inline]
    pub(super) fn answered(&mut self, cx: &mut Context<'_>) {
        if let Some(log) = &mut cx.log {
            if let Some(track) = self.peer.logged() {
                log.answered(track, cx.output.len());
            }
        }
    }

    /// The client has taken so many bytes.
    #[inline]
    pub(super) fn has_sent(&mut self, bytes: u64, cx: &mut Context<'_>) {
        cx.stats.row.count_sent(bytes);
        if let Some(log) = &mut cx.log {
            if let Some(track) = self.peer.logged() {
                log.sent(track, bytes);
            }
        }
    }

    /// The connection is over.
    pub(super) fn ended(&mut self, cx: &mut Context<'_>) {
        if let (Some(track), Some(log)) = (self.peer.logged(), &mut cx.log) {
            log.end(track);
        }
    }
}
