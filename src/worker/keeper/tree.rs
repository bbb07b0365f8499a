//! The processes of a program: those that the keeper has as children, and what these have. What loses its parent becomes
//! the keeper's own child (PR_SET_CHILD_SUBREAPER), so none escapes.

use std::fs;
use std::process;

use nix::errno::Errno;
use nix::sys::signal::{kill, killpg, Signal};
use nix::unistd::Pid;

/// As many are looked at. There are more only where somebody forks without end.
const MOST: usize = 4096;

/// All of them, parents first.
pub(super) fn descendants() -> Vec<i32> {
    let Ok(own) = i32::try_from(process::id()) else { return Vec::new() };
    let mut found = children(own);
    let mut next = 0;
    while next < found.len() && found.len() < MOST {
        let more = children(found[next]);
        found.extend(more.into_iter().filter(|pid| *pid != own));
        next += 1;
    }
    found
}

/// The children of each thread of a process.
fn children(pid: i32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
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
