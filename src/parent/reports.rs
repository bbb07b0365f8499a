//! The reports of workers.

use std::os::fd::AsRawFd;

use crate::parent::process::Roster;
use crate::parent::programs::{accepts, answered, executed};
use crate::parent::source::Source;
use crate::parent::supervisor::{Event, Pid, Recycle};
use crate::parent::wakeups::Wakeups;
use crate::parent::workers::{listening, overflowed, ready, suspended};
use crate::parent::Parent;
use crate::shared::channel::{Record, Reports};
use crate::sys::clock;
use crate::time::Time;

impl Parent {
    /// Handles the reports of a worker.
    pub(super) fn read_reports(&mut self, pid: Pid) {
        let now = clock::now();
        let Reports { records, violation } = read(pid, &mut self.roster, &self.wakeups, now);
        for record in records {
            self.take_in(pid, record, now);
            self.obey_application();
            // Reports after a violation do not count; otherwise a worker could be reported as ready and then killed.
            if self.roster.get(pid).is_none_or(|process| process.trust.is_broken()) {
                return;
            }
        }
        if let Some(violation) = violation {
            self.roster.misbehaved(pid, violation.to_string(), now);
        }
    }

    fn take_in(&mut self, pid: Pid, record: Record, now: Time) {
        let mut tell = |event| self.roster.tell(event, clock::now());
        match record {
            Record::Leave => tell(Event::Leaves { pid }),
            Record::Due => tell(Event::Recycle { pid, why: Recycle::Requests }),
            Record::Listening => {
                let Parent { roster, sockets, discard, application, journal, .. } = self;
                listening(pid, roster, sockets, discard, application, journal);
            }
            // A program may have reported it by itself.
            Record::Ready if !self.roster.is_starting(pid) => {}
            Record::Ready => {
                ready(pid, &mut self.roster, &mut self.application, &mut self.journal);
                self.handover.begin_to_balance(clock::now());
            }
            Record::Awake => self.health.wake(now),
            Record::Steer => self.sockets.check_steering(now),
            Record::Overflow => overflowed(pid, &self.roster, &self.sockets, self.health.board()),
            Record::Released => self.sockets.released(pid),
            Record::Broken { .. } => {
                let (config, now) = (&self.deploy.settings.config, clock::now());
                let mended = self.sockets.socket_failed(pid, &self.roster, config, &mut self.journal, now);
                mended.into_iter().for_each(|event| self.roster.tell(event, now));
            }
            Record::Executes => self.programs.executes(pid, &mut self.roster),
            Record::Program { pid: program } => {
                if executed(pid, program, &mut self.roster, clock::now()) {
                    ready(pid, &mut self.roster, &mut self.application, &mut self.journal);
                }
            }
            Record::Accepts => accepts(pid, &mut self.roster),
            Record::Answered { status } => answered(pid, status, &mut self.roster),
            Record::Remark(remark) => self.programs.remark(pid, remark, &mut self.roster, &mut self.journal),
            Record::Stopped => suspended(pid, true, &mut self.roster, &mut self.journal),
            Record::Resumed => suspended(pid, false, &mut self.roster, &mut self.journal),
        }
    }
}

/// Reads the reports of a worker, if it may still send any.
fn read(pid: Pid, roster: &mut Roster, wakeups: &Wakeups, now: Time) -> Reports {
    let Some(process) = roster.get_mut(pid).filter(|process| !process.trust.is_broken()) else {
        return Reports { records: Vec::new(), violation: None };
    };
    let reports = process.ends.lifeline.read_reports(now);
    if process.ends.lifeline.has_more() {
        wakeups.listen_again(process.ends.lifeline.as_raw_fd(), Source::Reports(pid));
    }
    reports
}
