//! PURE. What a connection waits for, and how long it may.
#![forbid(unsafe_code)]

use std::time::Duration;

use crate::shared::config::Timeouts;
use crate::time::Span;

/// Ten years. Deadlines have space for 34 since the machine's start.
pub(crate) const UNLIMITED: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// How long to wait for a client that still sends, after its latest byte: many send their whole body before they read.
pub(crate) const LINGER_PAUSE: Duration = Duration::from_secs(5);

/// What a connection waits for, which determines its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timing {
    /// The whole head of a request; for a new connection, including its first byte.
    Head,
    /// The next bytes of a body.
    Body,
    /// The next request.
    Idle,
    /// Memory for the next bytes of a body, which the client may have sent.
    Memory,
    /// The thread of the application that reads a body.
    Reader,
    /// Space in the socket for the next bytes of a response.
    Write,
    /// A response, or its next bytes, from the application.
    Answer,
    /// The same, for a client that seems to have disconnected.
    Leaving,
    /// The client's close of a connection that has ended.
    Linger,
}

impl Timing {
    /// In the order of their numbers.
    const ALL: [Timing; 9] = [
        Timing::Head,
        Timing::Body,
        Timing::Idle,
        Timing::Memory,
        Timing::Reader,
        Timing::Write,
        Timing::Answer,
        Timing::Leaving,
        Timing::Linger,
    ];

    /// Whether a response is being made or sent.
    #[inline]
    pub(crate) fn is_within_answer(self) -> bool {
        matches!(self, Timing::Write | Timing::Answer | Timing::Leaving)
    }
}

/// How long a connection may wait, by what it waits for. Kept as spans, since each request begins a wait.
#[derive(Debug)]
pub(crate) struct Waits([Span; Timing::ALL.len()]);

impl Waits {
    pub(crate) fn new(timeouts: &Timeouts) -> Waits {
        Waits(Timing::ALL.map(|timing| timeout(timing, timeouts).map_or(Span::FOREVER, Span::from)))
    }

    #[inline]
    pub(crate) fn of(&self, timing: Timing) -> Span {
        self.0[timing as usize]
    }
}

/// How long a connection may wait. Without a limit, the time is long but finite, so that the deadline tells when the
/// wait began.
pub(crate) fn timeout(timing: Timing, timeouts: &Timeouts) -> Option<Duration> {
    let timeout = match timing {
        Timing::Head => timeouts.head,
        Timing::Body => timeouts.body,
        Timing::Idle => timeouts.idle,
        Timing::Write => timeouts.write,
        Timing::Answer | Timing::Leaving | Timing::Memory | Timing::Reader => return None,
        Timing::Linger => LINGER_PAUSE,
    };
    Some(if timeout.is_zero() { UNLIMITED } else { timeout })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::config::Config;
    use crate::time::Time;

    #[test]
    fn spans_are_in_the_order_of_what_is_waited_for() {
        let timeouts = Timeouts { idle: Duration::ZERO, ..Config::default().server.timeouts };
        let (waits, now) = (Waits::new(&timeouts), Time::from_millis(5_000));
        assert_eq!(Timing::ALL.last(), Some(&Timing::Linger), "the last one is there");
        for (number, timing) in Timing::ALL.into_iter().enumerate() {
            assert_eq!(timing as usize, number);
            let end = timeout(timing, &timeouts).map_or(Time::NEVER, |timeout| now + timeout);
            assert_eq!(now + waits.of(timing), end, "{timing:?}");
        }
    }
}
