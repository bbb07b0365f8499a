//! PURE. Classifies an exit. This is the only place: the log, the application, its policy, the admin process and the
//! supervisor itself use the result.

use crate::parent::supervisor::event::{Exit, KillReason, Pid, SlotId};
use crate::parent::supervisor::slot::{Process, Stage};
use crate::parent::supervisor::Supervisor;
use crate::shared::state::Reason;

/// A process of the pool that was reaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone {
    pub(crate) slot: SlotId,
    pub(crate) departure: Departure,
    /// The reason to count among the slot's restarts; `None` if no other process takes its place.
    pub(crate) restart: Option<Reason>,
}

/// Who wanted a process to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Departure {
    /// Nobody: a failure, unless the application decides otherwise.
    Unasked { was_ready: bool },
    /// The pool, because of what the process did or failed to do; this failure has been counted.
    Failed,
    /// It was asked to finish.
    Asked,
    /// A forced stop has killed it.
    Forced,
}

impl Departure {
    /// Whether the pool has told it to finish, or killed it.
    pub(crate) fn was_told(self) -> bool {
        !matches!(self, Departure::Unasked { .. })
    }

    /// Whether it ended on request, and not because the pool had to kill it.
    pub(crate) fn was_asked(self) -> bool {
        matches!(self, Departure::Asked | Departure::Forced)
    }

    pub(super) fn of(stage: Stage) -> Departure {
        match stage {
            Stage::Spawning | Stage::Starting => Departure::Unasked { was_ready: false },
            Stage::Ready => Departure::Unasked { was_ready: true },
            Stage::Aborting => Departure::Failed,
            Stage::Draining | Stage::Quitting => Departure::Asked,
            Stage::Killing(
                KillReason::Stalled | KillReason::BootTimeout | KillReason::Suspended | KillReason::Misbehaved,
            ) => Departure::Failed,
            Stage::Killing(KillReason::DrainTimeout | KillReason::QuickTimeout) => Departure::Asked,
            Stage::Killing(KillReason::Forced) => Departure::Forced,
        }
    }
}

impl Supervisor {
    /// Classifies the exit of a process, before the exit is handled; `None` if it is not a process of the pool.
    pub(crate) fn gone(&self, pid: Pid, exit: Exit) -> Option<Gone> {
        let (slot, process) = self.slots.process(pid)?;
        let has_newer = self.slots.processes().any(|(id, it)| id == slot && it.generation > process.generation);
        let restart = restart_reason(process, exit, has_newer).filter(|_| !self.shutdown.is_stopping());
        Some(Gone { slot, departure: Departure::of(process.stage), restart })
    }
}

/// `has_newer` says whether the slot has been started again since this process was.
fn restart_reason(process: &Process, exit: Exit, has_newer: bool) -> Option<Reason> {
    match (process.stage, exit) {
        (Stage::Killing(KillReason::Stalled) | Stage::Aborting, _) => Some(Reason::Stalled),
        (Stage::Killing(KillReason::BootTimeout) | Stage::Spawning | Stage::Starting, _) => Some(Reason::Boot),
        (Stage::Ready, Exit::Code(_)) => Some(Reason::Exited),
        (Stage::Ready, Exit::Signal { .. }) => Some(Reason::Killed),
        _ if !has_newer => None,
        _ if process.is_recycled => Some(Reason::Recycled),
        _ => Some(Reason::Restart),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Time;

    #[test]
    fn an_exit_is_told_by_the_stage_in_which_it_came() {
        let (code, signal) = (Exit::Code(1), Exit::Signal { signal: 9, core_dumped: false });
        let unasked = |was_ready| Departure::Unasked { was_ready };
        // The reason that is counted, if the slot has been started again since, and if it has not.
        let cases = [
            (Stage::Spawning, code, unasked(false), Some(Reason::Boot), Some(Reason::Boot)),
            (Stage::Starting, signal, unasked(false), Some(Reason::Boot), Some(Reason::Boot)),
            (Stage::Ready, code, unasked(true), Some(Reason::Exited), Some(Reason::Exited)),
            (Stage::Ready, signal, unasked(true), Some(Reason::Killed), Some(Reason::Killed)),
            (Stage::Draining, code, Departure::Asked, Some(Reason::Restart), None),
            (Stage::Quitting, code, Departure::Asked, Some(Reason::Restart), None),
            (Stage::Aborting, signal, Departure::Failed, Some(Reason::Stalled), Some(Reason::Stalled)),
            (
                Stage::Killing(KillReason::Stalled),
                signal,
                Departure::Failed,
                Some(Reason::Stalled),
                Some(Reason::Stalled),
            ),
            (
                Stage::Killing(KillReason::BootTimeout),
                signal,
                Departure::Failed,
                Some(Reason::Boot),
                Some(Reason::Boot),
            ),
            (Stage::Killing(KillReason::Misbehaved), signal, Departure::Failed, Some(Reason::Restart), None),
            (Stage::Killing(KillReason::DrainTimeout), signal, Departure::Asked, Some(Reason::Restart), None),
            (Stage::Killing(KillReason::QuickTimeout), signal, Departure::Asked, Some(Reason::Restart), None),
            (Stage::Killing(KillReason::Forced), signal, Departure::Forced, Some(Reason::Restart), None),
        ];
        for (stage, exit, departure, newer, last) in cases {
            let process = Process { stage, ..Process::new(1, Time::default()) };
            assert_eq!(Departure::of(stage), departure, "{stage:?}");
            let reasons = (restart_reason(&process, exit, true), restart_reason(&process, exit, false));
            assert_eq!(reasons, (newer, last), "{stage:?}");
        }
        let recycled = Process { stage: Stage::Draining, is_recycled: true, ..Process::new(1, Time::default()) };
        assert_eq!(restart_reason(&recycled, code, true), Some(Reason::Recycled));
    }
}
