//! Where the pool shows itself: a service manager, a pid file, an access log, the admin process.
//!
//! It owns the connection to the service manager, the two files, and what the parent knows of the admin process. Its
//! input: the state of the pool. Its only outputs are the access log's file, which workers get, and the requests of the
//! admin process.

use crate::parent::access_log::AccessLog;
use crate::parent::admin::Admin;
use crate::parent::health::Health;
use crate::parent::journal::Journal;
use crate::parent::pid_file;
use crate::parent::process::Roster;
use crate::parent::service::Service;
use crate::parent::supervisor::PoolState;
use crate::time::Time;

/// Where the pool shows itself, besides its log.
#[derive(Debug)]
pub(super) struct Outputs {
    pub(super) service: Service,
    pub(super) pid_file: pid_file::Pid,
    pub(super) access_log: AccessLog,
    /// The admin process, if there is an address for it.
    pub(super) admin: Option<Admin>,
}

impl Outputs {
    pub(super) fn new(access_log: AccessLog, admin: Option<Admin>, now: Time) -> Outputs {
        Outputs { service: Service::new(now), pid_file: pid_file::Pid::default(), access_log, admin }
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        let admin = self.admin.as_ref().and_then(Admin::deadline);
        let (service, pid_file) = (self.service.deadline(), self.pid_file.deadline());
        [service, pid_file, self.access_log.deadline(), admin].into_iter().flatten().min()
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
