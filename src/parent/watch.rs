//! PURE. Finds stalled workers: busy for longer than the stall timeout without passing a request to the handler.
//!
//! Time in which a worker could not run because the machine gave its processors to others does not count: a starved
//! worker is not hung, and killing it would make matters worse. Nor does time in which nobody could run, because the
//! whole pool or its machine was stopped: the parent reports that ([`Watch::frozen`]), or the check comes late.
//!
//! It checks a few times per timeout, and only while some worker is busy. After a check that finds all idle it asks for
//! wake-ups and checks once more, so that it does not miss a worker that became busy in between. Then it sleeps.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::time::Duration;

use crate::parent::supervisor::Pid;
use crate::time::Time;

/// Checks per stall timeout. A stall is found late by at most this fraction of it.
const CHECKS_PER_TIMEOUT: u32 = 4;

/// When to check, and the result of the last check.
#[derive(Debug)]
pub(crate) struct Watch {
    /// Zero if stalls are allowed.
    stall_timeout: Duration,
    next: Option<Time>,
    /// When it was last woken. It knows nothing about the time before: the pool may have been frozen.
    woken: Time,
    /// Whether all were idle at the last check.
    was_idle: bool,
    /// How long nobody could run since the last check.
    frozen: Duration,
    seen: BTreeMap<Pid, LastCheck>,
}

/// The state of a worker by its row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) pid: Pid,
    pub(crate) busy_since: Option<Time>,
    /// A number that changes when the worker does something.
    pub(crate) progress_count: u64,
    pub(crate) schedule: Schedule,
}

/// How the kernel has scheduled a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// Whether it runs or could run; otherwise it waits for something.
    pub(crate) is_runnable: bool,
    /// Time on a processor.
    pub(crate) ran: Duration,
    /// Time that it waited for a processor, up to the last one it got.
    pub(crate) waited: Duration,
}

#[derive(Clone, Copy, Debug)]
struct LastCheck {
    at: Time,
    busy_since: Time,
    progress_count: u64,
    /// Since when it has done nothing, as far as is known.
    progress: Time,
    /// How much of that time it could not run.
    starved: Duration,
    schedule: Schedule,
}

impl LastCheck {
    /// The result of a first check, before which nobody could run for `lost`.
    fn first(sample: &Sample, busy_since: Time, woken: Time, now: Time, lost: Duration) -> LastCheck {
        let (progress_count, schedule) = (sample.progress_count, sample.schedule);
        let progress = busy_since.max(woken);
        let starved = lost.min(now.since(progress));
        LastCheck { at: now, busy_since, progress_count, progress, starved, schedule }
    }

    /// The result of a further check, which came `late`. `first` applies if the worker has become busy since the last
    /// one.
    fn next(self, sample: &Sample, first: LastCheck, late: Duration) -> LastCheck {
        let now = first.at;
        if self.busy_since != first.busy_since {
            return first;
        }
        if self.progress_count != sample.progress_count {
            return LastCheck { progress: now, starved: Duration::ZERO, ..first };
        }
        // The kernel only counts a wait when it ends. A current wait shows in a process that is runnable and has not
        // run.
        let starved = match sample.schedule.is_runnable && sample.schedule.ran == self.schedule.ran {
            true => now.since(self.at),
            false => sample.schedule.waited.saturating_sub(self.schedule.waited).min(now.since(self.at)),
        };
        LastCheck { progress: self.progress, starved: self.starved + starved.max(late), ..first }
    }
}

impl Watch {
    pub(crate) fn new(stall_timeout: Duration) -> Watch {
        Watch {
            stall_timeout,
            next: None,
            woken: Time::default(),
            was_idle: true,
            frozen: Duration::ZERO,
            seen: BTreeMap::new(),
        }
    }

    /// Whether workers need not report when they become busy.
    pub(crate) fn is_off(&self) -> bool {
        self.stall_timeout.is_zero()
    }

    /// When the next check is due.
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.next
    }

    /// A worker has become busy while nobody was checking.
    pub(crate) fn wake(&mut self, now: Time) {
        if !self.is_off() {
            self.was_idle = false;
            if self.next.is_none() {
                self.woken = now;
            }
            // A worker that reports this again and again delays nothing.
            let at = now + self.stall_timeout / CHECKS_PER_TIMEOUT;
            self.next = Some(self.next.map_or(at, |next| next.min(at)));
        }
    }

    /// Nobody could run for this time; it does not count.
    pub(crate) fn frozen(&mut self, span: Duration) {
        self.frozen += span;
        self.next = self.next.map(|at| at + span);
        for seen in self.seen.values_mut() {
            (seen.at, seen.progress) = (seen.at + span, seen.progress + span);
        }
    }

    /// Checks every row; returns the stalled workers. Whether workers must report when they become busy again is
    /// [`sleeps`](Watch::sleeps).
    pub(crate) fn look(&mut self, samples: impl Iterator<Item = Sample>, now: Time) -> Vec<Pid> {
        let late = self.next.map_or(Duration::ZERO, |due| now.since(due));
        let frozen = std::mem::take(&mut self.frozen);
        let mut seen = BTreeMap::new();
        let mut stalled = Vec::new();
        for sample in samples {
            let Some(busy_since) = sample.busy_since else { continue };
            let first = LastCheck::first(&sample, busy_since, self.woken, now, late + frozen);
            // Earlier results already account for the time `frozen`.
            let seen_now = self.seen.get(&sample.pid).map_or(first, |last| last.next(&sample, first, late));
            if now.since(seen_now.progress).saturating_sub(seen_now.starved) >= self.stall_timeout {
                stalled.push(sample.pid);
            }
            seen.insert(sample.pid, seen_now);
        }
        let is_idle = seen.is_empty();
        self.next = if is_idle && self.was_idle { None } else { Some(now + self.stall_timeout / CHECKS_PER_TIMEOUT) };
        self.was_idle = is_idle;
        self.seen = seen;
        stalled
    }

    /// Whether a worker was idle at the last check, or did something between the last two.
    pub(crate) fn is_well(&self, pid: Pid) -> bool {
        self.seen.get(&pid).is_none_or(|seen| seen.at.since(seen.progress) < self.stall_timeout / 2)
    }

    /// Whether the last check found all idle, so that workers must report when they become busy.
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

    fn busy(pid: i32, since: u64, progress_count: u64) -> Sample {
        Sample { pid: Pid(pid), busy_since: Some(at(since)), progress_count, schedule: Schedule::default() }
    }

    fn idle(pid: i32) -> Sample {
        Sample { pid: Pid(pid), busy_since: None, progress_count: 0, schedule: Schedule::default() }
    }

    #[test]
    fn a_worker_stalls_after_its_timeout_and_not_before() {
        let mut watch = Watch::new(STALL);
        watch.wake(at(1_000));
        assert_eq!(watch.deadline(), Some(at(2_000)));
        for time in [2_000, 3_000, 4_000, 4_999] {
            assert_eq!(watch.look([busy(7, 1_000, 3)].into_iter(), at(time)), []);
        }
        assert_eq!(watch.look([busy(7, 1_000, 3)].into_iter(), at(5_000)), [Pid(7)]);
    }

    /// As if the whole pool was frozen before the parent learned that a worker was busy.
    #[test]
    fn time_before_it_was_woken_is_not_counted() {
        let mut watch = Watch::new(STALL);
        watch.wake(at(9_000));
        // A second report is no new beginning.
        watch.wake(at(9_500));
        for time in [10_000, 11_000, 12_000, 12_999] {
            assert_eq!(watch.look([busy(7, 1_000, 3)].into_iter(), at(time)), [], "{time}");
        }
        assert_eq!(watch.look([busy(7, 1_000, 3)].into_iter(), at(13_000)), [Pid(7)]);
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
    fn time_without_a_processor_is_not_counted() {
        let starved = |ran: u64, waited: u64| Sample {
            schedule: Schedule {
                is_runnable: true,
                ran: Duration::from_millis(ran),
                waited: Duration::from_millis(waited),
            },
            ..busy(7, 1_000, 3)
        };
        let mut watch = Watch::new(STALL);
        watch.wake(at(1_000));
        assert_eq!(watch.look([starved(500, 0)].into_iter(), at(2_000)), []);
        // It does not run at all for seven seconds.
        assert_eq!(watch.look([starved(500, 0)].into_iter(), at(9_000)), []);
        // It gets a tenth of a processor. The wait that was seen before does not count twice.
        assert_eq!(watch.look([starved(600, 7_900)].into_iter(), at(10_000)), []);
        assert_eq!(watch.look([starved(700, 8_800)].into_iter(), at(11_000)), []);
        // It has a processor to itself and still makes no progress: two seconds so far, two more to go.
        assert_eq!(watch.look([starved(1_600, 8_800)].into_iter(), at(12_000)), []);
        assert_eq!(watch.look([starved(2_600, 8_800)].into_iter(), at(13_000)), []);
        assert_eq!(watch.look([starved(3_600, 8_800)].into_iter(), at(14_000)), [Pid(7)]);
    }

    #[test]
    fn a_worker_that_sleeps_is_not_starved() {
        let mut watch = Watch::new(STALL);
        watch.wake(at(1_000));
        for time in [2_000, 3_000, 4_000] {
            assert_eq!(watch.look([busy(7, 1_000, 3)].into_iter(), at(time)), []);
        }
        assert_eq!(watch.look([busy(7, 1_000, 3)].into_iter(), at(5_000)), [Pid(7)]);
    }

    #[test]
    fn time_in_which_nobody_ran_is_not_counted() {
        for seen_before in [true, false] {
            let mut watch = Watch::new(STALL);
            watch.wake(at(1_000));
            if seen_before {
                assert_eq!(watch.look([busy(7, 1_000, 3)].into_iter(), at(2_000)), []);
            }
            // Everything is frozen for a minute or more.
            let end = 100_000;
            assert_eq!(watch.look([busy(7, 1_000, 3)].into_iter(), at(end)), []);
            // The rest of its time remains.
            let left = if seen_before { 2_000 } else { 3_000 };
            for time in (end + 1_000..end + left).step_by(1_000) {
                assert_eq!(watch.look([busy(7, 1_000, 3)].into_iter(), at(time)), [], "{seen_before}");
            }
            assert_eq!(watch.look([busy(7, 1_000, 3)].into_iter(), at(end + left)), [Pid(7)], "{seen_before}");
        }
    }

    #[test]
    fn time_that_was_frozen_between_two_looks_is_not_counted() {
        for seen_before in [true, false] {
            let mut watch = Watch::new(STALL);
            watch.wake(at(1_000));
            if seen_before {
                assert_eq!(watch.look([busy(7, 1_000, 3)].into_iter(), at(2_000)), []);
            }
            // Half a second before the next check, and reported before it: the check is not late.
            watch.frozen(Duration::from_secs(60));
            let next = watch.deadline().expect("somebody is busy").as_millis();
            assert_eq!(next, if seen_before { 63_000 } else { 62_000 });
            for time in (next..65_000).step_by(1_000) {
                assert_eq!(watch.look([busy(7, 1_000, 3)].into_iter(), at(time)), [], "{seen_before}");
            }
            assert_eq!(watch.look([busy(7, 1_000, 3)].into_iter(), at(65_000)), [Pid(7)], "{seen_before}");
        }
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
        for time in [3_000, 4_000] {
            assert_eq!(watch.look([busy(7, 1_000, 1)].into_iter(), at(time)), []);
        }
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
