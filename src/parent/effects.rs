//! What the supervisor wants done, and what it has to say.

use super::*;

impl Parent {
    /// Performs one effect; returns what only the pool's owner can do.
    pub(super) fn perform(&mut self, effect: Effect) -> Option<Turn> {
        match effect {
            Effect::Spawn { slot, generation } => match self.seed(slot, generation) {
                Ok(seed) => return Some(Turn::Fork(Child::Worker(Box::new(seed)))),
                Err(error) => self.spawn_failed(slot, &error.report()),
            },
            Effect::Drain { pid } => self.drain(pid),
            Effect::Quit { pid } => {
                signal(pid, Signal::SIGINT);
                self.disconnected(pid);
            }
            Effect::Abort { pid } => {
                let within = self.roster.get(pid).map(|process| self.within(process.row)).unwrap_or_default();
                let reason = kill_reason(KillReason::Stalled, &self.config);
                let text = format!("{} {reason}{within}", self.roster.tag(pid));
                self.journal.say(log::Level::Warn, self.roster.slot_of(pid), text);
                signal(pid, Signal::SIGABRT);
                self.disconnected(pid);
            }
            Effect::Kill { pid, why } => self.kill(pid, why),
            Effect::Retire { slot } => {
                self.journal.forget(slot);
                self.custody.retire(slot, clock::now());
            }
            Effect::LetGo => self.let_go(),
            Effect::Upgrade => self.upgrade(),
            Effect::EndSuccessor { pid, how } => signal(
                pid,
                match how {
                    Stop::Drain => Signal::SIGTERM,
                    Stop::Quick => Signal::SIGINT,
                    Stop::Force => Signal::SIGKILL,
                },
            ),
            Effect::Notice(notice) => self.announce(&notice),
            Effect::Finish(outcome) => {
                let result = self.finish(outcome);
                self.end_admin();
                return Some(Turn::Finished(result));
            }
        }
        None
    }

    /// Lets go of every address: when the workers have taken what waits and close theirs, the ports are free.
    pub(super) fn let_go(&mut self) {
        self.is_stopping = true;
        self.emit(&event::Event::Stopping);
        self.service.stopping();
        self.attention = Attention::default();
        self.custody.clear();
        self.reserved = Rc::default();
    }

    pub(super) fn finish(&mut self, outcome: Outcome) -> Result<()> {
        self.service.end();
        self.discard.end();
        self.end_last_orphans();
        let requests = self.board.dead().requests;
        let Cut { connections, unknown } = self.cut;
        match outcome {
            Outcome::Stopped | Outcome::Replaced if connections > 0 || unknown > 0 => {
                Err(Error::Forced { connections, unknown })
            }
            Outcome::Stopped => {
                self.journal.say(log::Level::Info, None, format!("stopped after {requests} requests"));
                Ok(())
            }
            Outcome::Replaced => {
                let text = format!("stopped after {requests} requests: another pool has taken over");
                self.journal.say(log::Level::Info, None, text);
                Ok(())
            }
            Outcome::BootFailed { last } => {
                let reason = self.journal.last_failure(last);
                Err(Error::Boot { reason })
            }
            Outcome::GaveUp { slot, failures, last } => {
                let reason = self.journal.failure_of(slot, last);
                Err(Error::GaveUp { worker: slot, failures, reason })
            }
        }
    }

    pub(super) fn announce(&mut self, notice: &Notice) {
        match notice {
            Notice::AllReady { .. } => {
                for reserved in Rc::clone(&self.reserved).iter() {
                    let text = format!("listening on {reserved} with {}", self.derivation);
                    self.journal.say(log::Level::Info, None, text);
                }
                match self.predecessor.take() {
                    Some(predecessor) => self.take_over(predecessor),
                    None => self.service.ready(),
                }
            }
            Notice::RestartBegun => {
                self.journal.restart_aborted = None;
                self.service.reloading();
            }
            Notice::RestartAborted { .. } => {
                self.journal.restart_aborted = Some(self.journal.text_of(notice));
                self.service.ready();
            }
            Notice::RestartDone => self.service.ready(),
            _ => {}
        }
        let level = if is_warning(notice) { log::Level::Warn } else { log::Level::Info };
        if !matches!(notice, Notice::AllReady { .. }) {
            match comes_again_and_again(notice) {
                true => self.journal.say_rarely(level, slot_of(notice), self.journal.text_of(notice)),
                false => self.journal.say(level, slot_of(notice), self.journal.text_of(notice)),
            }
        }
        self.emit_notice(notice);
        match notice {
            Notice::RestartDone => self.restart_ended(true),
            Notice::RestartAborted { .. } => self.restart_ended(false),
            _ => {}
        }
    }
}
