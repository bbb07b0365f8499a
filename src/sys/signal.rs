//! Signal actions that run inside the handler.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use nix::sys::signal::{SigHandler, Signal};
use nix::sys::socket::{shutdown, Shutdown};
use nix::unistd::alarm;
use signal_hook::{low_level, SigId};

/// What is done inside a signal handler: only this, since it must be async-signal-safe (signal-safety(7)), which no trait
/// can promise for others.
#[derive(Debug)]
pub(crate) enum Action {
    /// What the signal does by default.
    Default(i32),
    /// Makes the worker's lifeline read end of file, and bounds what follows.
    EndLifeline {
        lifeline: Arc<UnixStream>,
        /// Without a parent (SIGTERM is also the parent-death signal) nobody else ends a worker that does not finish:
        /// SIGALRM does, whose default is to kill. Zero is never.
        seconds: u32,
        quit: Option<Arc<AtomicBool>>,
    },
}

impl Action {
    fn run(&self) {
        match self {
            // It does not return where the action is to end the process.
            Action::Default(signal) => _ = low_level::emulate_default_handler(*signal),
            Action::EndLifeline { lifeline, seconds, quit } => {
                if let Some(quit) = quit {
                    quit.store(true, Ordering::Relaxed);
                }
                if *seconds > 0 {
                    // Whoever started the pool may have ignored it.
                    let _ = reset(Signal::SIGALRM);
                    alarm::set(*seconds);
                }
                // Already shut is as good.
                let _ = shutdown(lifeline.as_raw_fd(), Shutdown::Read);
            }
        }
    }
}

/// Runs `action` whenever `signal` arrives, until the process ends or that is unregistered.
pub(crate) fn on(signal: i32, action: Action) -> io::Result<SigId> {
    // SAFETY: all that it does are an atomic store, sigaction(2), alarm(2), shutdown(2), kill(2) and its like, as signal-hook
    // documents; it neither allocates, locks nor panics.
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

/// Ends this process as that signal does, so that whoever waits for it sees the same as of another one that it has ended; a
/// second core would only be that of a bystander.
pub(crate) fn end_by(signal: i32) -> ! {
    let _ = nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0);
    // SAFETY: the default action runs no code of this process, and a number that is no signal's is refused.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
    // SAFETY: the call takes a number.
    unsafe { libc::raise(signal) };
    let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
    // Its default is not to end a process.
    super::process::exit(128 + signal)
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
