//! Descriptors that came from workers, and are to be closed.
//!
//! The last close(2) of a socket may wait for as long as its owner wants (SO_LINGER, socket(7)), and nobody can know
//! whether the worker still has a copy. So a process is forked for a moment that has copies while they are closed here: it
//! ends, and who ends does not linger.

use std::os::fd::OwnedFd;

use super::*;

/// How long the next fork waits after one.
const PACE: Duration = Duration::from_millis(20);

/// How long it waits after one has failed.
const RETRY: Duration = Duration::from_millis(100);

/// While so many are to be closed, no more are taken.
const MOST: usize = 256;

/// What is to be closed, and who helps.
#[derive(Debug, Default)]
pub(super) struct Discard {
    fds: Vec<OwnedFd>,
    /// Killed, and not reaped yet.
    holders: Vec<Pid>,
    not_before: Time,
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
        (!self.fds.is_empty()).then_some(self.not_before)
    }

    /// Closes all, if it is time.
    pub(super) fn close(&mut self, now: Time) {
        if self.fds.is_empty() || now < self.not_before {
            return;
        }
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
        self.close(Time::default());
        std::mem::take(&mut self.fds).into_iter().for_each(std::mem::forget);
        // Killed: it does not take long.
        self.holders.drain(..).for_each(reap::wait);
    }
}
