//! Performs the supervisor's effects, and logs its notices.

use nix::sys::signal::Signal;

use crate::error::{Error, Result};
use crate::parent::announce::{comes_again_and_again, is_warning};
use crate::parent::event;
use crate::parent::health::{Health, Interrupted};
use crate::parent::journal::Journal;
use crate::parent::leaving;
use crate::parent::process::signal;
use crate::parent::spawn::{spawn_failed, Child};
use crate::parent::subject::{subject_of, Subject};
use crate::parent::successor::HandedOver;
use crate::parent::supervisor::{Effect, Notice, Outcome, Stop};
use crate::parent::workers::{abort, disconnected, drain, is_known, kill};
use crate::parent::{NextStep, Parent};
use crate::sys::clock;

impl Parent {
    /// Performs one effect; returns what only the pool's owner can do.
    pub(super) fn perform(&mut self, effect: Effect) -> Option<NextStep> {
        let config = &self.deploy.settings.config;
        match effect {
            Effect::Spawn { slot, generation } => match self.seed(slot, generation) {
                Ok(seed) => return Some(NextStep::Fork(Child::Worker(Box::new(seed)))),
                Err(error) => spawn_failed(slot, &error.report(), &mut self.roster, &mut self.journal),
            },
            Effect::Drain { pid }
                if leaving::begin(pid, &mut self.roster, config.lifecycle.drain_timeout, clock::now()) => {}
            Effect::Drain { pid } => {
                self.handover.name_destinations(pid, &self.roster, self.health.board());
                drain(pid, &mut self.roster, &mut self.application, &self.journal);
            }
            Effect::Quit { pid } => {
                signal(pid, Signal::SIGINT);
                disconnected(pid, &mut self.roster, &mut self.application, &self.journal);
            }
            Effect::Resume { pid } => signal(pid, Signal::SIGCONT),
            Effect::Abort { pid } => {
                abort(pid, &self.roster, &self.health, config, &mut self.journal);
                disconnected(pid, &mut self.roster, &mut self.application, &self.journal);
            }
            Effect::Kill { pid, why } => {
                kill(pid, why, &self.roster, &self.health, config, &mut self.journal);
                disconnected(pid, &mut self.roster, &mut self.application, &self.journal);
            }
            Effect::Retire { slot } => {
                self.journal.forget(slot);
                self.handover.retire(slot);
                self.sockets.retire(slot, clock::now());
            }
            Effect::ReleaseSockets => {
                self.application.emit(&event::Event::Stopping, &self.roster, &self.journal);
                self.outputs.service.stopping();
                // Else when its programs have left.
                if self.roster.succession.is_none() {
                    self.sockets.release();
                }
            }
            Effect::Upgrade => {
                let admin = self.outputs.admin.as_ref();
                let pairs = self.handover.pairs(self.roster.supervisor.slots().wanted());
                let handed_over = HandedOver { pairs: &pairs, tickets: self.deploy.tls.pass_on() };
                let Parent { takeover, sockets, wakeups, journal, .. } = self;
                let fact = takeover.upgrade(config, sockets, handed_over, admin, wakeups, journal);
                self.roster.tell(fact, clock::now());
            }
            Effect::EndSuccessor { pid, how: Stop::Drain } => signal(pid, Signal::SIGTERM),
            Effect::EndSuccessor { pid, how: Stop::Quick } => signal(pid, Signal::SIGINT),
            Effect::EndSuccessor { pid, how: Stop::Force } => signal(pid, Signal::SIGKILL),
            Effect::Notice(notice) => self.announce(&notice),
            Effect::Finish(outcome) => {
                self.outputs.service.end();
                self.discard.end();
                let Parent { roster, outputs, takeover, discard, programs, .. } = self;
                let admin = outputs.admin.as_ref();
                programs.orphans.end_last(|pid| is_known(pid, roster, admin, takeover, discard));
                let requests = (!programs.orphans.are_taken()).then(|| self.health.board().dead().requests);
                let result = result_of(outcome, requests, &self.health, &mut self.journal);
                if let Some(mut admin) = self.outputs.admin.take() {
                    admin.observe(&self.roster, &self.sockets, &self.deploy.settings, &mut self.journal);
                    admin.end();
                }
                return Some(NextStep::Finished(result));
            }
        }
        None
    }

    /// Reports a notice of the supervisor to everybody concerned.
    fn announce(&mut self, notice: &Notice) {
        let service = &mut self.outputs.service;
        match notice {
            Notice::AllReady { .. } => {
                let wanted = self.roster.supervisor.slots().wanted();
                for reserved in self.sockets.addresses.all().iter() {
                    let text = format!("listening on {reserved} with {}", self.deploy.settings.reason_for(wanted));
                    self.journal.log(log::Level::Info, subject_of(notice), text);
                }
                match self.takeover.has_predecessor() {
                    true => self.take_over(),
                    false => service.ready(),
                }
            }
            Notice::RestartBegun => {
                self.journal.restart_aborted = None;
                service.reloading();
            }
            Notice::RestartAborted { .. } => {
                self.journal.restart_aborted = Some(self.journal.text_of(notice));
                service.ready();
            }
            Notice::RestartDone => service.ready(),
            _ => {}
        }
        say(notice, &mut self.journal);
        self.application.announce(notice, &self.roster, &self.journal);
        self.obey_application();
        if let Notice::RestartDone | Notice::RestartAborted { .. } = notice {
            let is_done = matches!(notice, Notice::RestartDone);
            if let Some(before) = self.deploy.restart_ended(is_done) {
                self.apply(before);
                self.deploy.give_root();
                let text = "restored the settings from before the restart".to_owned();
                self.journal.log(log::Level::Info, Subject::pool("settings_restored"), text);
            }
        }
    }
}

/// Logs a notice.
fn say(notice: &Notice, journal: &mut Journal) {
    let level = if is_warning(notice) { log::Level::Warn } else { log::Level::Info };
    if !matches!(notice, Notice::AllReady { .. }) {
        match comes_again_and_again(notice) {
            true => journal.log_limited(level, subject_of(notice), journal.text_of(notice)),
            false => journal.log(level, subject_of(notice), journal.text_of(notice)),
        }
    }
}

/// The result that the pool's owner gets. The `requests` of programs are not known.
fn result_of(outcome: Outcome, requests: Option<u64>, health: &Health, journal: &mut Journal) -> Result<()> {
    let stopped =
        requests.map_or_else(|| "stopped".to_owned(), |requests| format!("stopped after {requests} requests"));
    let Interrupted { connections, unknown } = health.cut();
    match outcome {
        Outcome::Stopped | Outcome::Replaced if connections > 0 || unknown > 0 => {
            Err(Error::Forced { connections, unknown })
        }
        Outcome::Stopped => {
            journal.log(log::Level::Info, Subject::pool("stopped"), stopped);
            Ok(())
        }
        Outcome::Replaced => {
            journal.log(
                log::Level::Info,
                Subject::pool("stopped").because("upgrade"),
                format!("{stopped}: another pool has taken over"),
            );
            Ok(())
        }
        Outcome::BootFailed { last } => {
            let reason = journal.last_failure(last);
            Err(Error::Boot { reason })
        }
        Outcome::GaveUp { slot, failures, last } => {
            let reason = journal.failure_of(slot, last);
            Err(Error::GaveUp { worker: slot, failures, reason })
        }
    }
}
