//! Signal actions that run inside the handler.

use std::backtrace::Backtrace;
use std::io;

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
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action it only writes the present one to a place that has room for it (sigaction(2)).
    let read = unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) } == 0;
    // SAFETY: a structure of integers, for which zeroes are values, too.
    read && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_DFL
}

/// Gives a signal its default action again.
pub(crate) fn reset(signal: Signal) -> io::Result<()> {
    // SAFETY: the default action runs no code of this process.
    unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) }?;
    Ok(())
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
