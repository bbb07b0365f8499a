//! What the servers in a worker, the built-in one above all, need of it.

use std::cell::RefCell;
use std::ffi::OsString;
use std::io;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::poll::{poll, PollFd, PollFlags, PollTimeout};

use super::{Worker, NO_SLOT};
use crate::server::access_log::AccessLog;
use crate::server::http::{Common, Request};
use crate::shared::channel::WorkerEnd;
use crate::shared::config::ServerConfig;
use crate::shared::log_text::tag;
use crate::shared::scoreboard::{LatencyRow, OwnRow, Scoreboard, Seen};
use crate::shared::steer;
use crate::time::Time;

/// The longest that a worker waits before it rings again, as an exponent of two in milliseconds.
const RINGS_IN_VAIN: u32 = 6;

impl Worker {
    /// The TCP listeners that are this worker's own, and those that all workers share.
    pub(crate) fn take_listeners(&self) -> (Vec<TcpListener>, Vec<TcpListener>) {
        (self.listeners.take(), self.shared_listeners.take())
    }

    /// Says that this worker has served as many requests as it may, when that is so.
    pub(crate) fn check_requests(&self) {
        let max = self.max_requests.get();
        if max > 0 && self.row().requests() >= max {
            self.max_requests.set(0);
            self.lifeline.due();
        }
    }

    /// Whether a slot has a worker that takes from its queue.
    pub(crate) fn is_served(&self, slot: usize) -> bool {
        self.board().row_of(slot).is_some()
    }

    /// Has the parent look when connections that the kernel gave to an idle worker do not come: nothing wakes that, so it
    /// cannot correct the count. `seen` is what this has returned a while ago.
    pub(crate) fn look_for_pending(&self, seen: &[Seen]) -> Vec<Seen> {
        if seen.iter().any(|then| self.board().is_left(then)) {
            self.lifeline.steer();
        }
        self.board().pending(self.page.index())
    }

    /// Whether a slot has no worker, or one that is busy with something long.
    pub(crate) fn is_stalled(&self, slot: usize, now: Time) -> bool {
        self.board().row_of(slot).is_none_or(|row| steer::is_stalled(self.board().row(row), now))
    }

    /// Whether the worker of that slot is idle, and has fewer connections open than this one.
    pub(crate) fn is_idle_with_fewer(&self, slot: usize) -> bool {
        let Some(row) = self.board().row_of(slot).map(|row| self.board().row(row)) else { return false };
        row.busy_since().is_none() && row.open() < self.row().open()
    }

    /// Whether another worker serves, is not stuck, and has fewer connections than it may have.
    pub(crate) fn others_have_room(&self, now: Time) -> bool {
        let others = self.board().seats().filter(|row| *row != 0 && *row != self.page.index());
        let mut others = others.map(|row| self.board().row(row));
        others.any(|row| row.is_neighbour() && !row.is_full() && !steer::is_stalled(row, now))
    }

    /// Rings the parent if the kernel should be told otherwise whom to give new connections to; each time that it does
    /// nothing about it, it is left alone for twice as long.
    pub(crate) fn steer(&self, now: Time) {
        if !steer::is_outdated(self.board(), now) {
            return self.rings.set((now, 0));
        }
        let (due, in_vain) = self.rings.get();
        if due <= now {
            self.lifeline.steer();
            let pause = Duration::from_millis(1 << in_vain.min(RINGS_IN_VAIN));
            self.rings.set((now + pause, in_vain.saturating_add(1)));
        }
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

    /// How the log names it.
    pub(crate) fn tag(&self) -> String {
        match self.id {
            NO_SLOT => format!("admin pid={}", std::process::id()),
            id => tag(id, self.generation, std::process::id()),
        }
    }

    pub(crate) fn row(&self) -> OwnRow<'_> {
        self.page.row()
    }

    pub(super) fn board(&self) -> &Scoreboard {
        self.page.board()
    }

    /// Where it counts how long its answers take, if anybody wants to know.
    pub(crate) fn latency(&self) -> Option<LatencyRow<'_>> {
        self.page.latency()
    }

    /// Wakes the parent if it does not look for stalls at the moment, once in each rest; to be called when the row says
    /// that the worker is busy.
    ///
    /// The parent stops looking when all are idle, and looks once more after that: so a mark that crosses its last
    /// word is seen.
    #[inline]
    pub(crate) fn wake_watch(&self) {
        if let Some(rest) = self.board().rest().filter(|rest| self.woken.get() != Some(*rest)) {
            self.woken.set(Some(rest));
            self.lifeline.awake();
        }
    }

    /// Whether to end at once instead of draining.
    pub(crate) fn quits(&self) -> bool {
        self.quit.load(Ordering::Relaxed)
    }

    pub(crate) fn server_config(&self) -> &ServerConfig {
        &self.server
    }

    pub(crate) fn drain_timeout(&self) -> Duration {
        self.drain_timeout
    }

    /// What chooses the requests whose body is not collected: none, by default.
    pub(crate) fn take_streams(&self) -> Box<dyn FnMut(&Request<'_>) -> bool> {
        self.streams.take().map_or_else(|| Box::new(|_: &Request<'_>| false) as Box<_>, |streams| streams.0)
    }

    /// What the server logs each answer to, if it is to.
    ///
    /// # Errors
    ///
    /// When no descriptor is free.
    pub(crate) fn take_access_log(&self) -> io::Result<Option<AccessLog>> {
        let Some((file, format)) = self.access_log.take() else { return Ok(None) };
        // It may be a standard stream, of which a worker in its sandbox makes no copies.
        let file = Rc::try_unwrap(file).or_else(|file| file.try_clone())?.into();
        Ok(Some(AccessLog::new(file, format, self.id, std::process::id(), self.tag())))
    }

    pub(crate) fn common(&self) -> &RefCell<Common> {
        &self.common
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
