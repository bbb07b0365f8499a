//! What happens to workers: they become ready, finish, are stopped by signals, are killed, exit. Each step informs
//! everybody concerned: the roster and its supervisor, the application, the log.

use std::os::unix::process::ExitStatusExt;
use std::process::{self, ExitStatus};

use log::debug;
use nix::sys::signal::Signal;

use crate::parent::admin::{cpu_of_the_reaped, Admin};
use crate::parent::announce::{describe, describe_unasked, kill_reason};
use crate::parent::application::Application;
use crate::parent::discard::Discard;
use crate::parent::event::{self, Event as Lifecycle};
use crate::parent::health::Health;
use crate::parent::journal::Journal;
use crate::parent::process::{signal, Roster};
use crate::parent::programs::{drop_notifications, kill_tree, Notice};
use crate::parent::reap::{self, ChildStatus};
use crate::parent::roster::Progress;
use crate::parent::sockets::Sockets;
use crate::parent::subject::{exit_word, kill_word};
use crate::parent::supervisor::{Departure, Event, Exit, KillReason, Pid, Respawn};
use crate::parent::takeover::Takeover;
use crate::parent::Parent;
use crate::shared::config::Config;
use crate::shared::listener::SlotSockets;
use crate::shared::scoreboard::ParentBoard;
use crate::shared::state::Reason;
use crate::sys::clock;

/// A worker has dropped what the fork copied, and passes on the sockets that it has made.
pub(super) fn listening(
    pid: Pid,
    roster: &mut Roster,
    sockets: &mut Sockets,
    discard: &mut Discard,
    application: &mut Application,
    journal: &mut Journal,
) {
    let Some(process) = roster.get_mut(pid) else { return };
    let slot = process.slot;
    process.progress.reach(Progress::Listening);
    match process.ends.lifeline.take_made() {
        Ok(made) => sockets.keep(slot, made, journal),
        Err((problem, fds)) => {
            discard.add(fds);
            return roster.misbehaved(pid, problem.to_owned(), clock::now());
        }
    }
    roster.tell(Event::Listening { pid }, clock::now());
    let process = roster.identify(pid);
    application.emit(&Lifecycle::Online(process), roster, journal);
    let addresses = sockets.custody().sockets(slot).map(SlotSockets::addresses).unwrap_or_default();
    let udp = sockets.custody().sockets(slot).map(SlotSockets::udp_addresses).unwrap_or_default();
    application.emit(&Lifecycle::Listening { process, addresses: &addresses, udp: &udp }, roster, journal);
}

/// A program has notified.
pub(super) fn notified(
    pid: Pid,
    notice: Notice,
    roster: &mut Roster,
    application: &mut Application,
    journal: &mut Journal,
) {
    match notice {
        Notice::Nothing => {}
        Notice::Ready => ready(pid, roster, application, journal),
        Notice::TooMany => roster.misbehaved(pid, "it sent too many notifications".to_owned(), clock::now()),
    }
}

/// A worker serves.
pub(super) fn ready(pid: Pid, roster: &mut Roster, application: &mut Application, journal: &mut Journal) {
    journal.log_limited(log::Level::Info, roster.subject("ready", pid), format!("{} ready", roster.tag(pid)));
    roster.tell(Event::Ready { pid }, clock::now());
    if let Some(process) = roster.get_mut(pid) {
        process.progress.reach(Progress::Ready);
    }
    application.emit(&Lifecycle::Ready(roster.identify(pid)), roster, journal);
}

/// A signal has stopped it, or it runs again.
pub(super) fn suspended(pid: Pid, is_stopped: bool, roster: &mut Roster, journal: &mut Journal) {
    let tag = roster.tag(pid);
    let event = if is_stopped {
        journal.log_limited(
            log::Level::Warn,
            roster.subject("suspended", pid),
            format!("{tag} was stopped by a signal"),
        );
        Event::Suspended { pid }
    } else {
        journal.log_limited(log::Level::Info, roster.subject("resumed", pid), format!("{tag} runs again"));
        Event::Resumed { pid }
    };
    roster.tell(event, clock::now());
}

/// Tells a worker to finish.
pub(super) fn drain(pid: Pid, roster: &mut Roster, application: &mut Application, journal: &Journal) {
    if let Some(process) = roster.get(pid) {
        process.ends.lifeline.close();
    }
    disconnected(pid, roster, application, journal);
}

/// Tells the application, once, that the worker will finish or has ended.
pub(super) fn disconnected(pid: Pid, roster: &mut Roster, application: &mut Application, journal: &Journal) {
    let Some(process) = roster.get_mut(pid) else { return };
    if !std::mem::replace(&mut process.is_disconnected, true) {
        application.emit(&Lifecycle::Disconnected(roster.identify(pid)), roster, journal);
    }
}

/// Makes a hung worker end itself, with a core dump.
pub(super) fn abort(pid: Pid, roster: &Roster, health: &Health, config: &Config, journal: &mut Journal) {
    let within = roster.get(pid).map(|process| health.within(process.row)).unwrap_or_default();
    let reason = kill_reason(KillReason::Stalled, config, None);
    let subject = roster.subject("killed", pid).because(kill_word(KillReason::Stalled));
    journal.log(log::Level::Warn, subject, format!("{} {reason}{within}", roster.tag(pid)));
    signal(pid, Signal::SIGABRT);
}

/// Kills a worker, and logs the reason.
pub(super) fn kill(
    pid: Pid,
    why: KillReason,
    roster: &Roster,
    health: &Health,
    config: &Config,
    journal: &mut Journal,
) {
    let violation = roster.get(pid).and_then(|process| process.trust.violation());
    let reason = match violation {
        Some(violation) if why == KillReason::Misbehaved => format!("killed: {violation}"),
        _ => kill_reason(why, config, roster.get(pid).and_then(|process| process.ends.program.as_ref())),
    };
    let within = match why {
        KillReason::Stalled => roster.get(pid).map(|process| health.within(process.row)).unwrap_or_default(),
        _ => String::new(),
    };
    let text = format!("{} {reason}{within}", roster.tag(pid));
    journal.log_limited(log::Level::Warn, roster.subject("killed", pid).because(kill_word(why)), text.clone());
    // These count as failures of the slot.
    if matches!(why, KillReason::BootTimeout | KillReason::Stalled | KillReason::Misbehaved) {
        journal.failed(roster.slot_of(pid), reason, text);
    }
    kill_tree(pid, roster);
}

impl Parent {
    /// Reaps children that have exited: only those of the pool, since the caller may have others. As PID 1, also
    /// orphans, which nobody else can reap.
    pub(super) fn reap(&mut self) {
        if let Some(admin) = &mut self.outputs.admin {
            admin.reap(&self.wakeups, &mut self.journal);
        }
        self.discard.reap();
        let mut used = cpu_of_the_reaped();
        for pid in self.roster.pids() {
            for status in reap::statuses(pid) {
                match status {
                    ChildStatus::Exited(exit) => {
                        let before = std::mem::replace(&mut used, cpu_of_the_reaped());
                        self.exited(pid, exit, used.saturating_sub(before));
                        self.obey_application();
                    }
                    ChildStatus::Suspended => suspended(pid, true, &mut self.roster, &mut self.journal),
                    ChildStatus::Resumed => suspended(pid, false, &mut self.roster, &mut self.journal),
                }
            }
        }
        if let Some(pid) = self.takeover.successor() {
            let exits = reap::statuses(pid).into_iter().filter_map(|status| match status {
                ChildStatus::Exited(exit) => Some(exit),
                _ => None,
            });
            for exit in exits {
                // Its last message may be that it serves. Then its exit no longer concerns this pool.
                self.read_successor();
                if self.takeover.end_successor().is_some() {
                    self.roster.tell(Event::SuccessorGone { exit: Some(exit) }, clock::now());
                }
            }
        }
        let Parent { roster, outputs, takeover, discard, programs, .. } = self;
        let is_known = |pid| is_known(pid, roster, outputs.admin.as_ref(), takeover, discard);
        programs.orphans.end(is_known);
        if process::id() == 1 {
            reap::orphans(is_known);
        }
    }

    /// A worker was reaped, and has used this many microseconds of CPU time.
    fn exited(&mut self, pid: Pid, exit: Exit, cpu: u64) {
        self.read_reports(pid);
        self.read_last_messages(pid);
        disconnected(pid, &mut self.roster, &mut self.application, &self.journal);
        self.obey_application();
        let (told, tag, subject) =
            (self.roster.identify(pid), self.roster.tag(pid), self.roster.subject("exited", pid));
        let Some(gone) = self.roster.supervisor.gone(pid, exit) else { return };
        let Some(mut process) = self.roster.reap(pid) else { return };
        self.programs.orphans.look(&process, &mut self.journal);
        let now = clock::now();
        self.health.doubt(&process, || tag.clone(), now);
        let counters = self.health.board().row(process.row).counters(now);
        let reason = process.ends.lifeline.failure();
        let why = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        let was_signalled = matches!(exit, Exit::Signal { signal, .. } if process.signalled.get() == Some(signal));
        let was_told = gone.departure.was_told();
        let how = if was_told || was_signalled { describe(exit) } else { describe_unasked(exit) };
        let line = format!("{tag} {how}{why}");
        let served = match &process.ends.program {
            // Nobody knows what a program has served.
            Some(_) => String::new(),
            None => {
                let within = self.health.within(process.row);
                format!("{within}, {} requests on {} connections", counters.requests, counters.accepted)
            }
        };
        let level = if was_told { log::Level::Info } else { log::Level::Warn };
        let word = if was_told { "requested" } else { gone.restart.map_or(exit_word(exit), Reason::as_str) };
        self.journal.log_limited(level, subject.because(word), format!("{line}{served}"));
        drop_notifications(&mut process.ends.ready_check, &mut self.discard);
        if let Some(admin) = &mut self.outputs.admin {
            admin.count_exit(process.shown(pid), gone, &format!("{how}{why}"), cpu);
        }
        if !was_told {
            self.journal.failed(Some(process.slot), format!("{}{why}", describe_unasked(exit)), line);
        }
        if gone.departure == Departure::Forced && exit != Exit::Code(0) {
            self.health.cut_off(&process, now);
        }
        let sharers = self.sockets.sharers(pid, process.slot, &self.roster);
        self.sockets.gone(pid);
        self.handover.gone(pid);
        if !was_told || matches!(exit, Exit::Signal { .. }) {
            look(&sharers, &self.roster);
        }
        self.outputs.access_log.write_last(&self.health.board().take_lines(process.row), &tag);
        self.health.board().fold(process.row, now);
        let told = exit_told(told, exit, gone.departure, reason.as_deref());
        let respawn = match gone.departure {
            Departure::Unasked { .. } => self.application.policy_of(&told),
            _ => Respawn::Backoff,
        };
        let has_served = counters.accepted > 0;
        self.roster.tell(Event::Exited { pid, exit, has_served, respawn }, clock::now());
        self.application.emit(&Lifecycle::Exited(told), &self.roster, &self.journal);
    }
}

/// Orders these workers to look at their queues. The kernel wakes only one worker for a connection (EPOLLEXCLUSIVE,
/// epoll_ctl(2)), and that one cannot accept it: it has ended, or it is full.
fn look(sharers: &[Pid], roster: &Roster) {
    for process in sharers.iter().filter_map(|pid| roster.get(*pid)) {
        if let Err(error) = process.ends.lifeline.look() {
            debug!("cannot order worker={} to look at its queues: {error}", process.slot);
        }
    }
}

/// A connection waits in a queue of this worker, which has no room for it. The kernel may have woken nobody else. So
/// another worker is to look: one that says that it has room, an idle one if there is any.
pub(super) fn overflowed(pid: Pid, roster: &Roster, sockets: &Sockets, board: &ParentBoard) {
    let Some(process) = roster.get(pid) else { return };
    let order = |pid: &Pid| {
        let process = roster.get(*pid)?;
        let row = board.row(process.row);
        let is_able = !row.is_full() && board.row_of(process.slot) == Some(process.row);
        is_able.then(|| (row.busy_since().is_some(), row.open()))
    };
    let sharers = sockets.sharers(pid, process.slot, roster);
    let next = sharers.into_iter().filter_map(|pid| Some((order(&pid)?, pid))).min();
    look(next.map(|(_, pid)| pid).as_slice(), roster);
}

/// Whether the parent itself looks after this child.
pub(super) fn is_known(
    pid: Pid,
    roster: &Roster,
    admin: Option<&Admin>,
    takeover: &Takeover,
    discard: &Discard,
) -> bool {
    roster.get(pid).is_some()
        || [admin.and_then(Admin::pid), takeover.successor()].contains(&Some(pid))
        || discard.is_holder(pid)
        // Its keeper is dead and not reaped yet.
        || roster.iter().any(|(_, process)| process.program == Some(pid.0))
}

/// Describes an exit for the application.
fn exit_told(process: event::Process, exit: Exit, departure: Departure, reason: Option<&str>) -> event::Exit<'_> {
    event::Exit {
        process,
        status: status_of(exit),
        was_ready: departure == Departure::Unasked { was_ready: true },
        was_requested: departure.was_asked(),
        reason,
    }
}

/// The status as a type of the standard library, in the encoding of wait(2).
fn status_of(exit: Exit) -> Option<ExitStatus> {
    match exit {
        Exit::Code(code) => Some(ExitStatus::from_raw(code << 8)),
        // Other code has reaped it.
        Exit::Signal { signal: 0, .. } => None,
        Exit::Signal { signal, core_dumped } => Some(ExitStatus::from_raw(signal | if core_dumped { 0x80 } else { 0 })),
    }
}
