//! What a connection counts about its responses and reports to the access log. Without a log it reports nothing, at
//! next to no cost.

use std::ops::Range;

use super::Connection;
use crate::server::context::Context;
use crate::server::http::Reject;

impl Connection {
    /// A request will be refused; it begins with this part of the input, or with what the codec has gathered.
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

    /// The head of a response is in the shared output.
    #[inline]
    pub(super) fn has_head(&mut self, status: u16, cx: &Context<'_>) {
        cx.stats.row.count_response(status);
        if cx.log.is_some() {
            if let Some(track) = self.peer.logged() {
                track.head(status, cx.output.len());
            }
        }
    }

    /// A response is complete: sent, or in the shared output.
    #[inline]
    pub(super) fn answered(&mut self, cx: &mut Context<'_>) {
        if let Some(log) = &mut cx.log {
            if let Some(track) = self.peer.logged() {
                log.answered(track, cx.output.len());
            }
        }
    }

    /// The client's socket has accepted this many bytes.
    #[inline]
    pub(super) fn has_sent(&mut self, bytes: u64, cx: &mut Context<'_>) {
        cx.stats.row.count_sent(bytes);
        if let Some(log) = &mut cx.log {
            if let Some(track) = self.peer.logged() {
                log.sent(track, bytes);
            }
        }
    }

    /// The connection has ended.
    pub(super) fn ended(&mut self, cx: &mut Context<'_>) {
        if let (Some(track), Some(log)) = (self.peer.logged(), &mut cx.log) {
            log.end(track);
        }
    }
}
