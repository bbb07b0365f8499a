//! What becomes of workers: they are ready, finish, exit, are stopped by signals, hang, grow.
//!
//! **Stalls.** A worker writes to its scoreboard row when it becomes busy and when it waits. The parent looks a few
//! times per stall time-out, but only while somebody is busy: after a look that finds all idle it clears a shared
//! word, looks once more, and sleeps; the first worker to become busy then sets the word and wakes it by the
//! lifeline. An idle pool makes no system call. Time in which the machine gave the worker no processor is not
//! counted. A worker that a signal has stopped does not stall: SIGCHLD tells.
//!
//! **Frozen time.** The monotonic clock goes on while all of the pool stands still (SIGSTOP, the cgroup freezer, a
//! paused virtual machine). While a time-out runs, the parent therefore looks at the clock four times a second. If it
//! does so much later than it meant to, nobody could run meanwhile: the supervisor learns how long (`Event::Frozen`)
//! and puts off whatever counts time, but for `--max-age`, which is wall time.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use super::admin::cpu_of_the_reaped;
use super::*;
use crate::parent::supervisor::{Departure, Respawn};
use crate::parent::watch::Schedule;

/// How often the workers' memory is looked at, if it is limited.
const WEIGHING: Duration = Duration::from_secs(1);

/// No worker has more connections, whatever it says of itself.
const CONNECTIONS_MAX: u64 = 1 << 24;

impl Parent {
    pub(super) fn ready(&mut self, pid: Pid) {
        self.journal.say_rarely(log::Level::Info, self.roster.slot_of(pid), format!("{} ready", self.roster.tag(pid)));
        self.tell(Event::Ready { pid });
        if let Some(process) = self.roster.get_mut(pid) {
            process.was_ready = true;
        }
        self.emit(&event::Event::Ready(self.roster.identify(pid)));
    }

    /// Asks a worker to finish.
    pub(super) fn drain(&mut self, pid: Pid) {
        if let Some(process) = self.roster.get(pid) {
            process.ends.lifeline.close();
        }
        self.disconnected(pid);
    }

    pub(super) fn kill(&mut self, pid: Pid, why: KillReason) {
        let violation = self.roster.get(pid).and_then(|process| process.violation.as_deref());
        let reason = match violation {
            Some(violation) if why == KillReason::Misbehaved => format!("killed: {violation}"),
            _ => kill_reason(why, &self.config),
        };
        let within = match why {
            KillReason::Stalled => self.roster.get(pid).map(|process| self.within(process.row)).unwrap_or_default(),
            _ => String::new(),
        };
        let text = format!("{} {reason}{within}", self.roster.tag(pid));
        self.journal.say_rarely(log::Level::Warn, self.roster.slot_of(pid), text.clone());
        // Those that count as failures of the slot's.
        if matches!(why, KillReason::BootTimeout | KillReason::Stalled | KillReason::Misbehaved) {
            self.journal.failed(self.roster.slot_of(pid), format!("a worker was {reason}"), text);
        }
        self.kill_tree(pid);
        self.disconnected(pid);
    }

    /// The request that a worker is in, as it says itself, for the log.
    pub(super) fn within(&self, row: usize) -> String {
        self.board.request(row).map(|request| format!(" in {request}")).unwrap_or_default()
    }

    /// The worker is to finish or has ended: tells the application, once.
    pub(super) fn disconnected(&mut self, pid: Pid) {
        let Some(process) = self.roster.get_mut(pid) else { return };
        if !std::mem::replace(&mut process.is_disconnected, true) {
            self.emit(&event::Event::Disconnected(self.roster.identify(pid)));
        }
    }

    /// Reaps what has exited: only our own, since the caller may have other children; as PID 1 also orphans, which
    /// nobody else can reap.
    pub(super) fn reap(&mut self) {
        self.reap_admin();
        self.discard.reap();
        let mut used = cpu_of_the_reaped();
        for pid in self.roster.pids() {
            for fate in reap::fates(pid) {
                match fate {
                    Fate::Exited(exit) => {
                        let before = std::mem::replace(&mut used, cpu_of_the_reaped());
                        self.exited(pid, exit, used.saturating_sub(before));
                    }
                    Fate::Suspended => self.suspended(pid, true),
                    Fate::Resumed => self.suspended(pid, false),
                }
            }
        }
        if let Some(pid) = self.successor.as_ref().map(|successor| Pid(successor.pid)) {
            self.reap_successor(pid);
        }
        self.end_orphans();
        if process::id() == 1 {
            reap::orphans(|pid| self.is_known(pid));
        }
    }

    /// A signal has stopped it, or it runs again.
    pub(super) fn suspended(&mut self, pid: Pid, is_stopped: bool) {
        let (slot, tag) = (self.roster.slot_of(pid), self.roster.tag(pid));
        if is_stopped {
            self.journal.say_rarely(log::Level::Warn, slot, format!("{tag} was stopped by a signal"));
            self.tell(Event::Suspended { pid });
        } else {
            self.journal.say_rarely(log::Level::Info, slot, format!("{tag} runs again"));
            self.tell(Event::Resumed { pid });
        }
    }

    /// It was reaped, having used so many microseconds of CPU.
    fn exited(&mut self, pid: Pid, exit: Exit, cpu: u64) {
        self.hear(pid);
        self.hear_last_messages(pid);
        self.disconnected(pid);
        let (process_told, tag) = (self.roster.identify(pid), self.roster.tag(pid));
        let Some(gone) = self.roster.supervisor.gone(pid, exit) else { return };
        let Some(mut process) = self.roster.reap(pid) else { return };
        self.look_for_orphans(&process);
        let departure = gone.departure;
        let now = clock::now();
        self.doubt(pid, &process, now);
        let counters = self.board.row(process.row).counters(now);
        let reason = process.ends.lifeline.failure();
        let why = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        let was_signalled = matches!(exit, Exit::Signal { signal, .. } if process.signalled.get() == Some(signal));
        let how = if departure.was_told() || was_signalled { describe(exit) } else { describe_unasked(exit) };
        let line = format!("{tag} {how}{why}");
        let level = if departure.was_told() { log::Level::Info } else { log::Level::Warn };
        match &process.ends.program {
            // What it has served, nobody knows.
            Some(_) => self.journal.say_rarely(level, Some(process.slot), line.clone()),
            None => {
                let within = self.within(process.row);
                let text =
                    format!("{line}{within}, {} requests on {} connections", counters.requests, counters.accepted);
                self.journal.say_rarely(level, Some(process.slot), text);
            }
        }
        self.forget_sign(std::mem::replace(&mut process.ends.sign, Sign::GivenUp));
        self.count_exit(process.shown(pid), gone, &format!("{how}{why}"), cpu);
        if !departure.was_told() {
            let how = format!("a worker {}{why}", describe_unasked(exit));
            self.journal.failed(Some(process.slot), how, line);
        }
        let has_served = counters.accepted > 0;
        if departure == Departure::Forced && exit != Exit::Code(0) {
            self.cut_off(&process);
        }
        self.neighbours.gone(pid);
        self.access_log.write_last(&self.board.take_lines(process.row), &tag);
        self.board.fold(process.row, now);
        let told = event::Exit {
            process: process_told,
            status: status_of(exit),
            was_ready: departure == Departure::Unasked { was_ready: true },
            was_requested: departure.was_asked(),
            reason: reason.as_deref(),
        };
        let respawn = match departure {
            Departure::Unasked { .. } => self.policy_of(&told),
            _ => Respawn::Backoff,
        };
        self.tell(Event::Exited { pid, exit, has_served, respawn });
        self.emit(&event::Event::Exited(told));
    }

    /// A forced stop has ended it, with whatever it had.
    fn cut_off(&mut self, process: &Process) {
        let row = self.board.row(process.row);
        if row.is_neighbour() || row.says_busy() || row.accepted() > 0 {
            self.cut.connections += row.counters(clock::now()).open().min(CONNECTIONS_MAX);
        } else if process.was_ready {
            self.cut.unknown += 1;
        }
    }

    /// Says once of each process that what it says of itself cannot be.
    fn doubt(&self, pid: Pid, process: &Process, now: Time) {
        if process.is_doubted.get() {
            return;
        }
        if let Some(why) = self.board.row(process.row).doubt(now) {
            process.is_doubted.set(true);
            warn!("{} has invalid numbers in shared memory, which are ignored: {why}", self.roster.tag(pid));
        }
    }

    /// A worker has become busy while nobody looked.
    pub(super) fn watch_stalls(&mut self, now: Time) {
        self.watch.wake(now);
        self.board.watch(true);
    }

    pub(super) fn look_for_stalls(&mut self) {
        let now = clock::now();
        if self.watch.deadline().is_none_or(|due| now < due) {
            return;
        }
        for (pid, process) in self.roster.iter() {
            self.doubt(pid, process, now);
        }
        let sights = self.roster.iter().map(|(pid, process)| {
            let row = self.board.row(process.row);
            let busy_since = row.busy_since();
            let schedule = busy_since.and_then(|_| proc::schedule(pid.0)).map(|it| Schedule {
                is_runnable: it.is_runnable,
                ran: it.ran,
                waited: it.waited,
            });
            let schedule = schedule.unwrap_or_default();
            Sight { pid, busy_since, deeds: row.progress(), schedule }
        });
        let stalled = self.watch.look(sights, now);
        self.board.watch(!self.watch.sleeps());
        // One that leaves has another time-out.
        for pid in stalled.into_iter().filter(|pid| self.roster.is_ready(*pid)).collect::<Vec<_>>() {
            self.emit(&event::Event::Stalled(self.roster.identify(pid)));
            self.tell(Event::Stalled { pid });
        }
    }

    /// Looks at the memory of each worker, and has those replaced that hold more than they may.
    pub(super) fn weigh(&mut self) {
        let now = clock::now();
        if self.next_weighing.is_none_or(|due| now < due) {
            return;
        }
        self.next_weighing = Some(now + WEIGHING);
        let max = u64::try_from(self.config.max_rss).unwrap_or(u64::MAX);
        let weight = |pid, process: &Process| proc::resident(process.shown(pid));
        let heavy = self.roster.iter().filter(|(pid, it)| weight(*pid, it).is_some_and(|bytes| bytes > max));
        for pid in heavy.map(|(pid, _)| pid).collect::<Vec<_>>() {
            self.tell(Event::Recycle { pid, why: Recycle::Memory });
        }
    }
}

/// The status as the standard library has it: wait(2)'s.
fn status_of(exit: Exit) -> Option<ExitStatus> {
    match exit {
        Exit::Code(code) => Some(ExitStatus::from_raw(code << 8)),
        // Somebody else has reaped it.
        Exit::Signal { signal: 0, .. } => None,
        Exit::Signal { signal, core_dumped } => Some(ExitStatus::from_raw(signal | if core_dumped { 0x80 } else { 0 })),
    }
}
