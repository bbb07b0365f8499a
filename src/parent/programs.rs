//! Workers that run another program ([`Worker::exec`](crate::Worker::exec)), whose *keepers* they are then: each is told to
//! finish by its lifeline, as any worker, and its program is ready when its sign is seen.
//!
//! **A program as the worker.** The worker stays as the keeper: it reports that it is about to execute a program, the pid of
//! that, and when the program waits for connections; it ends as the program does, and so is counted as any worker. By
//! what *sign* the program is ready, the pool is told when it is built: the keeper's report, the execution itself, a
//! delay that the parent waits for, or a notification on a datagram socket (sd_notify(3)) that the parent has made before
//! the fork. All else (custody, supervision, replacing, upgrade) is as for any worker; its row stays idle, so it
//! does not stall; the parent attends its queue, as that of any server but the built-in one.
//!
//! **The end.** Whoever kills a keeper leaves what its program has started. So it is ordered to kill, and killed itself
//! only when it has not ended a few seconds later: its program may have it wait.

use std::os::fd::AsRawFd;

use super::*;
use crate::parent::notify::{Notification, Notified};
use crate::shared::config::Readiness;
use crate::shared::pace::{Pace, Rate};
use crate::worker::keeper::Keeping;

/// Notifications that are taken in at a time: whoever sends without end must not keep the parent.
const NOTIFICATIONS: usize = 64;

/// How often a program may notify.
const NOTIFYING: Rate = Rate::new(Duration::from_millis(10), 1000);

/// How long a keeper may take to end its program, and to pass on what that has written last.
const OBEYS: Duration = Duration::from_secs(3);

/// By what the parent sees that a program is ready.
#[derive(Debug)]
pub(super) enum Sign {
    /// That it was executed.
    Execution,
    /// What its keeper reports, or sd_notify(3) sends to this socket.
    Notification(Notified),
    /// That so long has passed since.
    Delay(Duration),
    /// Nothing any more: nobody reads what it sends.
    GivenUp,
}

/// A program that a worker keeps, or is about to execute.
#[derive(Debug)]
pub(super) struct Program {
    /// When it counts as ready, where time decides.
    pub(super) ready_at: Option<Time>,
    /// How often it has notified.
    pace: Pace,
}

impl Parent {
    /// Where programs notify.
    fn notifications(&mut self) -> &Rc<notify::Directory> {
        let user = self.credentials.as_ref().and_then(|credentials| credentials.user());
        let user = user.unwrap_or_else(|| nix::unistd::geteuid().as_raw());
        self.notifications.get_or_insert_with(|| Rc::new(notify::Directory::make(user)))
    }

    /// How the next worker keeps a program, if it runs one.
    pub(super) fn keeping(&self, is_shared: bool) -> Keeping {
        let Config { ready, stop_signal, prefix, adopt, .. } = &self.config;
        Keeping { ready: ready.clone(), stop_signal: *stop_signal, prefix: *prefix, adopt: *adopt, is_shared }
    }

    /// How the next worker's program will say that it is ready.
    pub(super) fn sign(&mut self) -> io::Result<Sign> {
        Ok(match self.config.ready {
            Readiness::Auto | Readiness::Notify => Sign::Notification(self.notifications().socket()?),
            Readiness::Delay(delay) => Sign::Delay(delay),
            Readiness::Listen => Sign::Execution,
        })
    }

    /// Waits for the sign of a worker that was just forked, where that is something to wait for.
    pub(super) fn expect_sign(&self, pid: Pid, sign: &Sign) {
        let Sign::Notification(socket) = sign else { return };
        if let Err(error) = self.listen_to(socket, Source::Sign(pid)) {
            // The boot time-out will replace it.
            error!("cannot watch {} become ready: {error}", self.roster.tag(pid));
        }
    }

    /// A worker is about to execute a program.
    pub(super) fn executes(&mut self, pid: Pid) {
        self.take_orphans();
        if let Some(process) = self.roster.get_mut(pid) {
            process.ends.program = Some(Program { ready_at: None, pace: Pace::default() });
        }
    }

    /// A worker's program runs.
    pub(super) fn executed(&mut self, pid: Pid, program_pid: i32) {
        let Some(process) = self.roster.get_mut(pid) else { return };
        let Some(program) = &mut process.ends.program else { return };
        // Whatever the keeper says, it is its own child.
        process.program = Some(program_pid).filter(|it| proc::parent(*it) == Some(pid.0));
        match process.ends.sign {
            Sign::Execution => self.ready(pid),
            Sign::Delay(delay) => program.ready_at = Some(clock::now() + delay),
            Sign::Notification(_) | Sign::GivenUp => {}
        }
    }

    /// Kills a worker and, if it keeps a program, all that belongs to that.
    pub(super) fn kill_tree(&self, pid: Pid) {
        if !self.roster.get(pid).is_some_and(|process| process.ends.end_program()) {
            signal(pid, Signal::SIGKILL);
        }
    }

    /// Kills the keepers that have not done what they were ordered to.
    pub(super) fn look_at_keepers(&self) {
        let now = clock::now();
        for (pid, process) in self.roster.iter() {
            if process.ends.killed_at.get().is_some_and(|at| at <= now) {
                process.ends.killed_at.set(None);
                debug!("{} is killed: it does not end its program", self.roster.tag(pid));
                signal(pid, Signal::SIGKILL);
            }
        }
    }

    /// Programs are ready whose delay has passed.
    pub(super) fn look_at_delays(&mut self) {
        let now = clock::now();
        let programs = self.roster.iter_mut().filter_map(|(pid, it)| Some((pid, it.ends.program.as_mut()?)));
        let due = programs.filter_map(|(pid, it)| it.ready_at.take_if(|at| *at <= now).map(|_| pid));
        for pid in due.collect::<Vec<_>>() {
            self.ready(pid);
        }
    }

    /// Somebody has sent a program's socket a notification.
    pub(super) fn look_for_sign(&mut self, pid: Pid) {
        let Some(process) = self.roster.get_mut(pid) else { return };
        let Process { ends: Ends { sign: Sign::Notification(socket), program, .. }, violation, .. } = process else {
            return;
        };
        if violation.is_some() {
            return;
        }
        let (mut is_ready, mut is_cramped, mut fds, mut taken) = (false, false, Vec::new(), 0);
        while taken < NOTIFICATIONS && !is_cramped && !self.discard.is_full() {
            match socket.receive(&mut fds) {
                Notification::Nothing => break,
                Notification::Ready => is_ready = true,
                Notification::Other => {}
                Notification::NoRoom => is_cramped = true,
            }
            taken += 1;
            self.discard.add(fds.drain(..));
        }
        let descriptor = socket.as_raw_fd();
        let is_within = program.as_mut().is_none_or(|program| program.may_notify(taken, clock::now()));
        if !is_within {
            return self.misbehaved(pid, "it sent too many notifications".to_owned());
        }
        if is_cramped {
            self.give_up_sign(pid);
        } else if self.discard.is_full() {
            self.signs_left.insert(pid);
        } else if taken == NOTIFICATIONS {
            self.listen_again(descriptor, Source::Sign(pid));
        }
        // A worker that is no program yet is ready when it says so itself.
        let is_starting = self.roster.is_starting(pid);
        let is_program = self.roster.get(pid).is_some_and(|process| process.ends.program.is_some());
        if is_ready && is_starting && is_program {
            self.ready(pid);
        }
    }

    /// Goes on with the notifications that were left because of the descriptors that came with others.
    pub(super) fn look_for_signs_left(&mut self) {
        if !self.discard.is_full() {
            std::mem::take(&mut self.signs_left).into_iter().for_each(|pid| self.look_for_sign(pid));
        }
    }

    /// What has come cannot be received, and nothing behind it: all of it goes at once.
    fn give_up_sign(&mut self, pid: Pid) {
        let Some(process) = self.roster.get_mut(pid) else { return };
        let sign = std::mem::replace(&mut process.ends.sign, Sign::GivenUp);
        self.forget_sign(sign);
        let text = format!(
            "{} can notify no more: too few descriptors are free for those that it may have sent; raise RLIMIT_NOFILE",
            self.roster.tag(pid)
        );
        self.journal.say(log::Level::Warn, self.roster.slot_of(pid), text);
    }

    /// Nobody reads any more what comes to a program's socket. What is there is neither received, since what finds no
    /// free number is closed here, nor dropped: both may wait.
    pub(super) fn forget_sign(&mut self, sign: Sign) {
        if let Sign::Notification(socket) = sign {
            self.discard.add([socket.end()]);
        }
    }
}

impl Ends {
    /// Orders a keeper to kill its program. Returns whether it is one that can be told.
    pub(super) fn end_program(&self) -> bool {
        let is_told = self.program.is_some() && self.lifeline.end().is_ok();
        if is_told && self.killed_at.get().is_none() {
            self.killed_at.set(Some(clock::now() + OBEYS));
        }
        is_told
    }
}

impl Program {
    fn may_notify(&mut self, times: usize, now: Time) -> bool {
        (0..times).all(|_| self.pace.take(NOTIFYING, now).is_ok())
    }
}
