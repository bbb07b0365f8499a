//! Descriptors that came from workers, and are to be closed.
//!
//! The last close(2) of a socket may wait for as long as its owner wants (SO_LINGER, socket(7)), and nobody can know
//! whether the worker still has a copy. So a process is forked for a moment that has copies while they are closed here: it
//! ends, and who ends does not linger. A process that was just forked closes its copies of all that the parent has, and must
//! not be the last to do so: the parent waits for that.

use std::os::fd::OwnedFd;
use std::time::Duration;

use log::debug;
use nix::sys::signal::Signal;

use crate::parent::process::signal;
use crate::parent::reap::{self, Fate};
use crate::parent::supervisor::Pid;
use crate::sys;
use crate::time::Time;

/// How long the next fork waits after one.
const PACE: Duration = Duration::from_millis(20);

/// How long it waits after one has failed.
const RETRY: Duration = Duration::from_millis(100);

/// How long it waits for processes that were just forked: this long only for one that something has stopped.
const PATIENCE: Duration = Duration::from_secs(10);

/// While so many are to be closed, no more are taken.
const MOST: usize = 256;

/// What is to be closed, and who helps.
#[derive(Debug, Default)]
pub(super) struct Discard {
    fds: Vec<OwnedFd>,
    /// Killed, and not reaped yet.
    holders: Vec<Pid>,
    not_before: Time,
    /// When it waits no longer for others to close their copies; None while it does not.
    waits_until: Option<Time>,
}

impl Discard {
    pub(super) fn add(&mut self, fds: impl IntoIterator<Item = OwnedFd>) {
        self.fds.extend(fds);
    }

    /// Whether there are so many that nothing should be read that may bring more.
    pub(super) fn is_full(&self) -> bool {
        self.fds.len() >= MOST
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        (!self.fds.is_empty()).then(|| self.waits_until.unwrap_or(self.not_before))
    }

    /// Closes all, if it is time. `are_copied` says that a process that was just forked may have copies still; that it has
    /// none any more is an event.
    pub(super) fn close(&mut self, are_copied: bool, now: Time) {
        let is_waiting = are_copied && !self.fds.is_empty();
        self.waits_until = is_waiting.then(|| self.waits_until.unwrap_or(now + PATIENCE));
        let due = self.waits_until.unwrap_or_default().max(self.not_before);
        if self.fds.is_empty() || now < due {
            return;
        }
        self.waits_until = None;
        match sys::process::close_by_a_holder(std::mem::take(&mut self.fds)) {
            Ok(pid) => {
                signal(Pid(pid), Signal::SIGKILL);
                self.holders.push(Pid(pid));
                self.not_before = now + PACE;
            }
            Err((error, fds)) => {
                debug!("cannot close descriptors of workers yet: fork(2): {error}");
                self.fds = fds;
                self.not_before = now + RETRY;
            }
        }
    }

    /// SIGCHLD has come.
    pub(super) fn reap(&mut self) {
        self.holders.retain(|pid| !reap::fates(*pid).iter().any(|fate| matches!(fate, Fate::Exited(_))));
    }

    /// Whether that is one of them, which another look reaps.
    pub(super) fn is_holder(&self, pid: Pid) -> bool {
        self.holders.contains(&pid)
    }

    /// The pool ends. What cannot be closed without waiting stays open until the process ends.
    pub(super) fn end(&mut self) {
        self.not_before = Time::default();
        self.close(false, Time::default());
        std::mem::take(&mut self.fds).into_iter().for_each(std::mem::forget);
        // Killed: it does not take long.
        self.holders.drain(..).for_each(reap::wait);
    }
}
