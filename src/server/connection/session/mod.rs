//! HTTP on a connection: passes requests to the handler, and begins to send its responses. Knows no socket.

mod guard;
mod receiving;
mod record;
mod respond;

use std::borrow::Cow;
use std::mem;
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};

use super::exchange::Exchange;
use crate::server::answer::response::{Body, Response};
use crate::server::client::Peer;
use crate::server::context::Context;
use crate::server::http::{Codec, Next, Phase, Reject, Request, Scratch, TlsInfo, CONTINUE};
use crate::server::outgoing::COPY_MAX;
use crate::server::proxy::{parse, Found};
use crate::server::timing::Timing;
use crate::shared::scoreboard::NameRow;

use self::receiving::asked_for;

/// The state of HTTP on a connection.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) codec: Codec,
    pub(super) exchange: Exchange,
    pub(super) peer: Peer,
}

/// The result of answering what was read in one step.
pub(super) struct Answered {
    /// Up to where the input was consumed.
    pub(super) consumed: usize,
    pub(super) requests: usize,
    /// Whether the budget ended before the input.
    pub(super) is_cut_short: bool,
    /// Whether the last response takes more than one step.
    pub(super) has_outgoing: bool,
}

/// The header of the PROXY protocol, as far as it has arrived.
pub(super) enum Header {
    /// It is complete; the client's bytes begin here.
    Complete(usize),
    /// This many bytes of it must be kept.
    Incomplete {
        keep: usize,
    },
    Invalid(&'static str),
}

impl Session {
    pub(super) fn new(peer: Peer) -> Session {
        Session { codec: Codec::new(), exchange: Exchange::default(), peer }
    }

    /// Passes the requests in this part of the buffer to the handler, within the turn's budget. `timing` is what the
    /// connection has waited for, and `tls` what is known about its TLS.
    pub(super) fn answer<H>(
        &mut self,
        input: Range<usize>,
        timing: Timing,
        tls: Option<&TlsInfo>,
        cx: &mut Context<'_>,
        handler: &mut H,
    ) -> Answered
    where
        H: FnMut(&Request<'_>) -> Response,
    {
        let len = input.end;
        let mut read = Answered { consumed: input.start, requests: 0, is_cut_short: false, has_outgoing: false };
        while !self.codec.ending.is_last() {
            let is_receiving = self.exchange.is_receiving();
            if !is_receiving && (read.consumed == len || self.exchange.is_some()) {
                break;
            }
            if read.requests == cx.station.config.capacity.max_pipelined
                || cx.output.len() >= cx.station.config.capacity.max_output
            {
                read.is_cut_short = read.consumed < len;
                break;
            }
            if is_receiving {
                let consumed = self.receive(read.consumed..len, cx);
                read.consumed += consumed;
                if consumed == 0 && self.exchange.is_receiving() {
                    break;
                }
                continue;
            }
            let (consumed, outcome) = self.answer_next(read.consumed..len, timing, tls, cx, handler);
            read.consumed += consumed;
            match outcome {
                Outcome::Answered => read.requests += 1,
                Outcome::Other => {}
                Outcome::NeedMore => break,
            }
        }
        read.has_outgoing = self.exchange.outgoing().is_some();
        // What follows the last response is not read, and must not reset it.
        if read.consumed < len && self.codec.ending.is_last() {
            self.codec.ending.set_unread(true);
        }
        read
    }

    /// Passes the next request in this part of the buffer to the handler. Returns how many bytes were consumed.
    #[inline(always)]
    fn answer_next<H>(
        &mut self,
        range: Range<usize>,
        timing: Timing,
        tls: Option<&TlsInfo>,
        cx: &mut Context<'_>,
        handler: &mut H,
    ) -> (usize, Outcome)
    where
        H: FnMut(&Request<'_>) -> Response,
    {
        let mut scratch = Scratch::with(&mut cx.http.recall);
        let input = &cx.input[range.clone()];
        let is_whole = self.codec.phase() != Phase::Body;
        let (consumed, next) = self.codec.next(input, &mut scratch, &cx.station.config.limits, &mut *cx.http.streams);
        match next {
            Next::NeedMore if cx.memory.budget.has_room(0) => return (consumed, Outcome::NeedMore),
            Next::Continue if cx.memory.budget.has_room(0) => cx.output.extend_from_slice(CONTINUE),
            // A body that has just begun would have to be held.
            Next::NeedMore | Next::Continue => {
                if self.codec.phase() != Phase::Body || matches!(timing, Timing::Body | Timing::Memory) {
                    return (consumed, Outcome::NeedMore);
                }
                self.refuse(Reject::NoRoom, range, cx);
            }
            Next::Request(request) => {
                cx.stats.row.count_request();
                if let Some(name) = &cx.stats.name {
                    match is_whole && input[0] != b'\r' {
                        true => name.set(input, request.name_len()),
                        // Its head came earlier, or after empty lines.
                        false => name_gathered(request, name),
                    }
                }
                request.worker = cx.station.id;
                self.peer.tell(&mut request.peer);
                if let Some(tls) = tls {
                    request.tls = Some(tls);
                }
                if cx.proxies.are_trusted {
                    request.via = Some(self.peer.via(cx.station.config));
                }
                if let Some(slow) = &mut cx.logs.slow {
                    slow.begin();
                }
                let answered = panic::catch_unwind(AssertUnwindSafe(|| handler(request)));
                if let Some(slow) = &mut cx.logs.slow {
                    let is_pending =
                        matches!(&answered, Ok(Response { body: Body::Deferred(_) | Body::Receive(_), .. }));
                    slow.handled(request, is_pending, cx.waker.place, &cx.station.tag);
                }
                match &answered {
                    // The case of nearly all responses. By reference, since each move of one costs as much as a field.
                    Ok(Response { head, body: Body::Bytes(bytes) }) if bytes.len() as u64 <= COPY_MAX => {
                        if let Some(log) = &mut cx.logs.access {
                            let outcome = (head.status, bytes.len() as u64);
                            log.begin_whole(self.peer.begin_logging(), request, cx.clock.micros, outcome);
                        }
                        self.start_at_once(head, bytes, cx);
                        if matches!(bytes, Cow::Borrowed(_)) && !head.owns_memory() {
                            // To find out once more which of the many kinds it is would cost forty instructions.
                            mem::forget(answered);
                        }
                    }
                    _ => {
                        if let Some(log) = &mut cx.logs.access {
                            log.begin(self.peer.begin_logging(), request, cx.clock.micros);
                        }
                        let response = guard::unless_panicked(answered, request, &cx.station);
                        let (body, takes_trailers) = asked_for(&response, request);
                        self.start_other(response, &body, takes_trailers, cx);
                    }
                }
                return (consumed, Outcome::Answered);
            }
            Next::Reject(reject) => self.refuse(reject, range, cx),
        }
        (consumed, Outcome::Other)
    }

    /// Refuses the request that begins with this part of the input, or with what the codec has collected.
    pub(super) fn refuse(&mut self, reject: Reject, input: Range<usize>, cx: &mut Context<'_>) {
        self.begin_refused(input, cx);
        self.reject(reject, cx);
    }

    fn reject(&mut self, reject: Reject, cx: &mut Context<'_>) {
        cx.stats.row.count_refused();
        if self.exchange.is_receiving() {
            self.exchange.clear();
        }
        let content = self.codec.reject(reject, &mut cx.http.encoder, &mut cx.output);
        self.refused(reject, content, cx);
    }

    /// Removes the header of the PROXY protocol, as far as it has arrived, from the first `len` bytes of the buffer.
    #[cold]
    pub(super) fn take_header(&mut self, len: usize, cx: &Context<'_>) -> Header {
        let start = match self.peer.left_to_skip() {
            Some(left) => left.min(len),
            None => match parse(&cx.input[..len]) {
                Found::Header(header) => {
                    self.peer.learn(&header);
                    header.len + header.skip.min(len - header.len)
                }
                Found::NeedMore => return Header::Incomplete { keep: len },
                Found::Invalid(problem) => return Header::Invalid(problem),
            },
        };
        match self.peer.skipped(start) {
            true => Header::Complete(start),
            false => Header::Incomplete { keep: 0 },
        }
    }

    /// Whether the rest of a body must wait for memory.
    pub(super) fn lacks_room(&self, cx: &Context<'_>) -> bool {
        let needed = self.codec.room_needed();
        needed > 0
            && !cx.memory.is_free()
            && !(cx.memory.budget.fits_last(needed) && cx.memory.has_turn(cx.waker.place))
    }
}

/// The result of looking for a request.
enum Outcome {
    /// There was one.
    Answered,
    /// The rest of it has not arrived.
    NeedMore,
    /// Something else has happened.
    Other,
}

/// Names a request whose head is not among the bytes that arrived last.
#[cold]
fn name_gathered(request: &Request<'_>, name: &NameRow<'_>) {
    let mut head = format!("{} {}", request.method(), request.target()).into_bytes();
    let len = request.name_len();
    head.resize(head.len().next_multiple_of(8), 0);
    name.set(&head, len);
}
