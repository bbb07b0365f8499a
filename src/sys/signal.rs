//! Signal actions that run inside the handler.

use std::backtrace::Backtrace;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::OnceLock;

use nix::sys::signal::{SigHandler, Signal};
use signal_hook::{low_level, SigId};

/// What may be done inside a signal handler here: async-signal-safe calls only (signal-safety(7)).
///
/// Implementors promise that `run` neither allocates, locks, panics nor calls anything that is not on that list.
pub(crate) trait Action: Send + Sync + 'static {
    fn run(&self);
}

/// Runs `action` whenever `signal` arrives, until the process ends or that is unregistered.
pub(crate) fn on(signal: i32, action: impl Action) -> io::Result<SigId> {
    // SAFETY: `Action` promises async-signal-safety.
    unsafe { low_level::register(signal, move || action.run()) }
}

/// Whether a signal has its default action.
pub(crate) fn is_default(signal: i32) -> bool {
    handler(signal) == Some(libc::SIG_DFL)
}

fn handler(signal: i32) -> Option<libc::sighandler_t> {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action it only writes the present one to a place that has room for it (sigaction(2)).
    let read = unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) } == 0;
    // SAFETY: a structure of integers, for which zeroes are values, too.
    read.then(|| unsafe { action.assume_init() }.sa_sigaction)
}

/// Gives a signal its default action. Async-signal-safe.
pub(crate) fn reset(signal: Signal) -> io::Result<()> {
    // SAFETY: the default action runs no code of this process.
    unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) }?;
    Ok(())
}

/// Ignores a signal. Async-signal-safe.
pub(crate) fn ignore(signal: Signal) -> io::Result<()> {
    // SAFETY: no code of this process runs for a signal that is ignored.
    unsafe { nix::sys::signal::signal(signal, SigHandler::SigIgn) }?;
    Ok(())
}

/// The signals whose action a pool changes, and whether each was ignored before the first pool of this process began.
static AS_STARTED: OnceLock<Vec<(Signal, bool)>> = OnceLock::new();

/// Notes which of these signals are ignored. Only the first call does: later ones would find the pool's own handlers.
pub(crate) fn remember(signals: impl IntoIterator<Item = Signal>) {
    let is_ignored = |signal: Signal| (signal, handler(signal as i32) == Some(libc::SIG_IGN));
    AS_STARTED.get_or_init(|| signals.into_iter().map(is_ignored).collect());
}

/// Undoes what the pool did to signals, as execve(2) cannot: it leaves ignored what is ignored and resets the rest.
/// Async-signal-safe.
pub(crate) fn as_started() -> io::Result<()> {
    let signals = AS_STARTED.get().map_or(&[][..], Vec::as_slice);
    signals.iter().try_for_each(|(signal, is_ignored)| if *is_ignored { ignore(*signal) } else { reset(*signal) })
}

/// Has a command's process begin with the signal actions that this one was started with.
pub(crate) fn spawn_as_started(command: &mut Command) {
    // SAFETY: in the child it reads a list that does not change any more and calls sigaction(2), which a fork may
    // (signal-safety(7)); it does not allocate.
    unsafe { command.pre_exec(as_started) };
}

/// Has SIGABRT log where this process is before it dies of it.
pub(crate) fn tell_where_aborted(tag: String) -> io::Result<()> {
    let tell = move || {
        let trace = Backtrace::force_capture();
        log::error!("{tag} aborted here:\n{trace}");
        log::logger().flush();
        // As if there had been no handler: a core dump, if they are on. It does not return.
        let _ = low_level::emulate_default_handler(libc::SIGABRT);
    };
    // SAFETY: this takes memory and locks, which a handler must not (signal-safety(7)): if the interrupted code holds
    // one of them the process hangs here. It is about to die, and whoever has sent the signal kills it then.
    unsafe { low_level::register(libc::SIGABRT, tell) }?;
    Ok(())
}
