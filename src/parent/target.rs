//! The worker that the application means.

use crate::parent::event::Process;

/// A worker: that of a slot, or a particular process.
///
/// The worker of a slot is the process that serves it, or the process that is starting if none serves. It is never a
/// process that was told to finish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Target {
    /// The worker of this slot.
    Slot(usize),
    /// This process, even if it was told to finish.
    Process(Process),
}

impl From<usize> for Target {
    fn from(slot: usize) -> Target {
        Target::Slot(slot)
    }
}

impl From<Process> for Target {
    fn from(process: Process) -> Target {
        Target::Process(process)
    }
}
