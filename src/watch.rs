//! PURE. Finds stalled workers: busy for longer than the stall time-out without giving a request to the handler.
//!
//! It looks a few times per time-out, and only while somebody is busy: after a look that finds all idle it asks for
//! wake-ups again and looks once more, so that a worker that became busy in between is not missed; then it sleeps.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::time::Duration;

use crate::supervisor::Pid;
use crate::time::Time;

/// Looks per stall time-out: a stall is found at most this fraction of it late.
const LOOKS: u32 = 4;

/// When to look, and what was seen last.
#[derive(Debug)]
pub(crate) struct Watch {
    /// Zero when stalls are allowed.
    stall_timeout: Duration,
    next: Option<Time>,
    /// All were idle at the last look.
    was_idle: bool,
    seen: BTreeMap<Pid, Seen>,
}

/// What a worker's row said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sight {
    pub(crate) pid: Pid,
    pub(crate) busy_since: Option<Time>,
    pub(crate) requests: u64,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    busy_since: Time,
    requests: u64,
    progress: Time,
}

impl Watch {
    pub(crate) fn new(stall_timeout: Duration) -> Watch {
        Watch { stall_timeout, next: None, was_idle: true, seen: BTreeMap::new() }
    }

    /// Whether workers need to tell when they become busy.
    pub(crate) fn is_off(&self) -> bool {
        self.stall_timeout.is_zero()
    }

    /// When the next look is due.
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.next
    }

    /// A worker has become busy while nobody looked.
    pub(crate) fn wake(&mut self, now: Time) {
        if !self.is_off() {
            self.was_idle = false;
            self.next = Some(now + self.stall_timeout / LOOKS);
        }
    }

    /// Looks at every row; returns who stalls. Whether workers are to tell when they become busy again is
    /// [`sleeps`](Watch::sleeps).
    pub(crate) fn look(&mut self, sights: impl Iterator<Item = Sight>, now: Time) -> Vec<Pid> {
        let mut seen = BTreeMap::new();
        let mut stalled = Vec::new();
        for sight in sights {
            let Some(busy_since) = sight.busy_since else { continue };
            let progress = match self.seen.get(&sight.pid) {
                Some(last) if last.busy_since == busy_since && last.requests == sight.requests => last.progress,
                Some(last) if last.busy_since == busy_since => now,
                _ => busy_since,
            };
            if now.since(progress) >= self.stall_timeout {
                stalled.push(sight.pid);
            }
            seen.insert(sight.pid, Seen { busy_since, requests: sight.requests, progress });
        }
        let is_idle = seen.is_empty();
        self.next = if is_idle && self.was_idle { None } else { Some(now + self.stall_timeout / LOOKS) };
        self.was_idle = is_idle;
        self.seen = seen;
        stalled
    }

    /// Whether the last look found all idle, so that workers must tell when they become busy.
    pub(crate) fn sleeps(&self) -> bool {
        self.was_idle && !self.is_off()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALL: Duration = Duration::from_secs(4);

    fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    fn busy(pid: i32, since: u64, requests: u64) -> Sight {
        Sight { pid: Pid(pid), busy_since: Some(at(since)), requests }
    }

    fn idle(pid: i32) -> Sight {
        Sight { pid: Pid(pid), busy_since: None, requests: 0 }
    }

    #[test]
    fn a_worker_stalls_after_its_timeout_and_not_before() {
        let mut watch = Watch::new(STALL);
        watch.wake(at(1_000));
        assert_eq!(watch.deadline(), Some(at(2_000)));
        assert_eq!(watch.look([busy(7, 1_000, 3)].into_iter(), at(2_000)), []);
        assert_eq!(watch.look([busy(7, 1_000, 3)].into_iter(), at(4_999)), []);
        assert_eq!(watch.look([busy(7, 1_000, 3)].into_iter(), at(5_000)), [Pid(7)]);
    }

    #[test]
    fn a_long_turn_that_gives_out_requests_is_no_stall() {
        let mut watch = Watch::new(STALL);
        watch.wake(at(1_000));
        for look in 1..20 {
            assert_eq!(watch.look([busy(7, 1_000, look)].into_iter(), at(1_000 + look * 1_000)), []);
        }
    }

    #[test]
    fn a_new_turn_starts_the_clock_again() {
        let mut watch = Watch::new(STALL);
        watch.wake(at(1_000));
        assert_eq!(watch.look([busy(7, 1_000, 3)].into_iter(), at(4_000)), []);
        assert_eq!(watch.look([busy(7, 3_900, 3)].into_iter(), at(6_000)), []);
    }

    #[test]
    fn an_idle_pool_is_looked_at_twice_and_left_alone() {
        let mut watch = Watch::new(STALL);
        watch.wake(at(0));
        watch.look([idle(7)].into_iter(), at(1_000));
        assert!(watch.sleeps());
        assert_eq!(watch.deadline(), Some(at(2_000)));
        watch.look([idle(7)].into_iter(), at(2_000));
        assert_eq!(watch.deadline(), None);
    }

    #[test]
    fn the_look_after_falling_asleep_finds_who_slipped_by() {
        let mut watch = Watch::new(STALL);
        watch.wake(at(0));
        watch.look([idle(7)].into_iter(), at(1_000));
        watch.look([busy(7, 1_000, 1)].into_iter(), at(2_000));
        assert!(!watch.sleeps());
        assert_eq!(watch.look([busy(7, 1_000, 1)].into_iter(), at(5_000)), [Pid(7)]);
    }

    #[test]
    fn without_a_timeout_it_never_looks() {
        let mut watch = Watch::new(Duration::ZERO);
        watch.wake(at(0));
        assert_eq!(watch.deadline(), None);
        assert!(!watch.sleeps());
    }
}
