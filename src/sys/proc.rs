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

/// The number of open file descriptors of a process; `None` if it runs as another user.
pub(crate) fn descriptors(pid: i32) -> Option<u64> {
    Some(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64)
}

/// The maximum number of processes to examine. There are more only if somebody forks without end.
const PROCESSES_MAX: usize = 4096;

/// The children of all threads of a process.
pub(crate) fn children(pid: i32) -> Vec<i32> {
    listed_children(pid).unwrap_or_else(|| children_in(&families(), pid).collect())
}

/// The children of a process, their children, and so on; parents first.
pub(crate) fn descendants(pid: i32) -> Vec<i32> {
    if let Some(first) = listed_children(pid) {
        return below(pid, first, |pid| listed_children(pid).unwrap_or_default());
    }
    let families = families();
    below(pid, children_in(&families, pid).collect(), |pid| children_in(&families, pid).collect())
}

fn below(pid: i32, first: Vec<i32>, children: impl Fn(i32) -> Vec<i32>) -> Vec<i32> {
    let (mut found, mut next) = (first, 0);
    while next < found.len() && found.len() < PROCESSES_MAX {
        let more = children(found[next]);
        found.extend(more.into_iter().filter(|it| *it != pid));
        next += 1;
    }
    found
}

/// The same by `/proc/PID/task/TID/children`; `None` if the kernel has no such files (CONFIG_PROC_CHILDREN), or there
/// is no such process.
fn listed_children(pid: i32) -> Option<Vec<i32>> {
    let mut found = None;
    for task in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        // A thread may end meanwhile.
        let Ok(list) = fs::read_to_string(task.path().join("children")) else { continue };
        let children = list.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok());
        found.get_or_insert_with(Vec::new).extend(children);
    }
    found
}

/// All processes, each with its parent.
fn families() -> Vec<(i32, i32)> {
    let names = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = names.filter_map(|name| name.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, parent(pid)?))).collect()
}

fn children_in(families: &[(i32, i32)], of: i32) -> impl Iterator<Item = i32> {
    families.iter().filter(move |(_, parent)| *parent == of).map(|(pid, _)| *pid)
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

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_kernel_that_lists_no_children_has_them_found() {
        let mut shell = Command::new("sh");
        let mut shell = shell
            .args(["-c", "sh -c 'sleep 600 & echo $!; wait' & wait"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut line = String::new();
        BufReader::new(shell.stdout.take().expect("piped")).read_line(&mut line).expect("it says its child");
        let (pid, last) = (i32::try_from(shell.id()).expect("a pid"), line.trim().parse().expect("a pid"));
        let families = families();
        let found = below(pid, children_in(&families, pid).collect(), |pid| children_in(&families, pid).collect());
        assert!(found.len() >= 2 && found.last() == Some(&last), "{found:?}, {last}");
        if listed_children(pid).is_some() {
            assert_eq!((descendants(pid), children(pid)), (found.clone(), vec![found[0]]));
        }
        for pid in found.into_iter().chain([pid]) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        shell.wait().expect("a child");
    }
}
