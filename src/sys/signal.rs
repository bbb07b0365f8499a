//! Actions that run inside signal handlers.

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

/// What a signal handler may do. An enum, since all of it must be async-signal-safe (signal-safety(7)), which a trait
/// could not guarantee.
#[derive(Debug)]
pub(crate) enum Action {
    /// The default action of the signal.
    Default(i32),
    /// Makes the worker's lifeline read end of file, and limits the time from then on.
    EndLifeline {
        lifeline: Arc<UnixStream>,
        /// Without a parent (SIGTERM is also the parent-death signal), only SIGALRM ends a worker that does not finish:
        /// its default action is to kill. Zero is no limit.
        seconds: u32,
        quit: Option<Arc<AtomicBool>>,
    },
}

impl Action {
    fn run(&self) {
        match self {
            // Does not return if the default action ends the process.
            Action::Default(signal) => _ = low_level::emulate_default_handler(*signal),
            Action::EndLifeline { lifeline, seconds, quit } => {
                if let Some(quit) = quit {
                    quit.store(true, Ordering::Relaxed);
                }
                if *seconds > 0 {
                    // The process that started the pool may have ignored it.
                    let _ = reset(Signal::SIGALRM);
                    alarm::set(*seconds);
                }
                // If it is already shut down, that is fine.
                let _ = shutdown(lifeline.as_raw_fd(), Shutdown::Read);
            }
        }
    }
}

/// Runs `action` whenever `signal` arrives, until the process ends or the id is unregistered.
pub(crate) fn on(signal: i32, action: Action) -> io::Result<SigId> {
    // SAFETY: the actions only make an atomic store, and call sigaction(2), alarm(2), shutdown(2), kill(2) and the
    // like, as signal-hook documents. They do not allocate, lock or panic.
    unsafe { low_level::register(signal, move || action.run()) }
}

/// Whether a signal has its default action.
pub(crate) fn is_default(signal: i32) -> bool {
    handler(signal) == Some(libc::SIG_DFL)
}

fn handler(signal: i32) -> Option<libc::sighandler_t> {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action the call only writes the current one, for which there is space (sigaction(2)).
    let read = unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) } == 0;
    // SAFETY: a structure of integers, for which zero is valid, too.
    read.then(|| unsafe { action.assume_init() }.sa_sigaction)
}

/// Restores the default action of a signal. Async-signal-safe.
pub(crate) fn reset(signal: Signal) -> io::Result<()> {
    // SAFETY: the default action runs no code of this process.
    unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) }?;
    Ok(())
}

/// Ignores a signal. Async-signal-safe.
pub(crate) fn ignore(signal: Signal) -> io::Result<()> {
    // SAFETY: for an ignored signal, no code of this process runs.
    unsafe { nix::sys::signal::signal(signal, SigHandler::SigIgn) }?;
    Ok(())
}

/// Ends this process as if by that signal, so that its parent sees the same exit as that of another process. Dumps no
/// core, which would be that of the wrong process.
pub(crate) fn end_by(signal: i32) -> ! {
    let _ = nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0);
    // SAFETY: the default action runs no code of this process, and an invalid number is refused.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
    // SAFETY: the call takes a number.
    unsafe { libc::raise(signal) };
    let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
    // The default action of this signal does not end a process.
    super::process::exit(128 + signal)
}

/// The signals whose action a pool changes, and whether each was ignored before the first pool of this process began.
static AS_STARTED: OnceLock<Vec<(Signal, bool)>> = OnceLock::new();

/// Records which of these signals are ignored. Only the first call does, since later ones would find the pool's own
/// handlers.
pub(crate) fn remember(signals: impl IntoIterator<Item = Signal>) {
    let is_ignored = |signal: Signal| (signal, handler(signal as i32) == Some(libc::SIG_IGN));
    AS_STARTED.get_or_init(|| signals.into_iter().map(is_ignored).collect());
}

/// Undoes the pool's changes to signals. execve(2) cannot do that: it keeps ignored signals ignored, and resets the
/// others. Async-signal-safe.
pub(crate) fn as_started() -> io::Result<()> {
    let signals = AS_STARTED.get().map_or(&[][..], Vec::as_slice);
    signals.iter().try_for_each(|(signal, is_ignored)| if *is_ignored { ignore(*signal) } else { reset(*signal) })
}

/// Makes a command's process begin with the signal actions with which this process was started.
pub(crate) fn spawn_as_started(command: &mut Command) {
    // SAFETY: in the child it reads a list that no longer changes and calls sigaction(2), which is allowed after a fork
    // (signal-safety(7)). It does not allocate.
    unsafe { command.pre_exec(as_started) };
}
