//! The end of a connection whose client still sends, mostly after an early refusal. Closing at once would reset the
//! connection, and the reset can overtake the response (RFC 9112 section 9.6).

use std::net::Shutdown;
use std::time::Duration;

use super::timer::LINGER_IN_DRAIN;
use super::{Connection, Step};
use crate::server::context::Context;
use crate::server::timing::{Timing, LINGER_PAUSE};
use crate::time::Time;

/// The maximum time.
pub(crate) const LINGER: Duration = Duration::from_secs(30);

/// The maximum number of bytes to read and discard.
const BYTES: u64 = 256 << 20;

/// What remains for a client that still sends.
#[derive(Debug)]
pub(super) struct Linger {
    end: Time,
    bytes: u64,
}

impl Linger {
    /// Counts discarded bytes. Returns until when the next may come, if they may.
    fn count(&mut self, bytes: usize, now: Time) -> Option<Time> {
        self.bytes = self.bytes.saturating_sub(bytes as u64);
        (self.bytes > 0).then(|| self.end.min(now + LINGER_PAUSE))
    }
}

/// Reading from the connection has failed.
#[cold]
pub(super) fn failed(connection: &mut Connection, cx: &mut Context<'_>) -> Step {
    match connection.transport.client.is_refused() {
        true => linger(connection, cx),
        false => Step::Close,
    }
}

fn linger(connection: &mut Connection, cx: &mut Context<'_>) -> Step {
    connection.timer.start(Timing::Linger, cx);
    connection.buffers.begin_to_linger(Linger { end: cx.clock.running + LINGER, bytes: BYTES });
    if connection.transport.client.shutdown(Shutdown::Write).is_err() {
        return Step::Close;
    }
    connection.discard(cx)
}

impl Connection {
    /// The last response was sent.
    pub(super) fn finish(&mut self, cx: &mut Context<'_>) -> Step {
        // A response that ends with the connection is only complete with this.
        self.transport.client.send_close_notify();
        let is_unread = self.session.codec.ending.is_unread() || self.transport.client.wants_write();
        if !is_unread || self.transport.is_ended() {
            return Step::Close;
        }
        linger(self, cx)
    }

    /// Reads and discards what the client still sends, until it closes, too.
    pub(super) fn discard(&mut self, cx: &mut Context<'_>) -> Step {
        let count = match self.transport.read(&mut cx.input) {
            Ok(0) if !self.transport.is_ended() => return Step::Wait,
            Ok(0) | Err(_) => return Step::Close,
            Ok(count) => count,
        };
        let now = cx.clock.running;
        let Some(end) = self.buffers.linger().and_then(|linger| linger.count(count, now)) else { return Step::Close };
        self.timer.deadline = match cx.drain {
            // A client that has sent half of its body when a restart begins must get its refusal, too.
            Some(limits) => end.min(now + LINGER_IN_DRAIN).min(limits.linger),
            None => end,
        };
        self.transport.wait()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_may_send_for_a_while_and_so_much() {
        let at = |seconds: u64| Time::from_millis(seconds * 1000);
        let mut linger = Linger { end: at(30), bytes: 100 };
        assert_eq!(linger.count(40, at(1)), Some(at(6)));
        assert_eq!(linger.count(40, at(27)), Some(at(30)));
        assert_eq!(linger.count(20, at(28)), None);
    }
}
