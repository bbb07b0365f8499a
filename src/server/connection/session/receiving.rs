//! Requests whose body the application takes as it arrives, and other responses that take more than one step.

use std::ops::Range;
use std::panic::resume_unwind;

use log::error;

use super::Session;
use crate::server::answer::receive::{Receiver, Taken};
use crate::server::answer::response::{Body, Response};
use crate::server::context::Context;
use crate::server::http::{takes_trailers, Piece, Request, CONTINUE};
use crate::shared::log_text::panic_message;

impl Session {
    /// Begins to send a response that takes more than one step, or to make it.
    #[inline(never)]
    pub(super) fn start_other(&mut self, response: Response, body: &[u8], takes_trailers: bool, cx: &mut Context<'_>) {
        self.codec.mode.take_trailers(takes_trailers);
        match response {
            Response { body: Body::Receive(receiver), .. } => self.begin_receiving(receiver, body, cx),
            response => self.start(response, cx),
        }
    }

    /// Begins to pass the body to the application, or passes the body that has already arrived.
    pub(super) fn begin_receiving(&mut self, mut receiver: Receiver<Response>, body: &[u8], cx: &mut Context<'_>) {
        if self.codec.is_streaming() {
            if self.codec.take_waits() {
                cx.output.extend_from_slice(CONTINUE);
            }
            // The waker must be known before the thread drops its reader.
            receiver.check_room(&cx.waker);
            self.exchange.receive(receiver);
            // A response made late is counted from this turn.
            cx.stats.take_late(cx.waker.place);
            return;
        }
        let mut taken = if body.is_empty() { Taken::More } else { receiver.take(Some(body)) };
        if matches!(taken, Taken::More) {
            taken = receiver.take(None);
        }
        self.taken(taken, cx);
    }

    /// Passes a piece of the body to the application; returns how many bytes of the input that was.
    pub(super) fn receive(&mut self, input: Range<usize>, cx: &mut Context<'_>) -> usize {
        let Some(receiver) = self.exchange.receiver() else { return 0 };
        if !receiver.check_room(&cx.waker) {
            return 0;
        }
        let (consumed, piece) = self.codec.next_piece(&cx.input[input], &cx.station.config.limits);
        if let Some(slow) = &mut cx.logs.slow {
            slow.begin();
        }
        let taken = match piece {
            Piece::NeedMore => receiver.give_up(),
            Piece::Data(data) => receiver.take(Some(data)),
            Piece::End => receiver.take(None),
            Piece::Reject(reject) => {
                self.reject(reject, cx);
                return consumed;
            }
        };
        if !matches!(taken, Taken::More) {
            self.exchange.clear();
        }
        self.taken(taken, cx);
        consumed
    }

    fn taken(&mut self, taken: Taken<Response>, cx: &mut Context<'_>) {
        match taken {
            Taken::More => {
                if let Some(slow) = &mut cx.logs.slow {
                    slow.took_piece(cx.waker.place, &cx.station.tag);
                }
            }
            Taken::Answer(response) => {
                if let Some(slow) = &mut cx.logs.slow {
                    slow.promised(cx.waker.place);
                }
                self.start(response, cx);
                self.count_late_answer(cx);
            }
            Taken::Panicked(panic) => {
                cx.stats.row.count_panic();
                error!("{} panicked in a request's body: {}", cx.station.tag, panic_message(&*panic));
                if cx.station.config.exits_on_panic() {
                    resume_unwind(panic);
                }
                self.start(Response::text("the server failed to answer this request\n").status(500).close(), cx);
            }
        }
    }
}

/// What has arrived of the request's body, if the response takes it, and whether trailers may follow the response.
pub(super) fn asked_for(response: &Response, request: &Request<'_>) -> (Vec<u8>, bool) {
    match response.body {
        Body::Receive(_) => (request.body().to_owned(), takes_trailers(request)),
        Body::Stream(_) | Body::Deferred(_) => (Vec::new(), takes_trailers(request)),
        _ => (Vec::new(), false),
    }
}
