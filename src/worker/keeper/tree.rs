//! The processes of a program: the children of the keeper, and their children. A process that loses its parent becomes
//! a child of the keeper (PR_SET_CHILD_SUBREAPER), so none escapes.

use std::process;

use nix::errno::Errno;
use nix::sys::signal::{kill, killpg, Signal};
use nix::unistd::Pid;

use crate::sys::proc;

/// All of them, parents first.
pub(super) fn descendants() -> Vec<i32> {
    i32::try_from(process::id()).map(proc::descendants).unwrap_or_default()
}

/// Sends a signal to the program's group, while the program exists, and to processes that have left the group.
pub(super) fn signal(program: Option<Pid>, signal: Signal) {
    if let Some(program) = program {
        // It may have no processes that can be signalled; the others get the signal.
        let _ = killpg(program, signal);
    }
    for pid in descendants() {
        let pid = Pid::from_raw(pid);
        if program.is_none() || nix::unistd::getpgid(Some(pid)) != Ok(program.unwrap_or(pid)) {
            match kill(pid, signal) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => log::debug!("pid={pid} not signalled: {errno}"),
            }
        }
    }
}
