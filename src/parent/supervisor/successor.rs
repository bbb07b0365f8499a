//! PURE. An upgrade: a new binary is started beside this pool, with all its sockets. When the workers of the new binary
//! are ready, this pool drains. Until then no slot of this pool is replaced or added.

use std::time::Duration;

use crate::parent::supervisor::event::{Effect, Exit, KillReason, Notice, Outcome, Pid, Stop, UpgradeFailure};
use crate::parent::supervisor::policy::Policy;
use crate::parent::supervisor::slot::Stage;
use crate::parent::supervisor::Supervisor;
use crate::time::Time;

/// The parent of the new pool, from the decision to start it until it has taken over or was reaped.
#[derive(Debug)]
pub(super) struct Successor {
    pid: Option<Pid>,
    stage: Stage,
    since: Time,
}

impl Successor {
    pub(super) fn frozen(&mut self, span: Duration) {
        self.since = self.since + span;
    }

    /// When it will have been in its stage for too long.
    pub(super) fn deadline(&self, policy: &Policy) -> Option<Time> {
        let (limit, grace) = match self.stage {
            // All of its workers have to become ready.
            Stage::Starting => (policy.boot_timeout, Duration::ZERO),
            // It ends its own workers first.
            Stage::Draining => (policy.drain_timeout, policy.quick_timeout),
            Stage::Quitting => (policy.quick_timeout, policy.quick_timeout),
            _ => return None,
        };
        (!limit.is_zero()).then(|| self.since + limit + grace)
    }
}

impl Supervisor {
    /// Whether an upgrade is in progress; if so, reports that.
    pub(super) fn is_upgrading(&mut self) -> bool {
        let is_upgrading = self.successor.is_some();
        if is_upgrading {
            self.notice(Notice::UpgradeInTheWay);
        }
        is_upgrading
    }

    /// Whether the new binary may still become ready or exit.
    pub(crate) fn awaits_successor(&self) -> bool {
        self.successor.is_some()
    }

    pub(super) fn upgrade(&mut self, now: Time) {
        if self.was_asked_to_stop() || self.is_upgrading() {
            return;
        }
        self.notice(Notice::UpgradeBegun);
        self.successor = Some(Successor { pid: None, stage: Stage::Spawning, since: now });
        self.effects.push_back(Effect::Upgrade);
    }

    pub(super) fn successor_spawned(&mut self, pid: Pid, now: Time) {
        if let Some(successor) = self.successor.as_mut().filter(|successor| successor.stage == Stage::Spawning) {
            *successor = Successor { pid: Some(pid), stage: Stage::Starting, since: now };
        }
    }

    pub(super) fn successor_ready(&mut self) {
        let Some(pid) = self.successor.take_if(|it| it.stage == Stage::Starting).and_then(|it| it.pid) else { return };
        self.notice(Notice::UpgradeDone { pid });
        self.stop(Stop::Drain, Outcome::Replaced);
    }

    pub(super) fn successor_gone(&mut self, exit: Option<Exit>) {
        let Some(successor) = self.successor.take() else { return };
        self.effects.retain(|effect| effect.pid().is_none() || effect.pid() != successor.pid);
        let reason = match exit {
            None => UpgradeFailure::Spawn,
            Some(exit) => UpgradeFailure::Exit(exit),
        };
        // If it was told to leave, it has failed before.
        if !successor.stage.is_leaving() {
            self.notice(Notice::UpgradeFailed { reason });
        }
    }

    pub(super) fn expire_successor(&mut self, now: Time) {
        let policy = self.policy;
        let Some(successor) = &self.successor else { return };
        if successor.deadline(&policy).is_none_or(|at| now < at) {
            return;
        }
        match successor.stage {
            Stage::Starting => {
                self.notice(Notice::UpgradeFailed { reason: UpgradeFailure::Late });
                self.dismiss_successor(Stop::Drain, now);
            }
            _ => self.dismiss_successor(Stop::Force, now),
        }
    }

    /// Tells the new binary to leave, unless it was already told as strongly.
    pub(super) fn dismiss_successor(&mut self, how: Stop, now: Time) {
        let Some(successor) = &mut self.successor else { return };
        let Some(pid) = successor.pid.filter(|_| successor.stage.told() < Some(how)) else { return };
        successor.stage = match how {
            Stop::Drain => Stage::Draining,
            Stop::Quick => Stage::Quitting,
            Stop::Force => Stage::Killing(KillReason::Forced),
        };
        successor.since = now;
        self.effects.push_back(Effect::EndSuccessor { pid, how });
    }
}
