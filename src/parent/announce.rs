//! The texts of the parent's log lines.

use nix::sys::signal::Signal;

use crate::parent::program::Program;
use crate::parent::supervisor::{Exit, Failure, KillReason, Notice, Recycle, UpgradeFailure};
use crate::shared::config::{Config, Readiness};

/// How a process ended.
pub(crate) fn describe(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("exited with code {code}"),
        Exit::Signal { signal: 0, .. } => "ended with unknown status".to_owned(),
        Exit::Signal { signal, core_dumped } => {
            let name = Signal::try_from(signal).map_or("an unknown signal", Signal::as_str);
            let core = if core_dumped { ", core dumped" } else { "" };
            let guess = match signal {
                libc::SIGSYS => " (a system call that its sandbox forbids: see dmesg)",
                libc::SIGALRM => " (its own alarm at the end of the drain timeout, or by hand)",
                _ => "",
            };
            format!("killed by {name}{guess}{core}")
        }
    }
}

/// How a process ended that neither the pool nor the application has killed.
pub(crate) fn describe_unasked(exit: Exit) -> String {
    match exit {
        Exit::Signal { signal: libc::SIGKILL, core_dumped: false } => {
            format!("{} (not by this pool: out of memory, or by hand)", describe(exit))
        }
        _ => describe(exit),
    }
}

/// Why the parent kills a process.
pub(in crate::parent) fn kill_reason(why: KillReason, config: &Config, program: Option<&Program>) -> String {
    match why {
        KillReason::BootTimeout => {
            let hint = match (&config.program.ready, program) {
                (_, None) => "does it call Worker::ready?".to_owned(),
                (Readiness::Notify, _) => "does it send READY=1 to NOTIFY_SOCKET?".to_owned(),
                (Readiness::Http(probe), Some(Program { status: Some(status), .. })) => {
                    format!("GET {} was answered with {status}", probe.path())
                }
                (Readiness::Auto | Readiness::Http(_), Some(Program { remark: Some(remark), .. })) => {
                    format!("it {remark}")
                }
                (Readiness::Http(probe), _) => format!("does it answer GET {}?", probe.path()),
                _ => "does it accept connections?".to_owned(),
            };
            format!("killed: not ready {:?} after its start; {hint} (boot-timeout)", config.lifecycle.boot_timeout)
        }
        KillReason::Suspended => "killed: a signal had stopped it before it was ready".to_owned(),
        KillReason::DrainTimeout => {
            format!(
                "killed: still running {:?} after it was told to finish (drain-timeout)",
                config.lifecycle.drain_timeout
            )
        }
        KillReason::QuickTimeout => "killed: still running after it was told to end at once".to_owned(),
        KillReason::Stalled => {
            format!("killed: busy with one request for {:?} (stall-timeout)", config.lifecycle.stall_timeout)
        }
        KillReason::Misbehaved => "killed: it broke the protocol".to_owned(),
        KillReason::Forced => "killed: told to stop at once".to_owned(),
    }
}

/// How a worker failed: what follows its name.
pub(crate) fn failure(failure: Failure) -> String {
    match failure {
        Failure::Spawn => "could not be forked".to_owned(),
        Failure::Exit(exit) => describe_unasked(exit),
        Failure::Kill(why) => format!("killed: {why}"),
    }
}

/// The text of a notice. `why` describes the failure in more detail than the supervisor can.
pub(crate) fn notice_text(notice: &Notice, why: Option<&str>) -> String {
    let failure = |reason| why.map_or_else(|| failure(reason), str::to_owned);
    match *notice {
        Notice::AllReady { workers } => format!("all {workers} workers are ready"),
        Notice::BackingOff { slot, delay, failures } => {
            format!("worker={slot} backing off for {} ms after {failures} failures in a row", delay.as_millis())
        }
        Notice::GaveUp { slot, failures, reason } => {
            format!(
                "worker={slot} gave up after {failures} failures in a row (give-up), draining; the last one {}",
                failure(reason)
            )
        }
        Notice::LeftEmpty { slot } => {
            format!("worker={slot} not started again: requested by the application (on_exit)")
        }
        Notice::AllLeftEmpty => "stopping: no worker is left, and on_exit has asked for none".to_owned(),
        Notice::RestartBegun => "rolling restart begun".to_owned(),
        Notice::RestartExtended => {
            "rolling restart extended: it also replaces the workers that it has started already".to_owned()
        }
        Notice::RestartDone => "rolling restart done".to_owned(),
        Notice::RestartAborted { slot, reason } => {
            format!("rolling restart aborted, the other workers stay; worker={slot} {}", failure(reason))
        }
        Notice::Scaled { from, to } => format!("scaled from {from} to {to} workers"),
        Notice::ScalingFailed { slot, wanted, reason } => {
            format!("scaling failed, still trying for {wanted} workers; worker={slot} {}", failure(reason))
        }
        Notice::Recycling { slot, why } => format!("worker={slot} recycled: {}", recycle(why)),
        Notice::RecyclingFailed { slot, reason, delay } => {
            let reason = failure(reason);
            format!("worker={slot} recycling postponed by {delay:?}, the old worker stays; its replacement {reason}")
        }
        Notice::Replacing { slot } => format!("worker={slot} replaced, since it was stopped by a signal"),
        Notice::LameDuck { delay } => format!("lame duck: no longer ready, draining in {delay:?} (lame-duck)"),
        Notice::UpgradeBegun => "upgrade begun".to_owned(),
        Notice::UpgradeDone { pid } => format!("upgrade done: pid={} serves", pid.0),
        Notice::UpgradeFailed { reason } => {
            let reason = match reason {
                UpgradeFailure::Spawn => format!("it could not be started: {}", why.unwrap_or("unknown reason")),
                UpgradeFailure::Exit(exit) => describe_unasked(exit),
                UpgradeFailure::Late => "it was not ready in time (boot-timeout)".to_owned(),
            };
            format!("upgrade failed, this pool stays: the new binary: {reason}")
        }
        Notice::UpgradeInTheWay => "refused: an upgrade is under way".to_owned(),
    }
}

/// Whether workers can cause it as often as they like.
pub(crate) fn comes_again_and_again(notice: &Notice) -> bool {
    use Notice::{BackingOff, Recycling, RecyclingFailed, Replacing};
    matches!(notice, BackingOff { .. } | Recycling { .. } | RecyclingFailed { .. } | Replacing { .. })
}

fn recycle(why: Recycle) -> &'static str {
    match why {
        Recycle::Requests => "it reached its limit of requests (max-requests)",
        Recycle::Age => "it reached its age (max-age)",
        Recycle::Memory => "it uses too much memory (max-rss)",
        Recycle::Socket => "it cannot accept on one of its sockets",
    }
}

/// Whether a notice reports a problem.
pub(crate) fn is_warning(notice: &Notice) -> bool {
    use Notice::{BackingOff, GaveUp, RecyclingFailed, Replacing, RestartAborted, ScalingFailed};
    use Notice::{UpgradeFailed, UpgradeInTheWay};
    matches!(
        notice,
        BackingOff { .. }
            | GaveUp { .. }
            | RestartAborted { .. }
            | ScalingFailed { .. }
            | RecyclingFailed { .. }
            | Replacing { .. }
            | UpgradeFailed { .. }
            | UpgradeInTheWay
    )
}
