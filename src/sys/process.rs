//! fork(2), execve(2), _exit(2), who has exited, and the question whether forking is safe.

use std::fs;
use std::io::{self, Write};
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::SigSet;
use nix::unistd::{self, ForkResult};

use super::fds::Placed;

/// In which process fork(2) returned.
pub(crate) enum Fork {
    Parent(i32),
    Child,
}

/// Forks. Call it with all signals blocked and only from a process with one thread.
pub(crate) fn fork() -> io::Result<Fork> {
    // What is buffered would be written by both processes.
    flush();
    // SAFETY: the process has one thread (`Parent::start` refuses more, and the library starts none), so the child has
    // no lock that another thread held, and may do whatever the parent could.
    match unsafe { unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Fork::Parent(child.as_raw())),
        ForkResult::Child => Ok(Fork::Child),
    }
}

/// Ends a worker without running the parent's exit handlers, which fork copied (see `_exit(2)`).
pub(crate) fn exit(code: i32) -> ! {
    flush();
    // SAFETY: `_exit` has no preconditions and does not return.
    unsafe { libc::_exit(code) }
}

/// A child that has exited and was not reaped yet, which it still is not afterwards (waitid(2)).
pub(crate) fn exited_child() -> Option<i32> {
    let mut found = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: it only writes what it has found, to a place that has room for it.
    let result = unsafe { libc::waitid(libc::P_ALL, 0, found.as_mut_ptr(), options) };
    // SAFETY: a structure of integers, for which zeroes are values, too.
    let found = unsafe { found.assume_init() };
    // SAFETY: the field is there for a child, and zero where none was found (waitid(2)).
    let pid = unsafe { found.si_pid() };
    (result == 0 && pid != 0).then_some(pid)
}

/// The first descriptor that a program looks at for sockets (`SD_LISTEN_FDS_START`, sd_listen_fds(3)).
pub(crate) const FIRST_PASSED: RawFd = 3;

/// Executes a program in this process, with copies of `passed` from descriptor 3 on and no signal blocked. It returns
/// only when that fails. SIGPIPE gets its default action, which the standard library sees to.
pub(crate) fn execute(command: &mut Command, passed: &[BorrowedFd<'_>]) -> io::Error {
    flush();
    let placed = match Placed::new(FIRST_PASSED, passed) {
        Ok(placed) => placed,
        Err(error) => return error,
    };
    let error = match SigSet::empty().thread_set_mask() {
        Ok(()) => command.exec(),
        Err(errno) => errno.into(),
    };
    drop(placed);
    error
}

fn flush() {
    // A closed or full stdout is no reason not to go on.
    let _ = io::stdout().flush();
    let _ = io::stderr().flush();
}

/// How many threads this process has; `None` where `/proc` is not mounted.
pub(crate) fn threads() -> Option<usize> {
    Some(fs::read_dir("/proc/self/task").ok()?.count())
}
