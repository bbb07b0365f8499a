//! What workers report, and what signals and others ask for.

use std::os::fd::AsRawFd;

use super::*;

impl Parent {
    /// Takes in what a worker has said.
    pub(super) fn hear(&mut self, pid: Pid) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        let slot = process.slot;
        let reports = process.lifeline.reports();
        if process.lifeline.has_more() {
            let lifeline = process.lifeline.as_raw_fd();
            self.listen_again(lifeline, token(pid));
        }
        for report in reports {
            let Some(process) = self.processes.get_mut(&pid) else { return };
            match report {
                Report::Listening(fds) => {
                    process.is_set_up = true;
                    if !fds.is_empty() && !self.is_stopping {
                        self.custody.keep(slot, SlotSockets::received(fds, &self.reserved));
                    }
                    self.tell(Event::Listening { pid });
                    let process = self.process(pid);
                    self.emit(&event::Event::Online(process));
                    let addresses = self.custody.sockets(slot).map(SlotSockets::addresses).unwrap_or_default();
                    let udp = self.custody.sockets(slot).map(SlotSockets::udp_addresses).unwrap_or_default();
                    self.emit(&event::Event::Listening { process, addresses: &addresses, udp: &udp });
                }
                Report::Ready => self.ready(pid),
                Report::Awake => self.watch.wake(clock::now()),
                Report::Released => self.neighbours.released(pid),
                Report::Leave => self.tell(Event::Disconnected { pid }),
                Report::Due => self.tell(Event::Recycle { pid, why: Recycle::Requests }),
                Report::Output(pipes) => self.take_output(pid, pipes),
                Report::Executes(sign) => self.executes(pid, sign),
                Report::Executed => self.executed(pid),
            }
        }
    }

    pub(super) fn obey(&mut self, request: Request) {
        match request {
            Request::Drain(signal) => self.stop(Stop::Drain, signal),
            Request::Quick => self.stop(Stop::Quick, "SIGINT"),
            Request::Restart => self.tell(Event::Restart),
            Request::More => self.scale(self.supervisor.wanted() + 1),
            Request::Less => self.scale(self.supervisor.wanted() - 1),
            Request::Upgrade => self.tell(Event::Upgrade),
            Request::Reap => self.reap(),
            Request::Reopen => self.reopen_log(),
        }
    }

    pub(super) fn scale(&mut self, workers: usize) {
        if workers == 0 || workers > Config::WORKERS_MAX {
            let (wanted, max) = (self.supervisor.wanted(), Config::WORKERS_MAX);
            return self.say(log::Level::Warn, None, format!("still {wanted} workers: there can be 1 to {max}"));
        }
        self.tell(Event::Scale { workers });
    }

    /// Begins to stop; asked a second time, whatever the signal, stops at once.
    pub(super) fn stop(&mut self, how: Stop, signal: &str) {
        let how = if self.supervisor.was_asked_to_stop() { Stop::Force } else { how };
        match how {
            Stop::Drain => self.say(log::Level::Info, None, format!("draining: {signal}")),
            Stop::Quick => self.say(log::Level::Info, None, format!("stopping: {signal}")),
            Stop::Force => self.say(log::Level::Warn, None, format!("killing all workers: {signal} while stopping")),
        }
        self.tell(Event::Stop(how));
    }
}
