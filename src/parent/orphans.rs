//! The processes that a program leaves behind if its keeper was killed. They become children of the parent, which ends
//! them.
//!
//! The kernel passes orphans to the closest ancestor that asks for them (PR_SET_CHILD_SUBREAPER): a keeper and, after
//! its death, the parent, from the first program on. Until then, an embedder's processes are left as they are.
//!
//! The parent needs no report of such a process, and does not read its memory, which might block. The process is a
//! child of the parent, so its pid is valid until it is reaped. Children in the parent's own process group are the
//! application's. No program is ever in that group, unless it has joined the group to stay alive.

use std::process;
use std::time::Duration;

use log::debug;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::Signal;
use nix::unistd::{getpgid, getpgrp, Pid as SystemPid};

use crate::parent::journal::Journal;
use crate::parent::process::{signal, Process};
use crate::parent::reap::{self, ChildStatus};
use crate::parent::subject::Subject;
use crate::parent::supervisor::Pid;
use crate::sys::proc;

/// The pause between two checks when the pool ends, and their number.
const CHECK_INTERVAL: Duration = Duration::from_millis(5);
const CHECKS_MAX: usize = 200;

/// The state of ending such processes.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    /// Whether the kernel passes them to the parent.
    are_taken: bool,
    /// Whether a keeper has left some that were not seen to have ended.
    are_left: bool,
}

impl Orphans {
    /// Whether a program was ever executed.
    pub(super) fn are_taken(&self) -> bool {
        self.are_taken
    }

    /// A program is about to be executed.
    pub(super) fn take(&mut self) {
        if !self.are_taken {
            match set_child_subreaper(true) {
                Ok(()) => self.are_taken = true,
                Err(errno) => debug!("cannot become the parent of orphans with prctl(2): {errno}"),
            }
        }
    }

    /// A keeper was reaped. Its program should have ended before it.
    pub(super) fn look(&mut self, process: &Process, journal: &mut Journal) {
        let Some(program) = process.program else { return };
        let group = Ok(SystemPid::from_raw(program));
        let is_left = |pid: i32| pid == program || getpgid(Some(SystemPid::from_raw(pid))) == group;
        if own_children().into_iter().any(is_left) {
            let text = format!("worker={} died before its program; killing all processes of the program", process.slot);
            journal.log_limited(log::Level::Warn, Subject::slot("orphaned", process.slot), text);
            self.are_left = true;
        }
    }

    /// Kills and reaps all processes that dead keepers have left: the children that are not known. Their own children
    /// follow, as their deaths are reported.
    pub(super) fn end(&mut self, is_known: impl Fn(Pid) -> bool) {
        if !self.are_left {
            return;
        }
        let own_group = getpgrp();
        let (mut found, mut left) = (0, 0);
        for pid in own_children() {
            let system_pid = SystemPid::from_raw(pid);
            if is_known(Pid(pid)) || getpgid(Some(system_pid)) == Ok(own_group) {
                continue;
            }
            signal(Pid(pid), Signal::SIGKILL);
            found += 1;
            let is_gone = reap::statuses(Pid(pid)).iter().any(|status| matches!(status, ChildStatus::Exited(_)));
            left += usize::from(!is_gone);
        }
        debug!("killed {found} processes that a dead keeper has left; {left} of them have not ended yet");
        self.are_left = found > 0;
    }

    /// The pool ends. Nobody else will end them.
    pub(super) fn end_last(&mut self, is_known: impl Fn(Pid) -> bool) {
        for _ in 0..CHECKS_MAX {
            self.end(&is_known);
            if !self.are_left {
                return;
            }
            std::thread::sleep(CHECK_INTERVAL);
        }
    }
}

fn own_children() -> Vec<i32> {
    i32::try_from(process::id()).map(proc::children).unwrap_or_default()
}
