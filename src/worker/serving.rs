//! What servers need from their worker, mainly the built-in one.

use std::cell::Cell;
use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;

use nix::poll::{poll, PollFd, PollFlags, PollTimeout};

use super::{Worker, NO_SLOT};
use crate::error::{Error, Result};
use crate::server::access_log::AccessLog;
use crate::server::http::Request;
use crate::server::resources::Resources;
use crate::server::station::Station;
use crate::shared::channel::WorkerEnd;
use crate::shared::log_text::tag;
use crate::shared::scoreboard::OwnRow;

impl Worker {
    /// Returns what the built-in server needs from this worker, and what it takes over.
    ///
    /// # Errors
    ///
    /// If no descriptor is free.
    pub(super) fn station(&self) -> Result<(Station<'_>, Resources)> {
        let listen = |source| Error::system("listen in the worker with epoll_ctl(2)", source);
        let shutdown = self.shutdown_signal().map_err(listen)?;
        let log = self.take_access_log();
        let log = log.map_err(|source| Error::system("copy the access log's descriptor with fcntl(2)", source))?;
        let all_collected = || Box::new(|_: &Request<'_>| false) as Box<_>;
        let resources = Resources {
            shutdown,
            listeners: self.listeners.take(),
            shared_listeners: self.shared_listeners.take(),
            unix_listeners: self.take_unix_listeners(),
            handover: self.handover.take(),
            inbox: self.take_inbox(),
            common: self.common.borrow().clone(),
            streams: self.streams.take().map_or_else(all_collected, |streams| streams.0),
            log,
        };
        let station = Station {
            id: self.id,
            tag: self.tag(),
            lifeline: &self.lifeline,
            page: &self.page,
            config: &self.server,
            drain_timeout: self.drain_timeout,
            quit: &self.quit,
            max_requests: &self.max_requests,
            adoptions: Arc::clone(&self.adoptions),
            woken: Cell::default(),
        };
        Ok((station, resources))
    }

    /// Takes the access log, if there is one.
    ///
    /// # Errors
    ///
    /// If no descriptor is free.
    fn take_access_log(&self) -> io::Result<Option<AccessLog>> {
        let Some((file, format)) = self.access_log.take() else { return Ok(None) };
        // It may be a standard stream, which a worker in its sandbox cannot copy.
        let file = Rc::try_unwrap(file).or_else(|file| file.try_clone())?.into();
        Ok(Some(AccessLog::new(file, self.page.lines().cloned(), format, self.id, std::process::id(), self.tag())))
    }

    /// Whether this worker is to finish.
    pub(crate) fn is_over(&self) -> io::Result<bool> {
        is_over(self.lifeline.stream())
    }

    pub(crate) fn notify_socket(&self) -> Option<&OsString> {
        self.notify_socket.as_ref()
    }

    pub(crate) fn lifeline(&self) -> &WorkerEnd {
        &self.lifeline
    }

    /// How the log names this worker.
    pub(crate) fn tag(&self) -> String {
        match self.id {
            NO_SLOT => format!("admin pid={}", std::process::id()),
            id => tag(id, self.generation, std::process::id()),
        }
    }

    pub(crate) fn row(&self) -> OwnRow<'_> {
        self.page.row()
    }
}

/// Whether a worker with this lifeline is to finish.
pub(super) fn is_over(lifeline: &UnixStream) -> io::Result<bool> {
    let mut stream = [PollFd::new(lifeline.as_fd(), PollFlags::POLLIN)];
    Ok(poll(&mut stream, PollTimeout::ZERO)? > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::channel;
    use crate::worker::is_draining;

    #[test]
    fn a_worker_is_over_when_its_lifeline_ends() {
        let (parent, worker) = channel::channel(0, false).expect("a socket pair");
        assert!(!is_over(worker.stream()).expect("a descriptor"));
        parent.close();
        assert!(is_over(worker.stream()).expect("a descriptor"));
        assert!(!is_draining(), "this process is no worker");
    }
}
