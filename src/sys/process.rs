//! fork(2), _exit(2) and the question whether forking is safe.

use std::fs;
use std::io::{self, Write};

use nix::unistd::{self, ForkResult};

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

fn flush() {
    // A closed or full stdout is no reason not to go on.
    let _ = io::stdout().flush();
    let _ = io::stderr().flush();
}

/// How many threads this process has; `None` where `/proc` is not mounted.
pub(crate) fn threads() -> Option<usize> {
    Some(fs::read_dir("/proc/self/task").ok()?.count())
}
