//! What the parent says in the log.

use std::fmt::Display;

use nix::sys::signal::Signal;

use crate::config::Config;
use crate::supervisor::{Exit, Failure, KillReason, Notice};

/// How the log names a worker's process.
pub(crate) fn tag(slot: usize, generation: u64, pid: impl Display) -> String {
    format!("worker={slot} gen={generation} pid={pid}")
}

/// How a process ended.
pub(crate) fn describe(exit: Exit, was_told: bool) -> String {
    match exit {
        Exit::Code(code) => format!("exited with code {code}"),
        Exit::Signal { signal: 0, .. } => "ended, nobody knows how".to_owned(),
        Exit::Signal { signal, core_dumped } => {
            let name = Signal::try_from(signal).map_or("an unknown signal", Signal::as_str);
            let core = if core_dumped { ", core dumped" } else { "" };
            let guess = match signal {
                libc::SIGKILL if !was_told => " (not by this pool: out of memory, or by hand)",
                libc::SIGALRM => " (its own drain time-out)",
                _ => "",
            };
            format!("killed by {name}{guess}{core}")
        }
    }
}

/// Why the parent kills a process.
pub(crate) fn kill_reason(why: KillReason, config: &Config) -> String {
    match why {
        KillReason::BootTimeout => format!(
            "killed: not ready {:?} after its start; does it call Worker::ready? (boot-timeout)",
            config.boot_timeout
        ),
        KillReason::DrainTimeout => {
            format!("killed: not done {:?} after it was asked to finish (drain-timeout)", config.drain_timeout)
        }
        KillReason::QuickTimeout => "killed: still there after it was asked to end at once".to_owned(),
        KillReason::Stalled => format!("killed: busy with one request for {:?} (stall-timeout)", config.stall_timeout),
        KillReason::Forced => "killed: told to stop at once".to_owned(),
    }
}

/// How a worker failed.
pub(crate) fn failure(failure: Failure) -> String {
    match failure {
        Failure::Spawn => "a worker could not be forked".to_owned(),
        Failure::Exit(exit) => format!("a worker {}", describe(exit, false)),
        Failure::Kill(why) => format!("a worker was killed: {why}"),
    }
}

/// A notice, as a line.
pub(crate) fn notice_text(notice: &Notice) -> String {
    match *notice {
        Notice::AllReady { workers } => format!("all {workers} workers are ready"),
        Notice::BackingOff { slot, delay, failures } => {
            format!("worker={slot} backing off for {} ms after {failures} failures in a row", delay.as_millis())
        }
        Notice::RestartBegun => "rolling restart begun".to_owned(),
        Notice::RestartQueued => "rolling restart asked for while one runs: it follows".to_owned(),
        Notice::RestartDone => "rolling restart done".to_owned(),
        Notice::RestartAborted { slot, reason } => {
            format!("rolling restart aborted, the other workers stay: worker={slot}: {}", failure(reason))
        }
        Notice::Scaled { from, to } => format!("scaled from {from} to {to} workers"),
    }
}
