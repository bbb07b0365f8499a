//! Which processes a program has, read from the outside: /proc, proc_pid_status(5).

use std::fs;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// The pids of the children of a process that go on living.
///
/// The pool's parent forks a process for a moment whenever it closes what a dead worker has passed to it. That one has
/// its SIGKILL before the parent sleeps again, so this looks while the parent sleeps, and takes none that is being
/// killed.
pub fn children(parent: Pid) -> Vec<Pid> {
    for _ in 0..200 {
        let before = sleep(parent);
        let children = listed(parent);
        let Some(status) = status(parent) else { return children };
        if before.is_some() && before == slept(&status) {
            return children;
        }
        thread::sleep(Duration::from_millis(1));
    }
    // It does not come to rest, as while it is flooded.
    listed(parent)
}

/// Whether a process has ended, reaped or not.
pub fn is_gone(pid: Pid) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    stat.rsplit(") ").next().is_none_or(|rest| rest.starts_with(['Z', 'X']))
}

fn listed(parent: Pid) -> Vec<Pid> {
    let list = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    let pids = list.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw);
    pids.filter(|pid| status(*pid).is_some_and(|status| goes_on(&status))).collect()
}

/// Whether it has memory still, which one that ends gives back first, and no SIGKILL is on its way to it.
fn goes_on(status: &str) -> bool {
    let kill = 1 << (Signal::SIGKILL as u64 - 1);
    let pending = field(status, "ShdPnd").and_then(|mask| u64::from_str_radix(mask, 16).ok());
    field(status, "VmSize").is_some() && pending.is_some_and(|mask| mask & kill == 0)
}

/// How often a process has gone to sleep until now, if it sleeps or is stopped.
fn sleep(pid: Pid) -> Option<String> {
    slept(&status(pid)?)
}

fn slept(status: &str) -> Option<String> {
    let rests = field(status, "State")?.starts_with(['S', 'T', 't']);
    let switches = ["voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"].map(|name| field(status, name));
    rests.then(|| format!("{switches:?}"))
}

fn status(pid: Pid) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/status")).ok()
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}
