//! The processes of a program: those that the keeper has as children, and what these have. What loses its parent becomes
//! the keeper's own child (PR_SET_CHILD_SUBREAPER), so none escapes.

use std::process;

use nix::errno::Errno;
use nix::sys::signal::{kill, killpg, Signal};
use nix::unistd::Pid;

use crate::sys::proc;

/// All of them, parents first.
pub(super) fn descendants() -> Vec<i32> {
    i32::try_from(process::id()).map(proc::descendants).unwrap_or_default()
}

/// Sends a signal to the program's group, while the program is there, and to those who have left it.
pub(super) fn signal(program: Option<Pid>, signal: Signal) {
    if let Some(program) = program {
        // It may be without processes that can be signalled; the others get theirs.
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
