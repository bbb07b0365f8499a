//! How a connection sends its responses: most with one send(2), the rest step by step.

use super::timing::Timing;
use super::{Connection, Exchange, Step};
use crate::server::answer::file::{FileBody, READ_MAX};
use crate::server::answer::response::{Body, Response};
use crate::server::answer::upgrade::Upgrade;
use crate::server::context::Context;
use crate::server::http::{Length, ResponseHead, Transfer};
use crate::server::outgoing::{Flow, Outgoing, COPY_MAX};

/// The maximum size of the shared output buffer that is kept between turns.
const OUTPUT_KEPT: usize = 256 * 1024;

impl Connection {
    /// Whether a response may be in progress.
    #[inline]
    pub(super) fn has_to_send(&self) -> bool {
        self.kept.is_some() || self.exchange.is_some() || self.codec.is_closing()
    }

    /// Sends what there is to send. `None` if all was sent and the connection goes on.
    #[inline(always)]
    pub(super) fn send(&mut self, cx: &mut Context<'_>) -> Option<Step> {
        if let Some(step) = self.send_output(cx) {
            return Some(step);
        }
        match self.has_to_send() || self.timer.timing.is_within_answer() {
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
        while let Some(mut exchange) = self.exchange.take_if(|exchange| exchange.is_sending()) {
            let Exchange::Sending(outgoing) = &mut *exchange else { break };
            let left = outgoing.left();
            let flow = outgoing.proceed(&self.transport.client, cx);
            let sent = left - outgoing.left();
            self.has_sent(sent, cx);
            match flow {
                Err(_) => {
                    self.exchange = Some(exchange);
                    return Some(Step::Close);
                }
                Ok(Flow::Done) => self.answered(cx),
                Ok(Flow::Answer(response)) => {
                    was_progress = true;
                    self.start(response, cx);
                    self.count_late_answer(cx);
                }
                Ok(Flow::Output) => {
                    was_progress = true;
                    self.exchange = Some(exchange);
                }
                Ok(Flow::Interim) => self.exchange = Some(exchange),
                Ok(Flow::Sent) => {
                    self.timer.start(Timing::Write, cx);
                    self.exchange = Some(exchange);
                    return Some(Step::Again);
                }
                Ok(Flow::Blocked { progress }) => {
                    match self.timer.timing {
                        Timing::Write if progress => self.timer.credit(sent, Timing::Write, cx),
                        Timing::Write => {}
                        _ => self.timer.start(Timing::Write, cx),
                    }
                    self.exchange = Some(exchange);
                    return Some(Step::Wait);
                }
                // Nobody is left to wait for it.
                Ok(Flow::Waiting) if self.transport.is_broken() => return Some(Step::Close),
                Ok(Flow::Waiting) => {
                    self.exchange = Some(exchange);
                    self.wait_for_application(was_progress, cx);
                    return Some(Step::Wait);
                }
                Ok(Flow::HandOver) => {
                    self.exchange = Some(exchange);
                    return Some(Step::HandOver);
                }
            }
            if let Some(step) = self.send_output(cx) {
                return Some(step);
            }
        }
        if self.timer.timing.is_within_answer() {
            self.timer.start(Timing::Idle, cx);
        }
        self.codec.is_closing().then(|| self.finish(cx))
    }

    /// Begins to send a response: its head and small bodies at once, the rest step by step.
    pub(super) fn start(&mut self, response: Response, cx: &mut Context<'_>) {
        let Response { head, body } = response;
        let outgoing = match body {
            Body::Bytes(bytes) if bytes.len() as u64 <= COPY_MAX => return self.start_at_once(&head, &bytes, cx),
            Body::Deferred(pending) => Some(Outgoing::Deferred { pending, takes_interim: self.codec.takes_interim() }),
            Body::Upgrade(upgrade) => self.begin_upgrade(head, upgrade, cx),
            // Made late, for a request whose body is gone.
            Body::Receive(receiver) => return self.begin_receiving(receiver, b"", cx),
            Body::File(file) if file.len() <= READ_MAX => {
                self.start_small_file(&head, *file, cx);
                None
            }
            body => {
                let takes_trailers = self.codec.takes_trailers();
                let head = match &body {
                    Body::Stream(reader) if takes_trailers => head.announcing(reader.announced()),
                    _ => head,
                };
                let transfer = self.respond(&head, Outgoing::length(&body), cx);
                Outgoing::body(body, transfer, takes_trailers, &mut cx.output)
            }
        };
        if outgoing.is_none() {
            self.answered(cx);
        }
        self.looks_whole = outgoing.as_ref().is_some_and(Outgoing::looks_whole);
        self.exchange = outgoing.map(|outgoing| Box::new(Exchange::Sending(outgoing)));
        if cx.is_draining() {
            self.tell_drain();
        }
    }

    /// Writes a whole response to the shared output.
    #[inline]
    pub(super) fn start_at_once(&mut self, head: &ResponseHead, body: &[u8], cx: &mut Context<'_>) {
        if self.respond(head, Length::Known(body.len() as u64), cx) != Transfer::Nothing {
            cx.output.extend_from_slice(body);
        }
        self.answered(cx);
    }

    /// Reads a file after its head.
    fn start_small_file(&mut self, head: &ResponseHead, file: FileBody, cx: &mut Context<'_>) {
        let start = cx.output.len();
        let transfer = self.respond(head, Length::Known(file.len()), cx);
        if transfer != Transfer::Nothing && file.read(&mut cx.output).is_err() {
            // The file has shrunk since it was opened; nothing of it was sent yet.
            cx.output.truncate(start);
            cx.stats.row.take_back_response(head.status);
            self.respond(&Response::new(500).close().head, Length::Known(0), cx);
        }
    }

    #[inline]
    fn respond(&mut self, head: &ResponseHead, length: Length, cx: &mut Context<'_>) -> Transfer {
        // A refused body may still be arriving, and must not reset the response.
        self.must_linger |= self.codec.is_streaming();
        if cx.is_draining() {
            self.codec.end_after_answer();
        }
        let transfer = self.codec.respond(head, length, &mut cx.http.encoder, &mut cx.output);
        self.has_head(head.status, cx);
        transfer
    }

    fn begin_upgrade(
        &mut self,
        mut head: ResponseHead,
        upgrade: Box<Upgrade>,
        cx: &mut Context<'_>,
    ) -> Option<Outgoing> {
        if self.codec.may_upgrade(&upgrade.protocol) {
            self.codec.upgrade(&head, &upgrade.protocol, &cx.http.encoder, &mut cx.output);
            self.has_head(101, cx);
            self.answered(cx);
            return Some(Outgoing::Upgrade(upgrade));
        }
        self.must_linger |= self.codec.is_streaming();
        head.set_status(426);
        self.codec.require_upgrade(&head, &upgrade.protocol, &cx.http.encoder, &mut cx.output);
        self.has_head(426, cx);
        None
    }

    /// Sends what was kept, then the shared output; keeps what the client does not accept. `None` if all was sent.
    #[inline]
    fn send_output(&mut self, cx: &mut Context<'_>) -> Option<Step> {
        if self.kept.is_some() {
            if let Some(step) = self.send_kept(cx) {
                return Some(step);
            }
        }
        if cx.output.is_empty() {
            return None;
        }
        let goes_on = self.outgoing().is_some_and(Outgoing::goes_on);
        let written = match goes_on {
            true => self.transport.client.write_beginning(&cx.output),
            false => self.transport.client.write_some(&cx.output),
        };
        match written {
            Err(_) => return Some(Step::Close),
            Ok(sent) if sent < cx.output.len() => {
                self.has_sent(sent as u64, cx);
                self.keep_output(sent, cx);
                return Some(Step::Wait);
            }
            Ok(sent) => {
                self.has_sent(sent as u64, cx);
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
    fn send_kept(&mut self, cx: &mut Context<'_>) -> Option<Step> {
        let kept = self.kept.as_ref().filter(|kept| !kept.output.is_empty())?;
        let Ok(sent) = self.transport.client.write_some(&kept.output[kept.sent..]) else { return Some(Step::Close) };
        self.has_sent(sent as u64, cx);
        let kept = self.kept.as_mut()?;
        kept.sent += sent;
        if kept.sent < kept.output.len() {
            match self.timer.timing {
                Timing::Write if sent == 0 => {}
                Timing::Write => self.timer.credit(sent as u64, Timing::Write, cx),
                _ => self.timer.start(Timing::Write, cx),
            }
            return Some(Step::Wait);
        }
        kept.output = Vec::new();
        kept.sent = 0;
        None
    }

    fn keep_output(&mut self, sent: usize, cx: &mut Context<'_>) {
        let kept = self.kept.get_or_insert_default();
        kept.output = std::mem::take(&mut cx.output);
        kept.sent = sent;
        self.timer.start(Timing::Write, cx);
    }
}
