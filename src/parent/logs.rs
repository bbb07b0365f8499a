//! The access log: opened here, with the rights that workers give up, and given to them again when it was renamed.

use super::*;

/// When to try again, if a worker has many orders that it has not read.
const RETRY: Duration = Duration::from_millis(100);

impl Parent {
    /// Opens the access log's file anew, since somebody may have renamed the old one.
    pub(super) fn reopen_log(&mut self) {
        let Some(path) = self.config.access_log.as_deref() else {
            return info!("SIGUSR1 ignored: there is no access log");
        };
        match log_file::open(path, others(&self.credentials)) {
            Ok(file) => {
                self.access_log = Some(Rc::new(file));
                self.roster.iter_mut().for_each(|(_, it)| it.has_old_log = it.ends.program.is_none());
                self.log_retry = Some(Time::default());
                info!("access log {} reopened", path.display());
            }
            Err(error) => error!("cannot reopen the access log, writing on to the old file: {}", error.report()),
        }
    }

    /// Gives the file to the workers that have the old one.
    pub(super) fn tell_of_log(&mut self) {
        let now = clock::now();
        if self.log_retry.is_none_or(|due| now < due) {
            return;
        }
        self.log_retry = None;
        let Some(file) = &self.access_log else { return };
        let board = &self.board;
        for (_, process) in self.roster.iter_mut().filter(|(_, process)| process.has_old_log) {
            let is_full = |error: &io::Error| matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOBUFS));
            let told = process.ends.lifeline.log(file);
            // One that runs a server of its own never reads its orders.
            process.has_old_log = told.as_ref().is_err_and(is_full) && board.row(process.row).is_neighbour();
            if process.has_old_log {
                self.log_retry = Some(now + RETRY);
            }
        }
    }
}
