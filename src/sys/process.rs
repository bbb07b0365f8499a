//! fork(2), execve(2), _exit(2), waiting for children, and whether a fork is safe.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::wait::waitpid;
use nix::unistd::{self, ForkResult};

use super::fds::Placed;

/// The process in which fork(2) returned.
pub(crate) enum Fork {
    Parent(i32),
    Child,
}

/// Forks. Call this with all signals blocked.
///
/// # Errors
///
/// If fork(2) fails, or another thread runs.
pub(crate) fn fork() -> io::Result<Fork> {
    refuse_threads()?;
    // Otherwise both processes would write what is buffered.
    flush();
    // SAFETY: the process has one thread, as was just checked, and only that thread could start another one. So the
    // child holds no lock of another thread, and may do whatever the parent could. Without /proc this cannot be
    // checked, and the application has to guarantee it (`Builder::run` says so).
    match unsafe { unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Fork::Parent(child.as_raw())),
        ForkResult::Child => Ok(Fork::Child),
    }
}

/// Ends a worker without running the parent's exit handlers, which the fork copied (`_exit(2)`).
pub(crate) fn exit(code: i32) -> ! {
    flush();
    // SAFETY: `_exit` has no preconditions and does not return.
    unsafe { libc::_exit(code) }
}

/// Returns a child that has exited and was not reaped, and leaves it so (waitid(2)).
pub(crate) fn exited_child() -> Option<i32> {
    let mut found = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: the call only writes its result, for which there is space.
    let result = unsafe { libc::waitid(libc::P_ALL, 0, found.as_mut_ptr(), options) };
    // SAFETY: a structure of integers, for which zero is valid, too.
    let found = unsafe { found.assume_init() };
    // SAFETY: the field is valid for a child, and zero if there was none (waitid(2)).
    let pid = unsafe { found.si_pid() };
    (result == 0 && pid != 0).then_some(pid)
}

/// What happened to a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Exited(i32),
    Killed {
        signal: i32,
        core_dumped: bool,
    },
    /// Stopped by a signal.
    Stopped,
    Resumed,
}

/// Reaps any child, or reports that one was stopped or continued by a signal. Returns `None` if nothing has happened.
///
/// # Errors
///
/// ECHILD if there are no children.
pub(crate) fn next_change() -> io::Result<Option<(i32, Change)>> {
    let (mut status, flags) = (0, libc::WNOHANG | libc::WUNTRACED | libc::WCONTINUED);
    // SAFETY: the call only writes a status, for which there is space.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, flags) };
    let change = match () {
        () if pid < 0 => return Err(io::Error::last_os_error()),
        () if pid == 0 => return Ok(None),
        () if libc::WIFEXITED(status) => Change::Exited(libc::WEXITSTATUS(status)),
        () if libc::WIFSIGNALED(status) => {
            Change::Killed { signal: libc::WTERMSIG(status), core_dumped: libc::WCOREDUMP(status) }
        }
        () if libc::WIFSTOPPED(status) => Change::Stopped,
        () => Change::Resumed,
    };
    Ok(Some((pid, change)))
}

/// The first descriptor at which a program expects sockets (`SD_LISTEN_FDS_START`, sd_listen_fds(3)).
pub(crate) const FIRST_PASSED: RawFd = 3;

/// Executes a program in this process, with copies of `passed` from descriptor 3 on and all signals unblocked. Returns
/// only on failure, for example if another thread runs. The standard library restores the default action of SIGPIPE.
pub(crate) fn execute(command: &mut Command, passed: &[BorrowedFd<'_>]) -> io::Error {
    if let Err(error) = refuse_threads() {
        return error;
    }
    flush();
    // SAFETY: no other thread runs, and until the drop only execve(2) happens, preceded by setting the signal mask.
    let placed = match unsafe { Placed::new(FIRST_PASSED, passed) } {
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

/// What a child does before it executes its program. The stream leads to the process that has forked it.
pub(crate) type Prepare<'a> = Box<dyn FnOnce(&mut Command, &UnixStream) -> io::Result<()> + 'a>;

/// Forks a child that prepares itself and then executes a program, as [`execute`] does. Returns the child's pid once it
/// has executed the program. `listen` gets the stream first, and reads what the child sends while it prepares itself.
///
/// # Errors
///
/// If fork(2) fails, or if the child cannot prepare itself or execute the program; then it is gone again.
pub(crate) fn launch(
    command: &mut Command,
    passed: &[BorrowedFd<'_>],
    prepare: Prepare<'_>,
    listen: impl FnOnce(&UnixStream) -> io::Result<()>,
) -> io::Result<i32> {
    let (mut ours, theirs) = UnixStream::pair()?;
    match fork()? {
        Fork::Child => {
            drop(ours);
            let error = match prepare(command, &theirs) {
                Ok(()) => execute(command, passed),
                Err(error) => error,
            };
            // The number of the error, or else its text. A write error means that nobody is left to read it.
            let said = match error.raw_os_error() {
                Some(number) => number.to_ne_bytes().to_vec(),
                None => [&0_i32.to_ne_bytes()[..], error.to_string().as_bytes()].concat(),
            };
            let _ = (&theirs).write_all(&said);
            exit(127)
        }
        Fork::Parent(pid) => {
            drop(theirs);
            let mut said = Vec::new();
            // Executing a program closes the stream.
            let heard = listen(&ours).and_then(|()| ours.read_to_end(&mut said));
            let error = match (heard, said.split_first_chunk()) {
                (Ok(_), None) => return Ok(pid),
                (Ok(_), Some((number, words))) => match i32::from_ne_bytes(*number) {
                    0 => io::Error::other(String::from_utf8_lossy(words).into_owned()),
                    number => io::Error::from_raw_os_error(number),
                },
                (Err(error), _) => error,
            };
            // The child may have executed the program all the same.
            let child = unistd::Pid::from_raw(pid);
            let _ = nix::sys::signal::kill(child, Signal::SIGKILL);
            while waitpid(child, None) == Err(nix::errno::Errno::EINTR) {}
            Err(error)
        }
    }
}

fn flush() {
    // A closed or full stdout is no reason to stop.
    let _ = io::stdout().flush();
    let _ = io::stderr().flush();
}

/// Without `/proc`, the number of threads is unknown.
fn refuse_threads() -> io::Result<()> {
    match threads() {
        Some(count) if count > 1 => Err(io::Error::other(format!(
            "this process has {count} threads, and a fork or another program would keep only one; start threads in \
             workers, not in the parent or its hooks"
        ))),
        _ => Ok(()),
    }
}

/// Closes descriptors without blocking, even if it is their last close(2), which may block for a socket with SO_LINGER.
/// Closing at the exit of a process does not linger. So this forks a process that holds copies while the descriptors
/// are closed here. Returns its pid; it waits until it is killed.
///
/// # Errors
///
/// If fork(2) fails. Then nothing was closed, and the descriptors are returned.
pub(crate) fn close_by_a_holder(fds: Vec<OwnedFd>) -> Result<i32, (io::Error, Vec<OwnedFd>)> {
    let parent = unistd::getpid();
    let before = match SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK) {
        Ok(before) => before,
        Err(errno) => return Err((errno.into(), fds)),
    };
    // SAFETY: the child only makes async-signal-safe calls (signal-safety(7)), and never returns.
    let forked = unsafe { unistd::fork() };
    if let Ok(ForkResult::Child) = forked {
        hold(parent);
    }
    let restored = before.thread_set_mask();
    debug_assert!(restored.is_ok());
    match forked {
        Ok(ForkResult::Parent { child }) => {
            drop(fds);
            Ok(child.as_raw())
        }
        Ok(ForkResult::Child) => hold(parent),
        Err(errno) => Err((errno.into(), fds)),
    }
}

/// The child: holds copies of all descriptors of its parent, until it is killed or its parent dies.
fn hold(parent: unistd::Pid) -> ! {
    // Only SIGKILL reaches it, since all signals are blocked.
    let is_bound = set_pdeathsig(Signal::SIGKILL).is_ok() && unistd::getppid() == parent;
    if is_bound {
        loop {
            // SAFETY: it waits for a signal, and touches no memory.
            unsafe { libc::pause() };
        }
    }
    // SAFETY: `_exit` has no preconditions and does not return.
    unsafe { libc::_exit(0) }
}

/// Sets a variable of this process. Only for the start of a pool and of a worker, when there is one thread.
pub(crate) fn set_variable(name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) {
    // SAFETY: no other thread reads the environment. A pool starts in a process with one thread, and a worker begins
    // with one.
    unsafe { env::set_var(name, value) }
}

/// Removes a variable of this process; the same restrictions apply as for [`set_variable`].
pub(crate) fn remove_variable(name: &str) {
    // SAFETY: as in `set_variable`.
    unsafe { env::remove_var(name) }
}

/// The number of threads of this process; `None` if `/proc` is not mounted.
pub(crate) fn threads() -> Option<usize> {
    Some(fs::read_dir("/proc/self/task").ok()?.count())
}
