//! Closes descriptors that workers have passed to the parent.
//!
//! Closing the last copy of a socket can block for as long as the worker wants (SO_LINGER in socket(7)), and the parent
//! cannot know whether the worker still has a copy. Closing at the exit of a process does not linger. So the parent
//! forks a process that holds copies while the parent closes its own, and then ends. A process that was just forked
//! closes its copies of all the parent's descriptors, and its close must not be the last one either, so the parent
//! waits until it has done that.
//!
//! [`Discard`] owns the descriptors until they are closed. Its input: descriptors, and whether others may have copies.
//! Its output: nothing, but whether there are so many that no more should be received.

use std::os::fd::OwnedFd;
use std::time::Duration;

use log::debug;
use nix::sys::signal::Signal;

use crate::parent::process::signal;
use crate::parent::reap::{self, ChildStatus};
use crate::parent::supervisor::Pid;
use crate::sys;
use crate::time::Time;

/// The delay between two such forks.
const FORK_INTERVAL: Duration = Duration::from_millis(20);

/// The delay after a failed fork.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// The maximum wait for processes that were just forked. Only a stopped process takes that long.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// While this many descriptors wait to be closed, no more are received.
const WAITING_MAX: usize = 256;

/// The descriptors to close, and the processes that hold copies.
#[derive(Debug, Default)]
pub(super) struct Discard {
    fds: Vec<OwnedFd>,
    /// Killed, and not reaped yet.
    holders: Vec<Pid>,
    not_before: Time,
    /// When to stop waiting for others to close their copies; `None` while not waiting.
    waits_until: Option<Time>,
}

impl Discard {
    pub(super) fn add(&mut self, fds: impl IntoIterator<Item = OwnedFd>) {
        self.fds.extend(fds);
    }

    /// Whether there are so many that nothing should be read that may bring more.
    pub(super) fn is_full(&self) -> bool {
        self.fds.len() >= WAITING_MAX
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        (!self.fds.is_empty()).then(|| self.waits_until.unwrap_or(self.not_before))
    }

    /// Closes all, if it is time. `are_copied` says that a process that was just forked may still have copies; when it
    /// has none, that is an event.
    pub(super) fn close(&mut self, are_copied: bool, now: Time) {
        let is_waiting = are_copied && !self.fds.is_empty();
        self.waits_until = is_waiting.then(|| self.waits_until.unwrap_or(now + CLOSE_TIMEOUT));
        let due = self.waits_until.unwrap_or_default().max(self.not_before);
        if self.fds.is_empty() || now < due {
            return;
        }
        self.waits_until = None;
        match sys::process::close_by_a_holder(std::mem::take(&mut self.fds)) {
            Ok(pid) => {
                signal(Pid(pid), Signal::SIGKILL);
                self.holders.push(Pid(pid));
                self.not_before = now + FORK_INTERVAL;
            }
            Err((error, fds)) => {
                debug!("cannot close descriptors of workers yet: fork(2): {error}");
                self.fds = fds;
                self.not_before = now + RETRY_DELAY;
            }
        }
    }

    /// SIGCHLD has arrived.
    pub(super) fn reap(&mut self) {
        self.holders.retain(|pid| !reap::statuses(*pid).iter().any(|status| matches!(status, ChildStatus::Exited(_))));
    }

    /// Whether this is one of the holders, which the next call reaps.
    pub(super) fn is_holder(&self, pid: Pid) -> bool {
        self.holders.contains(&pid)
    }

    /// The pool ends. What cannot be closed without blocking stays open until the process ends.
    pub(super) fn end(&mut self) {
        self.not_before = Time::default();
        self.close(false, Time::default());
        std::mem::take(&mut self.fds).into_iter().for_each(std::mem::forget);
        // They were killed, so this does not take long.
        self.holders.drain(..).for_each(reap::wait);
    }
}
