//! How responses begin: most are rendered whole, the rest is sent step by step.

use super::Session;
use crate::server::answer::file::{FileBody, READ_MAX};
use crate::server::answer::response::{Body, Response};
use crate::server::answer::upgrade::Upgrade;
use crate::server::context::Context;
use crate::server::http::{Length, ResponseHead, Transfer};
use crate::server::outgoing::{Outgoing, COPY_MAX};

impl Session {
    /// Begins to send a response: its head and small bodies at once, the rest step by step.
    pub(crate) fn start(&mut self, response: Response, cx: &mut Context<'_>) {
        let Response { head, body } = response;
        let outgoing = match body {
            Body::Bytes(bytes) if bytes.len() as u64 <= COPY_MAX => return self.start_at_once(&head, &bytes, cx),
            Body::Deferred(pending) => {
                Some(Outgoing::Deferred { pending, takes_interim: self.codec.mode.takes_interim() })
            }
            Body::Upgrade(upgrade) => self.begin_upgrade(head, upgrade, cx),
            // Made late, for a request whose body is gone.
            Body::Receive(receiver) => return self.begin_receiving(receiver, b"", cx),
            Body::File(file) if file.len() <= READ_MAX => {
                self.start_small_file(&head, *file, cx);
                None
            }
            body => {
                let takes_trailers = self.codec.mode.takes_trailers();
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
        self.exchange.send(outgoing);
        if cx.is_draining() {
            self.exchange.tell_drain();
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
        if cx.is_draining() && (!cx.passes_on() || self.codec.ending.stays()) {
            self.codec.mode.end_after_answer();
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
        head.set_status(426);
        self.codec.require_upgrade(&head, &upgrade.protocol, &cx.http.encoder, &mut cx.output);
        self.has_head(426, cx);
        None
    }
}
