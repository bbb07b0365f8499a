//! Facts about processes from /proc (proc(5)). If it is not mounted, there are none.

use std::fs;
use std::time::Duration;

use nix::unistd::{sysconf, SysconfVar};

/// How the kernel has scheduled a thread (`/proc/PID/schedstat`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedstat {
    pub(crate) is_runnable: bool,
    pub(crate) ran: Duration,
    pub(crate) waited: Duration,
}

/// `/proc/PID/stat` from the third field on, which is the state. The name before it may contain anything.
fn stat(pid: i32) -> Option<String> {
    let mut stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let state = stat.rfind(") ")? + 2;
    Some(stat.split_off(state))
}

/// How the kernel has scheduled the first thread of a process.
pub(crate) fn schedule(pid: i32) -> Option<Schedstat> {
    let is_runnable = stat(pid)?.starts_with('R');
    let schedstat = fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
    let mut nanoseconds = schedstat.split_whitespace().map_while(|field| field.parse().ok()).map(Duration::from_nanos);
    Some(Schedstat { is_runnable, ran: nanoseconds.next()?, waited: nanoseconds.next()? })
}

/// The pid of the process's parent.
pub(crate) fn parent(pid: i32) -> Option<i32> {
    stat(pid)?.split(' ').nth(1)?.parse().ok()
}

/// The CPU time of all threads of a process, in microseconds.
pub(crate) fn cpu(pid: i32) -> Option<u64> {
    let stat = stat(pid)?;
    // User and system time, fields 14 and 15.
    let mut ticks = stat.split(' ').skip(11).map_while(|field| field.parse::<u64>().ok());
    let ticks = ticks.next()? + ticks.next()?;
    let per_second = u64::try_from(sysconf(SysconfVar::CLK_TCK).ok().flatten()?).ok()?;
    Some(ticks * 1_000_000 / per_second.max(1))
}

/// The resident memory of a process in bytes, shared memory included.
pub(crate) fn resident(pid: i32) -> Option<u64> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten()?;
    Some(pages * u64::try_from(page).ok()?)
}
