//! PURE. An upgrade: a new binary is started beside this pool, with all its sockets. When the workers of the new binary
//! are ready, this pool drains. Until then no slot of this pool is replaced or added.

use std::time::Duration;

use crate::parent::supervisor::effects::Effects;
use crate::parent::supervisor::event::{Effect, Exit, KillReason, Notice, Pid, Stop, UpgradeFailure};
use crate::parent::supervisor::policy::Timeouts;
use crate::parent::supervisor::slot::Stage;
use crate::time::Time;

#[derive(Debug, Default)]
pub(super) struct Upgrade {
    successor: Option<Successor>,
}

/// The parent of the new pool, from the decision to start it until it has taken over or was reaped.
#[derive(Debug)]
struct Successor {
    pid: Option<Pid>,
    stage: Stage,
    since: Time,
}

impl Successor {
    /// When it will have been in its stage for too long.
    fn deadline(&self, timeouts: &Timeouts) -> Option<Time> {
        let (limit, grace) = match self.stage {
            // All of its workers have to become ready.
            Stage::Starting => (timeouts.boot, Duration::ZERO),
            // It ends its own workers first.
            Stage::Draining => (timeouts.drain, timeouts.quick),
            Stage::Quitting => (timeouts.quick, timeouts.quick),
            _ => return None,
        };
        (!limit.is_zero()).then(|| self.since + limit + grace)
    }
}

impl Upgrade {
    /// Whether the new binary may still become ready or exit.
    pub(super) fn is_in_progress(&self) -> bool {
        self.successor.is_some()
    }

    /// Whether an upgrade is in progress, which then refuses what was requested.
    pub(super) fn refuses(&self, effects: &mut Effects) -> bool {
        if self.is_in_progress() {
            effects.notice(Notice::UpgradeInTheWay);
        }
        self.is_in_progress()
    }

    pub(super) fn begin(&mut self, effects: &mut Effects, now: Time) {
        effects.notice(Notice::UpgradeBegun);
        self.successor = Some(Successor { pid: None, stage: Stage::Spawning, since: now });
        effects.push(Effect::Upgrade);
    }

    pub(super) fn spawned(&mut self, pid: Pid, now: Time) {
        if let Some(successor) = self.successor.as_mut().filter(|successor| successor.stage == Stage::Spawning) {
            *successor = Successor { pid: Some(pid), stage: Stage::Starting, since: now };
        }
    }

    /// The workers of the new binary are ready. Returns whether it takes over.
    pub(super) fn ready(&mut self, effects: &mut Effects) -> bool {
        let successor = self.successor.take_if(|successor| successor.stage == Stage::Starting);
        let Some(pid) = successor.and_then(|successor| successor.pid) else { return false };
        effects.notice(Notice::UpgradeDone { pid });
        true
    }

    pub(super) fn gone(&mut self, exit: Option<Exit>, effects: &mut Effects) {
        let Some(successor) = self.successor.take() else { return };
        if let Some(pid) = successor.pid {
            effects.forget(pid);
        }
        // If it was told to leave, it has failed before.
        if !successor.stage.is_leaving() {
            let reason = exit.map_or(UpgradeFailure::Spawn, UpgradeFailure::Exit);
            effects.notice(Notice::UpgradeFailed { reason });
        }
    }

    pub(super) fn deadline(&self, timeouts: &Timeouts) -> Option<Time> {
        self.successor.as_ref()?.deadline(timeouts)
    }

    pub(super) fn expire(&mut self, timeouts: &Timeouts, effects: &mut Effects, now: Time) {
        if self.deadline(timeouts).is_none_or(|at| now < at) {
            return;
        }
        match self.successor.as_ref().map(|successor| successor.stage) {
            Some(Stage::Starting) => {
                effects.notice(Notice::UpgradeFailed { reason: UpgradeFailure::Late });
                self.stop(Stop::Drain, effects, now);
            }
            _ => self.stop(Stop::Force, effects, now),
        }
    }

    /// Tells the new binary to leave, unless it was already told as strongly.
    pub(super) fn stop(&mut self, how: Stop, effects: &mut Effects, now: Time) {
        let Some(successor) = &mut self.successor else { return };
        let Some(pid) = successor.pid.filter(|_| successor.stage.ordered() < Some(how)) else { return };
        successor.stage = match how {
            Stop::Drain => Stage::Draining,
            Stop::Quick => Stage::Quitting,
            Stop::Force => Stage::Killing(KillReason::Forced),
        };
        successor.since = now;
        effects.push(Effect::EndSuccessor { pid, how });
    }

    pub(super) fn frozen(&mut self, span: Duration) {
        if let Some(successor) = &mut self.successor {
            successor.since = successor.since + span;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_that_is_late_is_told_and_then_killed_and_its_exit_is_no_second_failure() {
        let at = Time::from_millis;
        let (boot, drain, quick) = (Duration::from_secs(10), Duration::from_secs(5), Duration::from_secs(1));
        let timeouts = Timeouts { boot, suspended: boot, drain, quick };
        let (mut upgrade, mut effects) = (Upgrade::default(), Effects::default());
        upgrade.begin(&mut effects, at(0));
        assert!(upgrade.refuses(&mut effects) && upgrade.deadline(&timeouts).is_none(), "it was not forked yet");
        upgrade.spawned(Pid(10), at(0));
        upgrade.frozen(Duration::from_secs(1));
        upgrade.expire(&timeouts, &mut effects, at(10_999));
        assert_eq!(upgrade.deadline(&timeouts), Some(at(11_000)));
        upgrade.expire(&timeouts, &mut effects, at(11_000));
        assert!(!upgrade.ready(&mut effects), "too late");
        assert_eq!(upgrade.deadline(&timeouts), Some(at(17_000)), "it ends its own workers first");
        upgrade.expire(&timeouts, &mut effects, at(17_000));
        upgrade.gone(Some(Exit::Code(0)), &mut effects);
        assert!(!upgrade.is_in_progress());
        let expected = [
            Effect::Notice(Notice::UpgradeBegun),
            Effect::Upgrade,
            Effect::Notice(Notice::UpgradeInTheWay),
            Effect::Notice(Notice::UpgradeFailed { reason: UpgradeFailure::Late }),
        ];
        // What was still to be told to it is forgotten with it.
        assert_eq!(std::iter::from_fn(|| effects.pop()).collect::<Vec<_>>(), expected);
    }
}
