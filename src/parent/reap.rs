//! The results of waitpid(2).

use log::{debug, error};
use nix::errno::Errno;
use nix::sys::wait::{waitpid, WaitPidFlag, WaitStatus};
use nix::unistd::Pid as SystemPid;

use crate::parent::supervisor::{Exit, Pid};
use crate::sys;

/// What happened to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChildStatus {
    Exited(Exit),
    /// It was stopped by a signal.
    Suspended,
    /// It runs again.
    Resumed,
}

/// What has happened since the last call. One SIGCHLD may stand for several events.
pub(crate) fn statuses(pid: Pid) -> Vec<ChildStatus> {
    let mut statuses = Vec::new();
    let flags = WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED | WaitPidFlag::WCONTINUED;
    loop {
        match waitpid(SystemPid::from_raw(pid.0), Some(flags)) {
            Ok(WaitStatus::StillAlive) => return statuses,
            Ok(WaitStatus::Stopped(..)) => statuses.push(ChildStatus::Suspended),
            Ok(WaitStatus::Continued(_)) => statuses.push(ChildStatus::Resumed),
            Ok(WaitStatus::Exited(_, code)) => statuses.push(ChildStatus::Exited(Exit::Code(code))),
            Ok(WaitStatus::Signaled(_, signal, core_dumped)) => {
                statuses.push(ChildStatus::Exited(Exit::Signal { signal: signal as i32, core_dumped }));
            }
            Err(Errno::EINTR) => continue,
            // Other code has reaped it.
            Ok(_) | Err(UNNAMED | Errno::ECHILD) => statuses.push(ChildStatus::Exited(UNKNOWN)),
            Err(errno) => {
                error!("cannot reap pid={}: {errno}", pid.0);
                return statuses;
            }
        }
        if matches!(statuses.last(), Some(ChildStatus::Exited(_))) {
            return statuses;
        }
    }
}

/// The error of nix for a process that it has reaped and that was killed by a signal without a name: a real-time
/// signal.
const UNNAMED: Errno = Errno::EINVAL;

/// Waits until the process has ended.
pub(crate) fn wait(pid: Pid) {
    while waitpid(SystemPid::from_raw(pid.0), None) == Err(Errno::EINTR) {}
}

/// An unknown status.
const UNKNOWN: Exit = Exit::Signal { signal: 0, core_dumped: false };

/// Reaps children that are not `ours`. As PID 1, nobody else can.
pub(crate) fn orphans(ours: impl Fn(Pid) -> bool) {
    while let Some(pid) = sys::process::exited_child() {
        if ours(Pid(pid)) {
            // It exited after the check above; its own SIGCHLD is on the way.
            break;
        }
        match waitpid(SystemPid::from_raw(pid), Some(WaitPidFlag::WNOHANG)) {
            Ok(_) | Err(UNNAMED) => debug!("reaped orphan pid={pid}"),
            Err(_) => break,
        }
    }
}
