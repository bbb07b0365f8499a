//! What /proc tells about a process (proc(5)). Where it is not mounted, nothing is known.

use std::fs;
use std::time::Duration;

use nix::unistd::{sysconf, SysconfVar};

use crate::watch::Schedule;

/// How the process's first thread has been scheduled.
pub(crate) fn schedule(pid: i32) -> Option<Schedule> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before the state may contain anything.
    let is_runnable = stat.rsplit_once(") ")?.1.starts_with('R');
    let schedstat = fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
    let mut nanoseconds = schedstat.split_whitespace().map_while(|field| field.parse().ok()).map(Duration::from_nanos);
    Some(Schedule { is_runnable, ran: nanoseconds.next()?, waited: nanoseconds.next()? })
}

/// Bytes of memory that the process holds, shared ones included.
pub(crate) fn resident(pid: i32) -> Option<u64> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten()?;
    Some(pages * u64::try_from(page).ok()?)
}
