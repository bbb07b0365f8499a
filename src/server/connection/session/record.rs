//! What a connection counts about its responses and reports to the access log. Without a log it reports nothing, at
//! next to no cost.

use std::ops::Range;

use super::Session;
use crate::server::context::Context;
use crate::server::http::{Phase, Reject};
use crate::shared::scoreboard::LatencyRow;
use crate::sys::clock;

impl Session {
    /// A request will be refused; it begins with this part of the input, or with what the codec has collected.
    pub(super) fn begin_refused(&mut self, input: Range<usize>, cx: &mut Context<'_>) {
        if let Some(log) = &mut cx.logs.access {
            let head = self.codec.partial_head().unwrap_or(&cx.input[input]);
            log.begin_refused(self.peer.begin_logging(), head, cx.clock.micros);
        }
    }

    /// The refusal is in the shared output; its content has this many bytes.
    pub(super) fn refused(&mut self, reject: Reject, content: usize, cx: &mut Context<'_>) {
        cx.stats.row.count_response(reject.status());
        if let Some(logged) = self.peer.logged() {
            logged.head(reject.status(), cx.output.len() - content);
        }
        self.answered(cx);
    }

    /// The head of a response is in the shared output.
    #[inline]
    pub(super) fn has_head(&mut self, status: u16, cx: &Context<'_>) {
        cx.stats.row.count_response(status);
        if cx.logs.access.is_some() {
            if let Some(logged) = self.peer.logged() {
                logged.head(status, cx.output.len());
            }
        }
    }

    /// A response is complete: sent, or in the shared output.
    #[inline]
    pub(crate) fn answered(&mut self, cx: &mut Context<'_>) {
        if let Some(log) = &mut cx.logs.access {
            if let Some(logged) = self.peer.logged() {
                log.answered(logged, cx.output.len());
            }
        }
    }

    /// The client's socket has accepted this many bytes.
    #[inline]
    pub(crate) fn has_sent(&mut self, bytes: u64, cx: &mut Context<'_>) {
        cx.stats.row.count_sent(bytes);
        if let Some(log) = &mut cx.logs.access {
            if let Some(logged) = self.peer.logged() {
                log.sent(logged, bytes);
            }
        }
    }

    /// The connection has ended.
    pub(crate) fn ended(&mut self, cx: &mut Context<'_>) {
        if let (Some(logged), Some(log)) = (self.peer.logged(), &mut cx.logs.access) {
            log.end(logged);
        }
    }

    /// Counts how long the responses to this many requests took, since they are sent together.
    #[inline]
    pub(crate) fn count_latency(&self, requests: usize, cx: &mut Context<'_>) {
        let Some(latency) = cx.stats.latency else { return };
        let is_simple =
            !cx.stats.is_late(cx.waker.place) && !self.exchange.is_some() && self.codec.phase() == Phase::Idle;
        match requests {
            0 if is_simple => {}
            // The case of nearly all steps.
            count if is_simple => latency.count(count as u64, clock::now_micros().saturating_sub(cx.clock.micros)),
            count => self.count_answers(count as u64, latency, cx),
        }
    }

    /// A response that is not ready yet is counted later.
    #[cold]
    fn count_answers(&self, requests: u64, latency: LatencyRow<'_>, cx: &mut Context<'_>) {
        let is_pending = self.exchange.is_pending();
        let mut answers = requests.saturating_sub(u64::from(is_pending));
        if answers > 0 {
            let now = clock::now_micros();
            if let Some(began) = cx.stats.take_late(cx.waker.place) {
                latency.count(1, now.saturating_sub(began));
                answers -= 1;
            }
            latency.count(answers, now.saturating_sub(cx.clock.micros));
        }
        if is_pending || self.codec.phase() == Phase::Body {
            cx.stats.be_late(cx.waker.place, cx.clock.micros);
        }
    }

    /// A response that was not ready at once has begun to be sent.
    pub(crate) fn count_late_answer(&self, cx: &mut Context<'_>) {
        if self.exchange.is_pending() {
            return;
        }
        if let Some(slow) = &mut cx.logs.slow {
            slow.answered(cx.waker.place, &cx.station.tag);
        }
        let Some(latency) = cx.stats.latency else { return };
        if let Some(began) = cx.stats.take_late(cx.waker.place) {
            latency.count(1, clock::now_micros().saturating_sub(began));
        }
    }
}
