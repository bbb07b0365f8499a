//! The pool's interfaces to the system around it: a service manager, a pid file, an access log.
//!
//! It owns the connection to the service manager and the two files. Its input: the state of the pool. Its only output
//! is the access log's file, which workers get.

use crate::parent::access_log::AccessLog;
use crate::parent::health::Health;
use crate::parent::journal::Journal;
use crate::parent::pid_file;
use crate::parent::process::Roster;
use crate::parent::service::Service;
use crate::parent::supervisor::PoolState;
use crate::time::Time;

/// The interfaces of the pool besides its log.
#[derive(Debug)]
pub(super) struct Outputs {
    pub(super) service: Service,
    pub(super) pid_file: pid_file::Pid,
    pub(super) access_log: AccessLog,
}

impl Outputs {
    pub(super) fn new(access_log: AccessLog, now: Time) -> Outputs {
        Outputs { service: Service::new(now), pid_file: pid_file::Pid::default(), access_log }
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        [self.service.deadline(), self.pid_file.deadline(), self.access_log.deadline()].into_iter().flatten().min()
    }

    /// Reports to the service manager the state of the pool, and that it responds.
    pub(super) fn settle(&mut self, roster: &Roster, health: &Health, journal: &Journal, is_over: bool, now: Time) {
        let supervisor = &roster.supervisor;
        let (ready, wanted) = (supervisor.slots().ready_workers(), supervisor.slots().wanted());
        self.service.status(match (supervisor.state(), &journal.restart_aborted) {
            (PoolState::Stopping, _) => format!("stopping, {} workers left", roster.len()),
            (PoolState::LameDuck, _) => format!("lame duck, {ready} of {wanted} workers ready"),
            (_, Some(aborted)) => format!("{ready} of {wanted} workers ready; {aborted}"),
            _ => format!("{ready} of {wanted} workers ready"),
        });
        let responds = is_over || health.responds(roster) || !supervisor.was_ready();
        self.service.watch(now, || responds);
    }
}
