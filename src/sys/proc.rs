//! What /proc tells about a process (proc(5)). Where it is not mounted, nothing is known.

use std::fs;
use std::time::Duration;

use nix::unistd::{sysconf, SysconfVar};

/// How the system has scheduled a thread (`/proc/PID/schedstat`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedstat {
    pub(crate) is_runnable: bool,
    pub(crate) ran: Duration,
    pub(crate) waited: Duration,
}

/// `/proc/PID/stat` from the third field on, the state: the name before that may contain anything.
fn stat(pid: i32) -> Option<String> {
    let mut stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let state = stat.rfind(") ")? + 2;
    Some(stat.split_off(state))
}

/// How the process's first thread has been scheduled.
pub(crate) fn schedule(pid: i32) -> Option<Schedstat> {
    let is_runnable = stat(pid)?.starts_with('R');
    let schedstat = fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
    let mut nanoseconds = schedstat.split_whitespace().map_while(|field| field.parse().ok()).map(Duration::from_nanos);
    Some(Schedstat { is_runnable, ran: nanoseconds.next()?, waited: nanoseconds.next()? })
}

/// Whose child the process is.
pub(crate) fn parent(pid: i32) -> Option<i32> {
    stat(pid)?.split(' ').nth(1)?.parse().ok()
}

/// Microseconds of CPU that the process has used, all its threads together.
pub(crate) fn cpu(pid: i32) -> Option<u64> {
    let stat = stat(pid)?;
    // User and system time, fields 14 and 15.
    let mut ticks = stat.split(' ').skip(11).map_while(|field| field.parse::<u64>().ok());
    let ticks = ticks.next()? + ticks.next()?;
    let per_second = u64::try_from(sysconf(SysconfVar::CLK_TCK).ok().flatten()?).ok()?;
    Some(ticks * 1_000_000 / per_second.max(1))
}

/// Bytes of memory that the process holds, shared ones included.
pub(crate) fn resident(pid: i32) -> Option<u64> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten()?;
    Some(pages * u64::try_from(page).ok()?)
}
