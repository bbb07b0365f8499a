//! Workers that run another program ([`Worker::exec`](crate::Worker::exec)), as its *keepers*. Each is told to finish
//! through its lifeline, like any worker, and its program is ready when its ready check says so.
//!
//! [`Programs`] owns the directory of their notification sockets, and the record of what dead keepers have left. Its
//! input: reports of keepers, notifications and the time. Its output: the programs that are ready, and those that send
//! too much.
//!
//! **A program as the worker.** The worker stays as the keeper. It reports that it is about to execute a program, the
//! program's pid, and when the program waits for connections. It exits as the program does, and so counts like any
//! worker. The configuration of the pool says which *ready check* shows that the program is ready: the keeper's report,
//! the execution itself, a delay that the parent waits for, or a notification on a datagram socket (sd_notify(3)) that
//! the parent has made before the fork. Everything else (custody, supervision, replacing, upgrade) is as for any
//! worker. Its row stays idle, so it does not stall, and the parent checks its queue, as that of any server but the
//! built-in one.
//!
//! **The end.** Killing a keeper leaves the processes that its program has started. So the keeper is ordered to kill
//! them, and is only killed itself if it has not ended a few seconds later, since its program may be able to block it.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;

use log::{debug, error};
use nix::sys::signal::Signal;

use crate::parent::discard::Discard;
use crate::parent::journal::Journal;
use crate::parent::notify::{self, Notification};
use crate::parent::orphans::Orphans;
use crate::parent::process::{signal, Ends, Process, Roster};
use crate::parent::program::{Program, ReadyCheck};
use crate::parent::roster::Progress;
use crate::parent::settings::Settings;
use crate::parent::source::Source;
use crate::parent::supervisor::Pid;
use crate::parent::wakeups::Wakeups;
use crate::shared::channel::remark::{Kind, Remark};
use crate::shared::config::Readiness;
use crate::shared::credentials::Credentials;
use crate::sys::clock;
use crate::sys::proc;
use crate::time::Time;

/// The notifications read at a time, so that a program that sends without end does not keep the parent.
const NOTIFICATIONS: usize = 64;

/// The programs that workers keep, and the signs that they are ready.
#[derive(Debug, Default)]
pub(super) struct Programs {
    /// Where they notify; `None` if none does.
    notifications: Option<Rc<notify::Directory>>,
    /// Programs whose notifications must be read again when fewer descriptors wait to be closed.
    unread: BTreeSet<Pid>,
    pub(super) orphans: Orphans,
    /// What was said about the addresses that programs bind.
    remarks: BTreeSet<Kind>,
}

/// The meaning of a program's notifications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    Nothing,
    /// It is ready.
    Ready,
    /// There were more than allowed.
    TooMany,
}

impl Programs {
    /// When a delay has passed, or a keeper is late.
    pub(super) fn deadline(&self, roster: &Roster) -> Option<Time> {
        let ready_at = roster.iter().filter_map(|(_, process)| process.ends.program.as_ref()?.ready_at);
        ready_at.chain(roster.iter().filter_map(|(_, process)| process.ends.killed_at.get())).min()
    }

    /// How the next worker's program will show that it is ready.
    pub(super) fn ready_check(&mut self, settings: &Settings) -> io::Result<ReadyCheck> {
        Ok(match settings.config.program.ready {
            Readiness::Auto | Readiness::Notify => {
                let user = settings.credentials.as_deref().and_then(Credentials::user);
                let user = user.unwrap_or_else(|| nix::unistd::geteuid().as_raw());
                let make = || Rc::new(notify::Directory::make(user));
                ReadyCheck::Notification(self.notifications.get_or_insert_with(make).socket()?)
            }
            Readiness::Delay(delay) => ReadyCheck::Delay(delay),
            Readiness::Listen => ReadyCheck::Execution,
            Readiness::Http(_) => ReadyCheck::Report,
        })
    }

    /// A worker is about to execute a program.
    pub(super) fn executes(&mut self, pid: Pid, roster: &mut Roster) {
        self.orphans.take();
        if let Some(process) = roster.get_mut(pid) {
            process.ends.program = Some(Program::new());
        }
    }

    /// Says what a keeper has noticed, once for all of them, since the programs are alike.
    pub(super) fn remark(&mut self, pid: Pid, remark: Remark, roster: &mut Roster, journal: &mut Journal) {
        let program = roster.get_mut(pid).and_then(|process| process.ends.program.as_mut());
        // A program that got the pool's socket lacks nothing.
        if let Some(program) = program.filter(|_| remark.kind != Kind::Wider) {
            program.remark = Some(remark);
        }
        if self.remarks.insert(remark.kind) {
            journal.log(log::Level::Warn, roster.subject("program", pid), format!("{} {remark}", roster.tag(pid)));
        }
    }

    /// Kills the keepers that have not obeyed their orders.
    pub(super) fn end_late_keepers(&self, roster: &Roster, now: Time) {
        for (pid, process) in roster.iter() {
            if process.ends.killed_at.get().is_some_and(|at| at <= now) {
                process.ends.killed_at.set(None);
                debug!("{} is killed: it does not end its program", roster.tag(pid));
                signal(pid, Signal::SIGKILL);
            }
        }
    }

    /// The programs that are ready because their delay has passed.
    pub(super) fn take_due(&self, roster: &mut Roster, now: Time) -> Vec<Pid> {
        let programs = roster.iter_mut().filter_map(|(pid, it)| Some((pid, it.ends.program.as_mut()?)));
        programs.filter_map(|(pid, it)| it.ready_at.take_if(|at| *at <= now).map(|_| pid)).collect()
    }

    /// The programs whose notifications were left unread because of descriptors, if there is space now.
    pub(super) fn take_unread(&mut self, discard: &Discard) -> BTreeSet<Pid> {
        if discard.is_full() {
            return BTreeSet::new();
        }
        std::mem::take(&mut self.unread)
    }

    /// A notification has arrived on a program's socket.
    pub(super) fn read_notification(
        &mut self,
        pid: Pid,
        roster: &mut Roster,
        discard: &mut Discard,
        wakeups: &Wakeups,
        journal: &mut Journal,
    ) -> Notice {
        let Some(process) = roster.get_mut(pid) else { return Notice::Nothing };
        if process.trust.is_broken() {
            return Notice::Nothing;
        }
        let Ends { ready_check: ReadyCheck::Notification(socket), program, .. } = &mut process.ends else {
            return Notice::Nothing;
        };
        let (mut is_ready, mut is_cramped, mut fds, mut taken) = (false, false, Vec::new(), 0);
        while taken < NOTIFICATIONS && !is_cramped && !discard.is_full() {
            match socket.receive(&mut fds) {
                Notification::Nothing => break,
                Notification::Ready => is_ready = true,
                Notification::Other => {}
                Notification::NoRoom => is_cramped = true,
            }
            taken += 1;
            discard.add(fds.drain(..));
        }
        let descriptor = socket.as_raw_fd();
        let is_within = program.as_mut().is_none_or(|program| program.may_notify(taken, clock::now()));
        // A worker that has not executed a program yet reports by itself that it is ready.
        let is_program = program.is_some();
        if !is_within {
            return Notice::TooMany;
        }
        if is_cramped {
            drop_notifications(&mut process.ends.ready_check, discard);
            let text = format!(
                "{}: ignoring its notifications from now on: too few descriptors are free to receive them; raise \
                 RLIMIT_NOFILE",
                roster.tag(pid)
            );
            journal.log(log::Level::Warn, roster.subject("program", pid).because("descriptors"), text);
        } else if discard.is_full() {
            self.unread.insert(pid);
        } else if taken == NOTIFICATIONS {
            wakeups.listen_again(descriptor, Source::Notification(pid));
        }
        match is_ready && is_program && roster.is_starting(pid) {
            true => Notice::Ready,
            false => Notice::Nothing,
        }
    }
}

/// Nobody reads a program's socket any more. Its queue must not be received, since descriptors without a free number
/// would be closed here, nor dropped: both could block.
pub(super) fn drop_notifications(ready_check: &mut ReadyCheck, discard: &mut Discard) {
    if let ReadyCheck::Notification(socket) = std::mem::replace(ready_check, ReadyCheck::GivenUp) {
        discard.add([socket.end()]);
    }
}

/// Waits for the notification of a worker that was just forked, if it sends one.
pub(super) fn await_notification(pid: Pid, roster: &Roster, wakeups: &Wakeups) {
    let Some(Process { ends: Ends { ready_check: ReadyCheck::Notification(socket), .. }, .. }) = roster.get(pid) else {
        return;
    };
    if let Err(error) = wakeups.listen_to(socket, Source::Notification(pid)) {
        // The boot timeout will replace it.
        error!("cannot wait for the notification of {}: {error}", roster.tag(pid));
    }
}

/// A worker's program runs. Returns whether it is ready by that.
pub(super) fn executed(pid: Pid, program_pid: i32, roster: &mut Roster, now: Time) -> bool {
    let Some(process) = roster.get_mut(pid) else { return false };
    let Some(program) = &mut process.ends.program else { return false };
    // Whatever the keeper reports, the program must be its child.
    process.program = Some(program_pid).filter(|it| proc::parent(*it) == Some(pid.0));
    match process.ends.ready_check {
        ReadyCheck::Execution => return true,
        ReadyCheck::Delay(delay) => program.ready_at = Some(now + delay),
        ReadyCheck::Report | ReadyCheck::Notification(_) | ReadyCheck::GivenUp => {}
    }
    false
}

/// A worker's program waits for connections, and is asked whether it is ready. A slot without another worker gets
/// connections for that.
pub(super) fn accepts(pid: Pid, roster: &mut Roster) {
    if let Some(process) = roster.get_mut(pid) {
        process.progress.reach(Progress::Accepting);
    }
}

/// A worker's program has answered that it is not ready.
pub(super) fn answered(pid: Pid, status: u16, roster: &mut Roster) {
    if let Some(program) = roster.get_mut(pid).and_then(|process| process.ends.program.as_mut()) {
        program.status = Some(status);
    }
}

/// Kills a worker and, if it keeps a program, all processes of the program.
pub(super) fn kill_tree(pid: Pid, roster: &Roster) {
    if !roster.get(pid).is_some_and(|process| process.ends.end_program()) {
        signal(pid, Signal::SIGKILL);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::parent::process;

    #[test]
    fn a_program_is_ready_when_its_sign_is_seen() {
        let at = Time::from_millis;
        let programs = Programs::default();
        let (mut roster, _board, _ours) = process::tests::roster(ReadyCheck::Delay(Duration::from_secs(2)));
        assert!(!executed(Pid(10), 4711, &mut roster, at(0)), "it executes none");
        roster.get_mut(Pid(10)).expect("it is there").ends.program = Some(Program::new());
        assert_eq!(programs.deadline(&roster), None);
        assert!(!executed(Pid(10), 4711, &mut roster, at(1_000)));
        assert_eq!(roster.get(Pid(10)).expect("it is there").program, None, "it is no child of the keeper's");
        assert_eq!(programs.deadline(&roster), Some(at(3_000)));
        assert_eq!(programs.take_due(&mut roster, at(2_999)), []);
        assert_eq!(programs.take_due(&mut roster, at(3_000)), [Pid(10)]);
        assert_eq!((programs.take_due(&mut roster, at(4_000)), programs.deadline(&roster)), (vec![], None));
        roster.get_mut(Pid(10)).expect("it is there").ends.ready_check = ReadyCheck::Execution;
        assert!(executed(Pid(10), 4711, &mut roster, at(5_000)));
    }
}
