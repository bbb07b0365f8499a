//! What signals, the application and clients of the admin process ask for.

use super::*;
use crate::shared::request::Asker;

impl Parent {
    /// Does what somebody asks for, by whatever way.
    pub(super) fn obey(&mut self, request: Request) {
        match request {
            Request::Drain(asker) => self.stop(Stop::Drain, asker),
            Request::Quick(asker) => self.stop(Stop::Quick, asker),
            Request::Restart => self.restart(),
            Request::Scale(workers) => self.scale(workers),
            Request::More => self.scale(self.roster.supervisor.wanted() + 1),
            Request::Less => self.scale(self.roster.supervisor.wanted() - 1),
            Request::Upgrade => self.tell(Event::Upgrade),
            Request::Reap => self.reap(),
            Request::Reopen => {
                let path = self.config.access_log.as_deref();
                self.access_log.reopen(path, &self.credentials, &mut self.roster);
            }
            Request::Disconnect(pid) => self.tell(Event::Disconnected { pid: Pid(pid) }),
            Request::Log(level) => self.journal.set_level(level),
        }
    }

    pub(super) fn scale(&mut self, workers: usize) {
        // A slot may hold two processes.
        let (wanted, max) = (self.roster.supervisor.wanted(), self.board.processes() / 2);
        if workers == 0 || workers > max {
            let mut text = format!("still {wanted} workers: there can be 1 to {max}");
            if max < Config::WORKERS_MAX {
                text += " while the kernel counts their connections; for more, start the pool with more or with --balance random";
            }
            return self.journal.say(log::Level::Warn, None, text);
        }
        self.tell(Event::Scale { workers });
    }

    /// Begins to stop, or does so more firmly.
    pub(super) fn stop(&mut self, how: Stop, asker: Asker) {
        match self.roster.supervisor.heeds(how, clock::now()) {
            Some(Stop::Drain) => self.journal.say(log::Level::Info, None, format!("draining: {asker}")),
            Some(Stop::Quick) => self.journal.say(log::Level::Info, None, format!("stopping: {asker}")),
            Some(Stop::Force) => {
                self.journal.say(log::Level::Warn, None, format!("killing all workers: {asker} while stopping"));
            }
            None => self.journal.say(log::Level::Info, None, format!("stopping already: {asker}")),
        }
        self.tell(Event::Stop(how));
    }
}
