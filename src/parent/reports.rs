//! What workers report.

use std::os::fd::AsRawFd;

use super::*;

impl Parent {
    /// Takes in what a worker has said.
    pub(super) fn hear(&mut self, pid: Pid) {
        let now = clock::now();
        let Some(process) = self.roster.get_mut(pid) else { return };
        if process.violation.is_some() {
            return;
        }
        let Heard { records, violation } = process.ends.lifeline.hear(now);
        if process.ends.lifeline.has_more() {
            let reports = process.ends.lifeline.as_raw_fd();
            self.listen_again(reports, Source::Reports(pid));
        }
        for record in records {
            self.take_in(pid, record, now);
            // What it has said behind that does not count: it would be told as ready, say, and killed.
            if self.roster.get(pid).is_none_or(|process| process.violation.is_some()) {
                return;
            }
        }
        if let Some(violation) = violation {
            self.misbehaved(pid, violation.to_string());
        }
    }

    fn take_in(&mut self, pid: Pid, record: Record, now: Time) {
        match record {
            Record::Listening => self.listening(pid),
            // A program may have told it by itself.
            Record::Ready if self.roster.is_starting(pid) => self.ready(pid),
            Record::Ready => {}
            Record::Awake => self.watch_stalls(now),
            Record::Steer => self.custody.rung(now),
            Record::Released => self.neighbours.released(pid),
            Record::Leave => self.tell(Event::Leaves { pid }),
            Record::Due => self.tell(Event::Recycle { pid, why: Recycle::Requests }),
            Record::Broken { .. } => self.hear_of_broken(pid),
            Record::Executes => self.executes(pid),
            Record::Program { pid: program } => self.executed(pid, program),
            Record::Stopped => self.suspended(pid, true),
            Record::Resumed => self.suspended(pid, false),
        }
    }

    fn listening(&mut self, pid: Pid) {
        let Some(process) = self.roster.get_mut(pid) else { return };
        let slot = process.slot;
        process.is_set_up = true;
        match process.ends.lifeline.take_made() {
            Ok(made) if made.is_empty() || self.is_stopping => {}
            Ok(made) => self.keep(slot, made),
            Err((problem, fds)) => {
                self.discard.add(fds);
                return self.misbehaved(pid, problem.to_owned());
            }
        }
        self.tell(Event::Listening { pid });
        let process = self.roster.identify(pid);
        self.emit(&event::Event::Online(process));
        let addresses = self.custody.sockets(slot).map(SlotSockets::addresses).unwrap_or_default();
        let udp = self.custody.sockets(slot).map(SlotSockets::udp_addresses).unwrap_or_default();
        self.emit(&event::Event::Listening { process, addresses: &addresses, udp: &udp });
    }

    /// A worker has said or sent what none may: it is killed and replaced. That it was, and why, is one line of the log.
    pub(super) fn misbehaved(&mut self, pid: Pid, why: String) {
        if let Some(process) = self.roster.get_mut(pid) {
            process.violation.get_or_insert(why);
            self.tell(Event::Misbehaved { pid });
        }
    }
}
