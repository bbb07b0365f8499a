//! How a connection sends its responses: most with one send(2), the rest step by step.

use std::io;

use super::{Connection, Step};
use crate::server::context::Context;
use crate::server::outgoing::{Flow, Outgoing};
use crate::server::timing::Timing;

/// The maximum size of the shared output buffer that is kept between turns.
const OUTPUT_KEPT: usize = 256 * 1024;

impl Connection {
    /// Sends what there is to send. `None` if all was sent and the connection goes on.
    #[inline(always)]
    pub(super) fn send(&mut self, cx: &mut Context<'_>) -> Option<Step> {
        if let Some(step) = self.send_output(cx) {
            return Some(step);
        }
        match self.waiting().has_to_send() || self.timer.timing.is_within_answer() {
            true => self.send_step_by_step(cx),
            false => None,
        }
    }

    /// [`send`](Connection::send) out of line, for the paths that few requests take.
    #[inline(never)]
    pub(super) fn send_again(&mut self, cx: &mut Context<'_>) -> Option<Step> {
        self.send(cx)
    }

    #[inline(never)]
    fn send_step_by_step(&mut self, cx: &mut Context<'_>) -> Option<Step> {
        let mut was_progress = false;
        while let Some(outgoing) = self.session.exchange.outgoing_mut() {
            let left = outgoing.left();
            let flow = outgoing.proceed(&mut self.transport.client, cx);
            let sent = left - outgoing.left();
            self.session.has_sent(sent, cx);
            was_progress |= matches!(flow, Ok(Flow::Answer(_) | Flow::Output));
            let step = self.follow(flow, sent, was_progress, cx);
            if let Some(step) = step.or_else(|| self.send_output(cx)) {
                return Some(step);
            }
        }
        if self.timer.timing.is_within_answer() {
            self.timer.start(Timing::Idle, cx);
        }
        self.session.codec.ending.is_last().then(|| self.finish(cx))
    }

    /// Concludes a step of a response, which has sent this many bytes. `None` if the next one may follow at once.
    fn follow(&mut self, flow: io::Result<Flow>, sent: u64, was_progress: bool, cx: &mut Context<'_>) -> Option<Step> {
        match flow {
            Err(_) => return Some(Step::Close),
            Ok(Flow::Done) => {
                self.session.exchange.clear();
                self.session.answered(cx);
            }
            Ok(Flow::Answer(response)) => {
                self.session.exchange.clear();
                self.session.start(response, cx);
                self.session.count_late_answer(cx);
            }
            Ok(Flow::Output | Flow::Interim) => {}
            Ok(Flow::Sent) => {
                self.timer.start(Timing::Write, cx);
                return Some(Step::Again);
            }
            Ok(Flow::Blocked { progress }) => {
                match self.timer.timing {
                    Timing::Write if progress => self.timer.credit(sent, Timing::Write, cx),
                    Timing::Write => {}
                    _ => self.timer.start(Timing::Write, cx),
                }
                return Some(Step::Wait);
            }
            // Nobody is left to wait for it.
            Ok(Flow::Waiting) if self.transport.is_broken() => {
                self.session.exchange.clear();
                return Some(Step::Close);
            }
            Ok(Flow::Waiting) => {
                self.wait_for_application(was_progress, cx);
                return Some(Step::Wait);
            }
            Ok(Flow::HandOver) => return Some(Step::Upgrade),
        }
        None
    }

    /// Sends what is buffered, then the shared output; buffers what the client does not accept. `None` if all was sent.
    #[inline]
    fn send_output(&mut self, cx: &mut Context<'_>) -> Option<Step> {
        if self.buffers.is_some() {
            if let Some(step) = self.send_buffered(cx) {
                return Some(step);
            }
        }
        if cx.output.is_empty() {
            return None;
        }
        let goes_on = self.session.exchange.outgoing().is_some_and(Outgoing::goes_on);
        let written = match goes_on {
            true => self.transport.client.write_beginning(&cx.output),
            false => self.transport.client.write_some(&cx.output),
        };
        match written {
            Err(_) => return Some(Step::Close),
            Ok(sent) if sent < cx.output.len() => {
                self.session.has_sent(sent as u64, cx);
                self.buffers.keep_output(std::mem::take(&mut cx.output), sent);
                self.timer.start(Timing::Write, cx);
                return Some(Step::Wait);
            }
            Ok(sent) => {
                self.session.has_sent(sent as u64, cx);
                cx.output.clear();
            }
        }
        if cx.output.capacity() > OUTPUT_KEPT {
            // One large response is no reason to keep its memory for ever.
            cx.output.shrink_to(OUTPUT_KEPT);
        }
        None
    }

    #[inline(never)]
    fn send_buffered(&mut self, cx: &mut Context<'_>) -> Option<Step> {
        let Ok(sent) = self.buffers.send(&mut self.transport.client)? else { return Some(Step::Close) };
        self.session.has_sent(sent.bytes as u64, cx);
        if sent.is_all {
            return None;
        }
        match self.timer.timing {
            Timing::Write if sent.bytes == 0 => {}
            Timing::Write => self.timer.credit(sent.bytes as u64, Timing::Write, cx),
            _ => self.timer.start(Timing::Write, cx),
        }
        Some(Step::Wait)
    }
}
