//! fork(2), execve(2), _exit(2), who has exited, and the question whether forking is safe.

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

/// In which process fork(2) returned.
pub(crate) enum Fork {
    Parent(i32),
    Child,
}

/// Forks. Call it with all signals blocked.
///
/// # Errors
///
/// When fork(2) fails, and when another thread runs.
pub(crate) fn fork() -> io::Result<Fork> {
    refuse_threads()?;
    // What is buffered would be written by both processes.
    flush();
    // SAFETY: the process has one thread, which has just been looked at and which alone could start another one; so the
    // child has no lock that another thread held, and may do whatever the parent could. Where there is no /proc to look
    // at, that is the word of the application (`Builder::run` says so).
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

/// What has become of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Exited(i32),
    Killed {
        signal: i32,
        core_dumped: bool,
    },
    /// By a signal.
    Stopped,
    Resumed,
}

/// Reaps a child, whichever it is, or learns that a signal has stopped it or that it runs again: None while nothing has
/// happened.
///
/// # Errors
///
/// ECHILD when there is no child any more.
pub(crate) fn next_change() -> io::Result<Option<(i32, Change)>> {
    let (mut status, flags) = (0, libc::WNOHANG | libc::WUNTRACED | libc::WCONTINUED);
    // SAFETY: it only writes a status, to a place that has room for it.
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

/// The first descriptor that a program looks at for sockets (`SD_LISTEN_FDS_START`, sd_listen_fds(3)).
pub(crate) const FIRST_PASSED: RawFd = 3;

/// Executes a program in this process, with copies of `passed` from descriptor 3 on and no signal blocked. It returns
/// only when that fails, as it does when another thread runs. SIGPIPE gets its default action, which the standard library
/// sees to.
pub(crate) fn execute(command: &mut Command, passed: &[BorrowedFd<'_>]) -> io::Error {
    if let Err(error) = refuse_threads() {
        return error;
    }
    flush();
    // SAFETY: no other thread runs, and what happens until the drop is execve(2), and the signal mask before it.
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

/// What a child is to do before it executes its program. The stream leads to the process that has forked it.
pub(crate) type Prepare<'a> = Box<dyn FnOnce(&mut Command, &UnixStream) -> io::Result<()> + 'a>;

/// Forks, and has the child prepare itself and then execute a program, as [`execute`] does. Returns once it has, with the
/// child's pid. What the child sends meanwhile is for `listen`, which gets the stream first.
///
/// # Errors
///
/// When fork(2) fails, and when the child cannot prepare itself or execute the program: then it is gone again.
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
            // Its number, or else its words. Who has forked is there, or nobody wants to know.
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
            // It may have executed the program all the same.
            let child = unistd::Pid::from_raw(pid);
            let _ = nix::sys::signal::kill(child, Signal::SIGKILL);
            while waitpid(child, None) == Err(nix::errno::Errno::EINTR) {}
            Err(error)
        }
    }
}

fn flush() {
    // A closed or full stdout is no reason not to go on.
    let _ = io::stdout().flush();
    let _ = io::stderr().flush();
}

/// Where there is no `/proc` to count them in, threads are not known.
fn refuse_threads() -> io::Result<()> {
    match threads() {
        Some(count) if count > 1 => Err(io::Error::other(format!(
            "this process runs {count} threads, of which a fork or another program would keep one; start threads in \
             workers, not in the parent or its hooks"
        ))),
        _ => Ok(()),
    }
}

/// Closes descriptors whose last close(2) may wait, as that of a socket with SO_LINGER does, without waiting: a process
/// that ends closes without lingering, so one is forked that holds copies while these are closed here. Returns its pid;
/// it waits until it is killed.
///
/// # Errors
///
/// When fork(2) fails; then nothing was closed, and they come back.
pub(crate) fn close_by_a_holder(fds: Vec<OwnedFd>) -> Result<i32, (io::Error, Vec<OwnedFd>)> {
    let parent = unistd::getpid();
    let before = match SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK) {
        Ok(before) => before,
        Err(errno) => return Err((errno.into(), fds)),
    };
    // SAFETY: the child only makes calls that are async-signal-safe (signal-safety(7)), and never returns.
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

/// The life of a holder: it has copies of all that its parent had open, until it is killed or its parent dies.
fn hold(parent: unistd::Pid) -> ! {
    // Only SIGKILL gets through: all signals are blocked.
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

/// Sets a variable of this process. For the start of a pool and of a worker, when there is one thread.
pub(crate) fn set_variable(name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) {
    // SAFETY: no other thread reads the environment: a pool starts in a process with one thread, and a worker begins as
    // one.
    unsafe { env::set_var(name, value) }
}

/// Removes a variable of this process, as [`set_variable`] sets one.
pub(crate) fn remove_variable(name: &str) {
    // SAFETY: as in `set_variable`.
    unsafe { env::remove_var(name) }
}

/// How many threads this process has; `None` where `/proc` is not mounted.
pub(crate) fn threads() -> Option<usize> {
    Some(fs::read_dir("/proc/self/task").ok()?.count())
}
