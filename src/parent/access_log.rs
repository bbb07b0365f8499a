//! The access log. The parent opens it, with rights that workers give up, and passes it to them again after it was
//! renamed.

use std::fs::File;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use log::{error, info, warn};

use crate::parent::process::Roster;
use crate::parent::settings::others;
use crate::shared::credentials::Credentials;
use crate::shared::log_file;
use crate::shared::outlet::{count_lost, Outlet};
use crate::shared::scoreboard::{whole_lines, ParentBoard};
use crate::time::Time;

/// When to try again, if a worker has many unread orders.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// The file, if there is one, and which workers must get a new one.
#[derive(Debug)]
pub(super) struct AccessLog {
    file: Option<Rc<File>>,
    /// When to pass a new file to the workers that could not get it yet.
    retry: Option<Time>,
}

impl AccessLog {
    pub(super) fn new(file: Option<File>) -> AccessLog {
        AccessLog { file: file.map(Rc::new), retry: None }
    }

    pub(super) fn file(&self) -> Option<&Rc<File>> {
        self.file.as_ref()
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.retry
    }

    /// Reopens the file, since the old one may have been renamed.
    pub(super) fn reopen(&mut self, path: Option<&Path>, user: &Option<Rc<Credentials>>, roster: &mut Roster) {
        let Some(path) = path else {
            return info!("SIGUSR1 ignored: there is no access log");
        };
        match log_file::open(path, others(user)) {
            Ok(file) => {
                self.file = Some(Rc::new(file));
                roster.iter_mut().for_each(|(_, it)| it.has_old_log = it.ends.program.is_none());
                self.retry = Some(Time::default());
                info!("access log {} reopened", path.display());
            }
            Err(error) => error!("cannot reopen the access log, writing on to the old file: {}", error.report()),
        }
    }

    /// Writes what a worker that has ended had not written. It may be anything.
    pub(super) fn write_last(&self, left: &[u8], tag: &str) {
        let lines = whole_lines(left);
        let Some(file) = self.file.as_ref().filter(|_| !lines.is_empty()) else { return };
        let (written, error) = match file.try_clone() {
            Ok(file) => Outlet::new(file.into()).write(&lines),
            Err(error) => (0, Some(error)),
        };
        if let Some(error) = error {
            let lost = memchr::memchr_iter(b'\n', &lines[written..]).count() as u64;
            count_lost(lost);
            warn!("{tag} lost {lost} lines of the access log: {error}");
        }
    }

    /// Passes the file to the workers that have the old one.
    pub(super) fn tell(&mut self, roster: &mut Roster, board: &ParentBoard, now: Time) {
        if self.retry.is_none_or(|due| now < due) {
            return;
        }
        self.retry = None;
        let Some(file) = &self.file else { return };
        for (_, process) in roster.iter_mut().filter(|(_, process)| process.has_old_log) {
            let is_full = |error: &io::Error| matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOBUFS));
            let told = process.ends.lifeline.log(file);
            // A worker that runs its own server never reads its orders.
            process.has_old_log = told.as_ref().is_err_and(is_full) && board.row(process.row).is_neighbour();
            if process.has_old_log {
                self.retry = Some(now + RETRY_DELAY);
            }
        }
    }
}
