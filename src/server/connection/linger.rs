//! The end of a connection whose client still sends, mostly after an early refusal. Closing at once would reset the
//! connection, and the reset can overtake the response (RFC 9112 section 9.6).

use std::net::Shutdown;
use std::time::Duration;

use super::timing::{Timing, LINGER_IN_DRAIN, LINGER_PAUSE};
use super::{Connection, Step};
use crate::server::context::Context;
use crate::time::Time;

/// The maximum time.
const WHOLE: Duration = Duration::from_secs(30);

/// The maximum number of bytes to read and discard.
const BYTES: u64 = 256 << 20;

/// What remains for a client that still sends.
#[derive(Debug)]
pub(super) struct Linger {
    end: Time,
    bytes: u64,
}

impl Connection {
    /// The last response was sent.
    pub(super) fn finish(&mut self, cx: &mut Context<'_>) -> Step {
        if !self.must_linger || self.transport.is_ended() {
            return Step::Close;
        }
        self.timer.start(Timing::Linger, cx);
        let whole = if cx.is_draining() { LINGER_IN_DRAIN } else { WHOLE };
        self.kept.get_or_insert_default().linger = Some(Linger { end: cx.clock.running + whole, bytes: BYTES });
        if self.transport.client.shutdown(Shutdown::Write).is_err() {
            return Step::Close;
        }
        self.discard(cx)
    }

    /// Reads and discards what the client still sends, until it closes, too.
    pub(super) fn discard(&mut self, cx: &mut Context<'_>) -> Step {
        match self.transport.read(&mut cx.input) {
            Ok(0) if !self.transport.is_ended() => Step::Wait,
            Ok(count) if count > 0 && self.lingers_on(count, cx) => match self.transport.is_readable() {
                true => Step::Again,
                false => Step::Wait,
            },
            _ => Step::Close,
        }
    }

    /// Counts bytes of a client that still sends; returns whether it may go on.
    fn lingers_on(&mut self, count: usize, cx: &Context<'_>) -> bool {
        let Some(linger) = self.kept.as_mut().and_then(|kept| kept.linger.as_mut()) else { return false };
        linger.bytes = linger.bytes.saturating_sub(count as u64);
        let (end, is_within) = (linger.end, linger.bytes > 0);
        if !cx.is_draining() {
            self.timer.deadline = end.min(cx.clock.running + LINGER_PAUSE);
        }
        is_within
    }
}
