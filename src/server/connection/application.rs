//! A connection that waits for the application: for how long, and the notices to the application meanwhile.

use std::time::Duration;

use super::{Connection, Step};
use crate::server::answer::response::Response;
use crate::server::context::Context;
use crate::server::outgoing::Outgoing;
use crate::server::timing::Timing;

/// How long a response may still take after the client has sent its end of file. The client may only mean that this was
/// its last request (`nc -N`), but mostly it has disconnected, which TCP shows in the same way.
const GRACE: Duration = Duration::from_secs(5);

const TOO_LONG: &str = "the server took too long to answer this request\n";

impl Connection {
    /// The application has not made the next part of the response. `was_progress` says whether it has made one since
    /// the last call.
    pub(super) fn wait_for_application(&mut self, was_progress: bool, cx: &mut Context<'_>) {
        if was_progress || !matches!(self.timer.timing, Timing::Answer | Timing::Leaving) {
            let timeout = self.session.exchange.outgoing().and_then(|outgoing| outgoing.timeout(cx.station.config));
            self.timer.start_within(timeout, Timing::Answer, cx);
        }
        if self.transport.is_ending() && !cx.station.config.half_close {
            self.session.exchange.tell_gone();
            let end = cx.clock.running + GRACE;
            if self.timer.timing != Timing::Leaving && end < self.timer.deadline {
                (self.timer.timing, self.timer.deadline) = (Timing::Leaving, end);
            }
        }
    }

    /// The application has not responded in time, so the server does. A stream has no timeout.
    pub(super) fn answer_for_application(&mut self, cx: &mut Context<'_>) -> Step {
        match self.session.exchange.take_outgoing() {
            Some(Outgoing::Deferred { mut pending, .. }) => {
                let response = pending.take_late().unwrap_or_else(|| Response::text(TOO_LONG).status(504));
                // Notifies the application.
                drop(pending);
                self.session.start(response, cx);
                self.session.count_late_answer(cx);
                self.send_again(cx).unwrap_or(Step::Again)
            }
            _ if self.session.exchange.is_receiving() => {
                // Cuts the body off for its reader.
                self.session.exchange.clear();
                self.session.start(Response::text(TOO_LONG).status(504).close(), cx);
                self.session.count_late_answer(cx);
                self.send_again(cx).unwrap_or(Step::Again)
            }
            _ => Step::Close,
        }
    }
}
