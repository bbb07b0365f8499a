//! Requests of signals, of the application, and of clients of the admin process.

use crate::error::Error;
use crate::parent::admin::Admin;
use crate::parent::application::Application;
use crate::parent::event;
use crate::parent::journal::Journal;
use crate::parent::outputs::Outputs;
use crate::parent::process::Roster;
use crate::parent::sockets::Sockets;
use crate::parent::subject::Subject;
use crate::parent::supervisor::{Event, Pid, Policy, PoolState, Stop};
use crate::parent::takeover::Takeover;
use crate::parent::Parent;
use crate::shared::config::Config;
use crate::shared::request::{Asker, Request};
use crate::sys::clock;

impl Parent {
    /// Carries out a request, whatever its source.
    pub(super) fn obey(&mut self, request: Request) {
        let wanted = self.roster.supervisor.slots().wanted();
        // A slot may hold two processes.
        let max = self.health.board().processes() / 2;
        let mut scale = |workers| scale(workers, max, &mut self.roster, &mut self.journal);
        match request {
            Request::Scale(workers) => scale(workers),
            Request::More => scale(wanted + 1),
            Request::Less => scale(wanted - 1),
            Request::Drain(asker) => stop(Stop::Drain, asker, &mut self.roster, &mut self.journal),
            Request::Quick(asker) => stop(Stop::Quick, asker, &mut self.roster, &mut self.journal),
            Request::Restart => self.restart(),
            Request::Upgrade => self.roster.tell(Event::Upgrade, clock::now()),
            Request::Reap => self.reap(),
            Request::Reopen => {
                let settings = &self.deploy.settings;
                let path = settings.config.access_log.file.as_deref();
                self.outputs.access_log.reopen(path, &settings.credentials, &mut self.roster);
            }
            Request::Disconnect(pid) => self.roster.tell(Event::Disconnected { pid: Pid(pid) }, clock::now()),
            Request::Log(level) => self.journal.set_level(level),
        }
    }

    /// Carries out the application's requests. Those that it makes meanwhile wait for the next call.
    pub(super) fn obey_application(&mut self) {
        self.application.take_requests().into_iter().for_each(|request| self.obey(request));
    }

    /// Carries out the commands of admin clients, up to the limit per second.
    pub(super) fn obey_admin(&mut self) {
        let now = clock::now();
        let next = |admin: &mut Option<Admin>, discard: &mut _, journal: &mut _| {
            admin.as_mut().and_then(|admin| admin.next_request(discard, journal, now))
        };
        while let Some(request) = next(&mut self.outputs.admin, &mut self.discard, &mut self.journal) {
            self.obey(request);
            self.obey_application();
        }
    }

    /// Replaces every worker, on request, by workers with the current settings.
    pub(super) fn restart(&mut self) {
        if may_restart(&self.sockets, &self.takeover) {
            match self.deploy.read_anew(&mut self.journal) {
                Ok(None) => {}
                Ok(Some(next)) => self.apply(next),
                Err(error) => {
                    return refuse_restart(
                        &error,
                        &self.roster,
                        &mut self.application,
                        &mut self.journal,
                        &mut self.outputs,
                    );
                }
            }
        }
        self.deploy.give_root();
        self.roster.tell(Event::Restart, clock::now());
    }

    /// Applies these settings to the parent and to workers that start from now on.
    pub(super) fn apply(&mut self, next: Config) {
        let before = self.deploy.settings.replace(next);
        let config = &self.deploy.settings.config;
        self.roster.supervisor.set_policy(Policy::from(config));
        self.health.apply(&before, config, clock::now());
        self.handover.set_rebalance(config.workers.rebalance);
        self.deploy.tls.check_soon(config, clock::now());
        if before.workers.count != config.workers.count {
            let workers = self.deploy.settings.count_workers();
            self.obey(Request::Scale(workers));
        }
    }
}

/// Whether a restart can begin: the pool neither ends nor is being replaced by another one.
pub(super) fn may_restart(sockets: &Sockets, takeover: &Takeover) -> bool {
    !sockets.are_released() && !takeover.has_successor()
}

fn scale(workers: usize, max: usize, roster: &mut Roster, journal: &mut Journal) {
    if workers == 0 || workers > max {
        let mut text = format!("still {} workers: there can be 1 to {max}", roster.supervisor.slots().wanted());
        if max < Config::WORKERS_MAX {
            text += " while the kernel counts their connections; \
                     for more, start the pool with more or with --balance random";
        }
        return journal.log(log::Level::Warn, Subject::pool("scale_refused"), text);
    }
    roster.tell(Event::Scale { workers }, clock::now());
}

/// Begins to stop, or stops more strongly.
fn stop(how: Stop, asker: Asker, roster: &mut Roster, journal: &mut Journal) {
    let now = clock::now();
    match roster.supervisor.escalation(how, now) {
        Some(Stop::Drain) => journal.log(log::Level::Info, Subject::pool("draining"), format!("draining: {asker}")),
        Some(Stop::Quick) => journal.log(log::Level::Info, Subject::pool("stopping"), format!("stopping: {asker}")),
        Some(Stop::Force) => {
            journal.log(
                log::Level::Warn,
                Subject::pool("stopping").because("forced"),
                format!("killing all workers: {asker} while stopping"),
            );
        }
        None => journal.log(log::Level::Info, Subject::pool("stopping"), format!("stopping already: {asker}")),
    }
    roster.tell(Event::Stop(how), now);
}

/// Refuses a requested restart. Nothing changes.
fn refuse_restart(
    error: &Error,
    roster: &Roster,
    application: &mut Application,
    journal: &mut Journal,
    outputs: &mut Outputs,
) {
    let error = error.report();
    let reason = format!("no worker is replaced: {error}");
    if roster.supervisor.state() == PoolState::Restarting {
        let text = format!("refused, and the restart under way goes on: {error}");
        return journal.log(log::Level::Warn, Subject::pool("restart_refused"), text);
    }
    let text = format!("rolling restart aborted, {reason}");
    journal.restart_aborted = Some(text.clone());
    outputs.service.reloading();
    outputs.service.ready();
    journal.log(log::Level::Warn, Subject::pool("restart_refused"), text);
    application.emit(&event::Event::RestartRefused { reason: &reason }, roster, journal);
}
