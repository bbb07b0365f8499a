//! The health of workers: stalls, memory, and their reports in shared memory.
//!
//! It owns the scoreboard, the stall watch, and the count of what a forced stop has cut off. Its input: the roster and
//! the time. Its output: the processes that hang or use too much memory.
//!
//! **Stalls.** A worker writes to its scoreboard row when it becomes busy and when it waits. The parent checks a few
//! times per stall timeout, but only while some worker is busy. After a check that finds all idle it clears a shared
//! word, checks once more, and sleeps. The first worker that becomes busy then sets the word and wakes the parent by a
//! report. An idle pool makes no system call. Time in which the machine gave the worker no processor is not counted. A
//! worker that is stopped by a signal does not stall; SIGCHLD reports it.
//!
//! **Frozen time.** The monotonic clock goes on while the whole pool is frozen (SIGSTOP, the cgroup freezer, a paused
//! virtual machine). So while a timeout runs, the parent looks at the clock four times a second. If it does so much
//! later than intended, no process could run meanwhile: the supervisor learns for how long (`Event::Frozen`), and
//! postpones everything that depends on time, except `--max-age`, which is wall time.

use std::rc::Rc;
use std::time::Duration;

use log::{debug, warn};

use crate::parent::process::{Process, Roster};
use crate::parent::roster::Progress;
use crate::parent::supervisor::Pid;
use crate::parent::watch::{Sample, Schedule, Watch};
use crate::shared::config::Config;
use crate::shared::scoreboard::ParentBoard;
use crate::sys::proc;
use crate::time::Time;

/// How often the workers' memory is checked, if it is limited.
const MEMORY_INTERVAL: Duration = Duration::from_secs(1);

/// No worker has more connections, whatever it reports.
const CONNECTIONS_MAX: u64 = 1 << 24;

/// What the parent knows about the health of workers.
#[derive(Debug)]
pub(super) struct Health {
    board: Rc<ParentBoard>,
    watch: Watch,
    /// The maximum memory of a worker, in bytes; 0 is no limit.
    max_rss: u64,
    /// When to check the workers' memory.
    next_weighing: Option<Time>,
    cut: Interrupted,
}

/// What workers had when they were killed, since the pool was forced to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Interrupted {
    /// Open connections. Idle ones are closed soon after a drain begins, so these had requests.
    pub(super) connections: u64,
    /// Workers that do not count their connections.
    pub(super) unknown: usize,
}

impl Health {
    pub(super) fn new(board: Rc<ParentBoard>, config: &Config, now: Time) -> Health {
        let watch = Watch::new(config.lifecycle.stall_timeout);
        board.watch(watch.is_off());
        let mut health = Health { board, watch, max_rss: 0, next_weighing: None, cut: Interrupted::default() };
        health.limit(config.recycling.max_rss, now);
        health
    }

    fn limit(&mut self, max_rss: usize, now: Time) {
        self.max_rss = u64::try_from(max_rss).unwrap_or(u64::MAX);
        self.next_weighing = (max_rss > 0).then_some(now);
    }

    /// Applies changed settings.
    pub(super) fn apply(&mut self, before: &Config, config: &Config, now: Time) {
        if before.recycling.max_rss != config.recycling.max_rss {
            self.limit(config.recycling.max_rss, now);
        }
        if before.lifecycle.stall_timeout != config.lifecycle.stall_timeout {
            self.watch = Watch::new(config.lifecycle.stall_timeout);
            self.board.watch(self.watch.is_off());
            self.wake(now);
        }
    }

    pub(super) fn board(&self) -> &Rc<ParentBoard> {
        &self.board
    }

    pub(super) fn cut(&self) -> Interrupted {
        self.cut
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        [self.watch.deadline(), self.next_weighing].into_iter().flatten().min()
    }

    /// Whether a timeout runs, so that the parent must look at the clock.
    pub(super) fn counts_time(&self) -> bool {
        self.watch.deadline().is_some()
    }

    /// No process could run for this time.
    pub(super) fn frozen(&mut self, span: Duration) {
        debug!("the pool was frozen for {span:?}, which counts for no timeout");
        self.watch.frozen(span);
    }

    /// A worker has become busy while the parent was not checking.
    pub(super) fn wake(&mut self, now: Time) {
        self.watch.wake(now);
        self.board.watch(true);
    }

    /// Whether any serving worker responds, as far as was checked.
    pub(super) fn responds(&self, roster: &Roster) -> bool {
        roster.supervisor.slots().serving().any(|(_, pid)| self.watch.is_well(pid))
    }

    /// The request that a worker is handling, by its own report, for the log.
    pub(super) fn within(&self, row: usize) -> String {
        self.board.request(row).map(|request| format!(" in {request}")).unwrap_or_default()
    }

    /// A forced stop has killed it, with everything that it had.
    pub(super) fn cut_off(&mut self, process: &Process, now: Time) {
        let row = self.board.row(process.row);
        if row.is_neighbour() || row.says_busy() || row.accepted() > 0 {
            self.cut.connections += row.counters(now).open().min(CONNECTIONS_MAX);
        } else if process.progress == Progress::Ready {
            self.cut.unknown += 1;
        }
    }

    /// Logs, once per process, that its reports are impossible.
    pub(super) fn doubt(&self, process: &Process, tag: impl FnOnce() -> String, now: Time) {
        if let Some(why) = process.trust.doubt(|| self.board.row(process.row).doubt(now)) {
            warn!("{} has invalid numbers in shared memory, which are ignored: {why}", tag());
        }
    }

    /// The workers that hang, if it is time to check.
    pub(super) fn find_stalled(&mut self, roster: &Roster, now: Time) -> Vec<Pid> {
        if self.watch.deadline().is_none_or(|due| now < due) {
            return Vec::new();
        }
        for (pid, process) in roster.iter() {
            self.doubt(process, || roster.tag(pid), now);
        }
        let samples = roster.iter().map(|(pid, process)| {
            let row = self.board.row(process.row);
            let busy_since = row.busy_since();
            let schedule = busy_since.and_then(|_| proc::schedule(pid.0)).map(|it| Schedule {
                is_runnable: it.is_runnable,
                ran: it.ran,
                waited: it.waited,
            });
            let schedule = schedule.unwrap_or_default();
            Sample { pid, busy_since, progress_count: row.progress(), schedule }
        });
        let stalled = self.watch.look(samples, now);
        self.board.watch(!self.watch.sleeps());
        // A worker that is leaving has another timeout.
        stalled.into_iter().filter(|pid| roster.is_ready(*pid)).collect()
    }

    /// The workers that exceed the memory limit, if it is time to check.
    pub(super) fn find_heavy(&mut self, roster: &Roster, now: Time) -> Vec<Pid> {
        if self.next_weighing.is_none_or(|due| now < due) {
            return Vec::new();
        }
        self.next_weighing = Some(now + MEMORY_INTERVAL);
        let weight = |pid, process: &Process| proc::resident(process.shown(pid));
        let heavy = roster.iter().filter(|(pid, it)| weight(*pid, it).is_some_and(|bytes| bytes > self.max_rss));
        heavy.map(|(pid, _)| pid).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parent::process;
    use crate::parent::program::ReadyCheck;

    #[test]
    fn it_looks_at_what_is_limited_and_only_then() {
        let at = Time::from_millis;
        let (roster, board, _ours) = process::tests::roster(ReadyCheck::Execution);
        let mut unlimited = Config::default();
        unlimited.lifecycle.stall_timeout = Duration::ZERO;
        let mut health = Health::new(board, &unlimited, at(0));
        assert_eq!((health.deadline(), health.counts_time()), (None, false));
        health.wake(at(0));
        assert_eq!(health.deadline(), None);
        // No memory of a process that is not there.
        let mut limited = Config::default();
        (limited.recycling.max_rss, limited.lifecycle.stall_timeout) = (1, Duration::from_secs(4));
        health.apply(&unlimited, &limited, at(1_000));
        assert_eq!((health.deadline(), health.counts_time()), (Some(at(1_000)), true));
        assert_eq!(health.find_heavy(&roster, at(999)), []);
        health.find_heavy(&roster, at(1_000));
        assert_eq!(health.deadline(), Some(at(2_000)), "the next look at memory, and at who stalls");
        health.apply(&limited, &unlimited, at(1_500));
        assert_eq!((health.deadline(), health.counts_time()), (None, false));
    }

    #[test]
    fn a_forced_stop_counts_what_it_has_cut_off() {
        let (mut roster, board, _ours) = process::tests::roster(ReadyCheck::Execution);
        let mut health = Health::new(board, &Config::default(), Time::default());
        let process = roster.get_mut(Pid(10)).expect("it is there");
        health.cut_off(process, Time::default());
        assert_eq!(health.cut(), Interrupted::default(), "it never served");
        process.progress.reach(Progress::Ready);
        health.cut_off(process, Time::default());
        assert_eq!(health.cut(), Interrupted { connections: 0, unknown: 1 }, "nobody knows what it had");
    }
}
