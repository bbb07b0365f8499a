//! PURE. When to accept connections: which connection makes room for a new one, and when accepting pauses.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::eviction::Eviction;
use crate::time::Time;

/// How long accepting pauses if descriptors have run out and no connection of this worker ends.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// How long a worker without places leaves waiting connections to other workers that have some.
const YIELD: Duration = Duration::from_millis(10);

/// Deadlines are not closer than this.
const CLOCK_STEP: Duration = Duration::from_millis(1);

/// How often to log that connections are closed in favour of new ones.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// When to accept connections.
#[derive(Debug, Default)]
pub(super) struct Admission {
    /// Which connection gives up its place when all are taken.
    pub(super) eviction: Eviction,
    pause: Option<Pause>,
    /// When to ask the parent again for a worker that accepts what waits.
    asks: Time,
    /// When it was last logged that connections are closed in favour of new ones.
    warned: Option<Time>,
    /// Set if no queue is known to hold connections and there is room for more. Until that changes, there is nothing to
    /// do.
    is_quiet: bool,
}

/// A pause because no descriptor was free. One becomes free when a connection ends.
#[derive(Clone, Copy, Debug)]
struct Pause {
    /// When to try again even if none has ended.
    due: Time,
    /// How many connections had ended when it began.
    closed: u32,
}

impl Admission {
    /// Whether there is nothing to do.
    #[inline]
    pub(super) fn is_quiet(&self) -> bool {
        self.is_quiet
    }

    pub(super) fn set_quiet(&mut self, is_quiet: bool) {
        self.is_quiet = is_quiet;
    }

    /// A queue may hold connections, or one has come that was in no queue.
    #[inline]
    pub(super) fn wake(&mut self) {
        self.is_quiet = false;
    }

    /// When to try again if no connection ends; `closed` have ended so far.
    pub(super) fn retry(&self, closed: u32) -> Option<Time> {
        self.pause.filter(|pause| pause.closed == closed).map(|pause| pause.due)
    }

    /// Whether accepting is paused at `now`. After a pause it begins again.
    pub(super) fn rests(&self, closed: u32, now: Time) -> bool {
        self.retry(closed).is_some_and(|due| now < due)
    }

    /// Accepting continues. Returns whether it was paused, and no connection has ended since.
    pub(super) fn resume(&mut self, closed: u32) -> bool {
        let has_rested = self.retry(closed).is_some();
        self.pause = None;
        has_rested
    }

    /// Pauses accepting until a connection ends. Tries again now and then, since another process may free a descriptor,
    /// or a connection may have become idle for long enough.
    pub(super) fn pause(&mut self, closed: u32, now: Time) {
        let due = (now + RETRY_DELAY).min(self.eviction.due().max(now + CLOCK_STEP));
        self.pause = Some(Pause { due, closed });
    }

    /// Whether to ask the parent again for a worker that accepts what waits.
    pub(super) fn may_ask(&mut self, now: Time) -> bool {
        let is_due = self.asks <= now;
        if is_due {
            self.asks = now + YIELD;
        }
        is_due
    }

    /// Whether to leave waiting connections to other workers that report free places. They are only believed for a
    /// moment.
    pub(super) fn yields(&mut self, now: Time) -> bool {
        let yields = self.eviction.yields();
        if yields {
            self.eviction.pause(now + YIELD);
        }
        yields
    }

    /// The connections have a turn before idle ones are looked for again.
    pub(super) fn look_later(&mut self, now: Time) {
        self.eviction.pause(now + CLOCK_STEP);
    }

    /// Whether to log now that connections are closed in favour of new ones; the caller then does.
    pub(super) fn is_warning_due(&mut self, now: Time) -> bool {
        is_warning_due(&mut self.warned, now)
    }
}

/// Whether to log again what was last logged at this time.
pub(super) fn is_warning_due(warned: &mut Option<Time>, now: Time) -> bool {
    let is_due = warned.is_none_or(|at| now.since(at) >= WARN_EVERY);
    if is_due {
        *warned = Some(now);
    }
    is_due
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepting_rests_until_a_connection_ends_or_the_time_is_over() {
        let at = |millis: u64| Time::from_millis(10_000 + millis);
        let mut admission = Admission::default();
        assert!(!admission.rests(7, at(0)) && !admission.resume(7));
        // All idle connections were examined, and the next time is in an hour.
        admission.eviction.pause(at(3_600_000));
        admission.pause(7, at(0));
        assert!(admission.rests(7, at(99)) && !admission.rests(7, at(100)));
        assert_eq!(admission.retry(7), Some(at(100)));
        assert_eq!(admission.retry(8), None, "one has ended");
        assert!(admission.resume(7) && !admission.resume(7));
        admission.eviction.pause(at(5));
        admission.pause(7, at(0));
        assert_eq!(admission.retry(7), Some(at(5)), "one of them can go then");
    }
}
