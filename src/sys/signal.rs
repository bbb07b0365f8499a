//! Signal actions that run inside the handler.

use std::io;

use signal_hook::low_level;

/// What may be done inside a signal handler here: async-signal-safe calls only (signal-safety(7)).
///
/// Implementors promise that `run` neither allocates, locks, panics nor calls anything that is not on that list.
pub(crate) trait Action: Send + Sync + 'static {
    fn run(&self);
}

/// Runs `action` whenever `signal` arrives, until the process ends.
pub(crate) fn on(signal: i32, action: impl Action) -> io::Result<()> {
    // SAFETY: `Action` promises async-signal-safety.
    unsafe { low_level::register(signal, move || action.run()) }?;
    Ok(())
}
