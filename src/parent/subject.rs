//! PURE. What a line of the log is about, in words for programs: filters of logs, alerts, readers of `/events`.
#![forbid(unsafe_code)]

use crate::parent::supervisor::{Exit, Failure, KillReason, Notice, Recycle, SlotId, UpgradeFailure};

/// What a line of the log is about. Its words are identifiers that do not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    /// What has happened.
    pub(crate) kind: &'static str,
    pub(crate) slot: Option<SlotId>,
    pub(crate) generation: Option<u64>,
    pub(crate) pid: Option<i32>,
    pub(crate) reason: Option<&'static str>,
}

impl Subject {
    /// The pool as a whole.
    pub(crate) fn pool(kind: &'static str) -> Subject {
        Subject { kind, slot: None, generation: None, pid: None, reason: None }
    }

    pub(crate) fn slot(kind: &'static str, slot: SlotId) -> Subject {
        Subject { slot: Some(slot), ..Subject::pool(kind) }
    }

    pub(crate) fn because(self, reason: &'static str) -> Subject {
        Subject { reason: Some(reason), ..self }
    }
}

/// What a notice is about.
pub(crate) fn subject_of(notice: &Notice) -> Subject {
    match *notice {
        Notice::AllReady { .. } => Subject::pool("listening"),
        Notice::BackingOff { slot, .. } => Subject::slot("backing_off", slot),
        Notice::GaveUp { slot, reason, .. } => Subject::slot("gave_up", slot).because(failure_word(reason)),
        Notice::LeftEmpty { slot } => Subject::slot("left_empty", slot),
        Notice::AllLeftEmpty => Subject::pool("stopping").because("left_empty"),
        Notice::RestartBegun => Subject::pool("restart_begun"),
        Notice::RestartExtended => Subject::pool("restart_extended"),
        Notice::RestartDone => Subject::pool("restart_done"),
        Notice::RestartAborted { slot, reason } => Subject::slot("restart_aborted", slot).because(failure_word(reason)),
        Notice::Scaled { .. } => Subject::pool("scaled"),
        Notice::ScalingFailed { slot, reason, .. } => {
            Subject::slot("scaling_failed", slot).because(failure_word(reason))
        }
        Notice::Recycling { slot, why } => Subject::slot("recycling", slot).because(recycle_word(why)),
        Notice::RecyclingFailed { slot, reason, .. } => {
            Subject::slot("recycling_failed", slot).because(failure_word(reason))
        }
        Notice::Replacing { slot } => Subject::slot("replacing", slot).because("suspended"),
        Notice::LameDuck { .. } => Subject::pool("lame_duck"),
        Notice::UpgradeBegun => Subject::pool("upgrade_begun"),
        Notice::UpgradeDone { pid } => Subject { pid: Some(pid.0), ..Subject::pool("upgrade_done") },
        Notice::UpgradeFailed { reason } => Subject::pool("upgrade_failed").because(match reason {
            UpgradeFailure::Spawn => "not_started",
            UpgradeFailure::Exit(exit) => exit_word(exit),
            UpgradeFailure::Late => "boot_timeout",
        }),
        Notice::UpgradeInTheWay => Subject::pool("upgrade_refused"),
    }
}

pub(crate) fn kill_word(why: KillReason) -> &'static str {
    match why {
        KillReason::BootTimeout => "boot_timeout",
        KillReason::Suspended => "suspended",
        KillReason::DrainTimeout => "drain_timeout",
        KillReason::QuickTimeout => "quick_timeout",
        KillReason::Stalled => "stalled",
        KillReason::Misbehaved => "protocol",
        KillReason::Forced => "forced",
    }
}

pub(crate) fn exit_word(exit: Exit) -> &'static str {
    match exit {
        Exit::Code(_) => "exit_code",
        Exit::Signal { .. } => "signal",
    }
}

fn failure_word(failure: Failure) -> &'static str {
    match failure {
        Failure::Spawn => "not_started",
        Failure::Exit(exit) => exit_word(exit),
        Failure::Kill(why) => kill_word(why),
    }
}

fn recycle_word(why: Recycle) -> &'static str {
    match why {
        Recycle::Requests => "max_requests",
        Recycle::Age => "max_age",
        Recycle::Memory => "max_rss",
        Recycle::Socket => "socket",
    }
}
