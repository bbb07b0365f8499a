//! The parent in a history: performs effects, perhaps late, and forks workers with invented lives.

use super::*;

impl World {
    /// Performs the next effect as the parent would, and checks that it is valid.
    pub(super) fn perform(&mut self) -> bool {
        let Some(effect) = self.supervisor.poll_effect() else { return false };
        self.note(|| format!("{effect:?}"));
        assert!(!self.finished, "Finish is the last effect");
        self.seen.insert(kind(&effect));
        match effect {
            Effect::Spawn { slot, generation } => self.fork(slot, generation),
            Effect::Drain { pid } => self.ordered(pid, Stop::Drain),
            Effect::Quit { pid } => self.ordered(pid, Stop::Quick),
            Effect::Kill { pid, .. } => self.ordered(pid, Stop::Force),
            Effect::Notice(Notice::Recycling { slot, why }) if why.is_requested() => {
                let times = self.requested.entry(slot).or_default();
                *times += 1;
                let most = Rates::REQUEST_BURST as u64 + self.now / SECOND;
                assert!(*times <= most, "slot {slot} is recycled {times} times on its workers' word");
            }
            Effect::Retire { slot } => {
                self.requested.remove(&slot);
                assert!(self.workers.values().all(|worker| worker.slot != slot), "a retired slot is empty");
            }
            Effect::Abort { pid } => self.ordered(pid, Stop::Quick),
            Effect::Resume { pid } => {
                assert!(self.workers.contains_key(&pid.0) && self.let_go, "it is there, at the end")
            }
            Effect::ReleaseSockets => {
                assert!(!self.let_go && self.supervisor.shutdown.is_stopping(), "once, at the end");
                self.let_go = true;
            }
            Effect::Upgrade => {
                assert!(self.successor.is_none(), "one at a time");
                if self.chance(4) {
                    self.tell(Event::SuccessorGone { exit: None });
                } else {
                    let at = self.now + self.below(600);
                    let status = [(at, None), (at, Some(Exit::Code(1))), (u64::MAX, None)];
                    self.successor = Some(self.pick(&status));
                    self.tell(Event::SuccessorSpawned { pid: SUCCESSOR });
                }
            }
            Effect::EndSuccessor { pid, how } => {
                assert!(pid == SUCCESSOR && self.successor.is_some(), "it lives");
                let is_deaf = how != Stop::Force && self.troubled && self.chance(3);
                let at = if is_deaf { u64::MAX } else { self.now + self.below(100) };
                self.successor = Some((at, Some(Exit::Code(0))));
            }
            Effect::Finish(outcome) => {
                assert!(self.workers.is_empty(), "nobody is left at the end");
                assert!(self.let_go, "nor is a socket");
                match outcome {
                    Outcome::GaveUp { slot, failures, .. } => {
                        assert!(self.ever_ready && failures >= 3);
                        assert!(self.mood == Mood::Anything || self.never_serves(slot), "slot {slot} has served");
                    }
                    Outcome::Replaced => assert!(self.seen.contains("UpgradeDone")),
                    Outcome::Stopped => {
                        let was_asked = self.stop.is_some() || self.answered_stop;
                        assert!(was_asked || self.seen.contains("AllLeftEmpty"), "nobody asked it to stop");
                    }
                    Outcome::BootFailed { .. } => assert!(!self.ever_ready, "a worker was ready"),
                }
                self.finished = true;
            }
            Effect::Notice(Notice::BackingOff { slot, .. }) if self.mood != Mood::Anything => {
                assert!(self.never_serves(slot), "slot {slot} has served");
            }
            Effect::Notice(_) => {}
        }
        true
    }

    pub(super) fn fork(&mut self, slot: SlotId, generation: u64) {
        assert!(!self.supervisor.shutdown.is_stopping(), "nothing is started after a stop");
        let siblings: Vec<&Worker> = self.workers.values().filter(|worker| worker.slot == slot).collect();
        assert!(siblings.len() < 2, "two processes a slot at most");
        assert!(siblings.iter().all(|worker| worker.generation < generation), "generations go up");
        if matches!(self.mood, Mood::CrashLoop | Mood::Poison | Mood::Mix) {
            self.check_start(slot);
        }
        self.forks.push((slot, self.now));
        if self.mood == Mood::Anything && self.chance(12) {
            return self.tell(Event::SpawnFailed { slot });
        }
        let pid = (1..).find(|pid| !self.workers.contains_key(pid)).expect("numbers do not run out");
        let worker = self.invent(slot, generation);
        self.workers.insert(pid, worker);
        self.tell(Event::Spawned { slot, pid: Pid(pid) });
    }

    /// Invents the whole life of a worker, until it is told something.
    pub(super) fn invent(&mut self, slot: SlotId, generation: u64) -> Worker {
        let listens = self.now + self.below(20);
        let is_quick = matches!(self.mood, Mood::CrashLoop | Mood::Poison | Mood::Mix);
        let ready = listens + if is_quick { self.below(20) } else { self.below(500) };
        let mut acts = vec![(listens, Act::Listen), (ready, Act::Ready)];
        let exit = self.pick(&[
            Exit::Code(0),
            Exit::Code(1),
            Exit::Signal { signal: 9, core_dumped: false },
            Exit::Signal { signal: 11, core_dumped: true },
        ]);
        match self.mood {
            Mood::Anything if self.troubled => match self.random.next() % 8 {
                0 => acts.truncate(self.below(2) as usize),
                1 => acts.push((ready + self.below(3 * SECOND), Act::Stall)),
                2..5 => acts.push((self.now + self.below(3 * SECOND), Act::Exit(exit))),
                _ => {}
            },
            // Before or after it is ready, but before it is stable.
            _ if self.troubled && self.never_serves(slot) => {
                acts.push((self.now + self.below(ready - self.now + 100), Act::Exit(exit)))
            }
            // At once, or after a while.
            Mood::Poison | Mood::Mix if self.troubled => acts.push((ready + self.below(400), Act::Exit(exit))),
            _ => {}
        }
        let deaf = self.troubled && self.mood == Mood::Anything;
        let (hears_drain, hears_quit) = (!(deaf && self.chance(4)), !(deaf && self.chance(4)));
        Worker { slot, generation, ordered: None, hears_drain, hears_quit, acts }
    }

    pub(super) fn ordered(&mut self, pid: Pid, how: Stop) {
        let delay = match how {
            Stop::Drain => self.below(1500),
            Stop::Quick => self.below(400),
            // A process may hang in the kernel for a while.
            Stop::Force if self.troubled && self.chance(10) => self.below(4 * SECOND),
            Stop::Force => self.below(5),
        };
        let exit = if how == Stop::Force { Exit::Signal { signal: 9, core_dumped: false } } else { Exit::Code(3) };
        let at = self.now + delay;
        let worker = self.workers.get_mut(&pid.0).expect("an effect is for a living process");
        assert!(worker.ordered < Some(how), "nothing is asked twice");
        worker.ordered = Some(how);
        if [worker.hears_drain, worker.hears_quit, true][how as usize] {
            worker.acts.push((at, Act::Exit(exit)));
        }
    }
}

fn kind(effect: &Effect) -> &'static str {
    match effect {
        Effect::Spawn { .. } => "Spawn",
        Effect::Drain { .. } => "Drain",
        Effect::Quit { .. } => "Quit",
        Effect::Resume { .. } => "Resume",
        Effect::Kill { why: KillReason::BootTimeout, .. } => "BootTimeout",
        Effect::Kill { why: KillReason::Suspended, .. } => "Suspended",
        Effect::Kill { why: KillReason::DrainTimeout, .. } => "DrainTimeout",
        Effect::Kill { why: KillReason::QuickTimeout, .. } => "QuickTimeout",
        Effect::Kill { why: KillReason::Stalled, .. } => "Stalled",
        Effect::Kill { why: KillReason::Misbehaved, .. } => "Misbehaved",
        Effect::Kill { why: KillReason::Forced, .. } => "Forced",
        Effect::Retire { .. } => "Retire",
        Effect::Notice(Notice::AllReady { .. }) => "AllReady",
        Effect::Notice(Notice::BackingOff { .. }) => "BackingOff",
        Effect::Notice(Notice::GaveUp { .. }) => "GivingUp",
        Effect::Notice(Notice::LeftEmpty { .. }) => "LeftEmpty",
        Effect::Notice(Notice::AllLeftEmpty) => "AllLeftEmpty",
        Effect::Notice(Notice::RestartBegun) => "RestartBegun",
        Effect::Notice(Notice::RestartExtended) => "RestartExtended",
        Effect::Notice(Notice::RestartDone) => "RestartDone",
        Effect::Notice(Notice::RestartAborted { .. }) => "RestartAborted",
        Effect::Notice(Notice::Scaled { .. }) => "Scaled",
        Effect::Notice(Notice::ScalingFailed { .. }) => "ScalingFailed",
        Effect::Finish(Outcome::Stopped) => "Stopped",
        Effect::Notice(Notice::Recycling { .. }) => "Recycling",
        Effect::Notice(Notice::RecyclingFailed { .. }) => "RecyclingFailed",
        Effect::Notice(Notice::Replacing { .. }) => "Replacing",
        Effect::Notice(Notice::LameDuck { .. }) => "LameDuck",
        Effect::Notice(Notice::UpgradeBegun) => "UpgradeBegun",
        Effect::Notice(Notice::UpgradeDone { .. }) => "UpgradeDone",
        Effect::Notice(Notice::UpgradeFailed { .. }) => "UpgradeFailed",
        Effect::Notice(Notice::UpgradeInTheWay) => "UpgradeInTheWay",
        Effect::Abort { .. } => "Abort",
        Effect::ReleaseSockets => "ReleaseSockets",
        Effect::Upgrade => "Upgrade",
        Effect::EndSuccessor { .. } => "EndSuccessor",
        Effect::Finish(Outcome::BootFailed { .. }) => "BootFailed",
        Effect::Finish(Outcome::GaveUp { .. }) => "GaveUp",
        Effect::Finish(Outcome::Replaced) => "Replaced",
    }
}
