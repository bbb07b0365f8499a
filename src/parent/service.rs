//! Notifications to a service manager, and the sockets that it passes (sd_notify(3), sd_listen_fds(3),
//! sd_watchdog_enabled(3)). Does nothing without a service manager.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::RawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use log::{debug, warn};
use sd_notify::NotifyState;

use crate::error::{Error, Result};
use crate::shared::listener::{Given, Reserved};
use crate::sys;
use crate::sys::clock;
use crate::sys::process::FIRST_PASSED;
use crate::time::Time;

/// The connection to the service manager. Runs in the parent.
#[derive(Debug)]
pub(crate) struct Service {
    /// How often to notify its watchdog: at half of its timeout.
    watchdog: Option<Duration>,
    next: Option<Time>,
    status: String,
    /// The messages that it was too busy to receive, and when to try again.
    unsent: VecDeque<String>,
    retry: Time,
}

/// How long to wait before trying again if it does not read.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// How long it may delay the end of the pool. 5 s: a service manager reads late on a busy machine, and if it does not
/// learn of another main process it takes the service for one that has ended.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// If this many wait, nobody reads any more, and the oldest is dropped.
const PENDING_MAX: usize = 64;

impl Service {
    pub(crate) fn new(now: Time) -> Service {
        let watchdog = sd_notify::watchdog_enabled().map(|limit| limit / 2);
        let next = watchdog.map(|every| now + every);
        Service { watchdog, next, status: String::new(), unsent: VecDeque::new(), retry: now }
    }

    /// The pool serves, for the first time or after a reload.
    pub(crate) fn ready(&mut self) {
        self.tell(&[NotifyState::Ready]);
    }

    /// A rolling restart begins. It ends with [`ready`](Service::ready), whatever its outcome: the service serves.
    pub(crate) fn reloading(&mut self) {
        // systemd.service(5), `Type=notify-reload`: the time identifies the reload.
        match NotifyState::monotonic_usec_now() {
            Ok(time) => self.tell(&[NotifyState::Reloading, time]),
            Err(error) => warn!("cannot notify the service manager of the reload: {error}"),
        }
    }

    pub(crate) fn stopping(&mut self) {
        self.tell(&[NotifyState::Stopping]);
    }

    /// Another process is the main process now.
    pub(crate) fn handed_over(&mut self, pid: i32) {
        self.tell(&[NotifyState::MainPid(pid.unsigned_abs()), NotifyState::Ready]);
    }

    /// Sends one line about the state, if it has changed.
    pub(crate) fn status(&mut self, status: String) {
        if self.status != status {
            self.tell(&[NotifyState::Status(&status)]);
            self.status = status;
        }
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        let retry = (!self.unsent.is_empty()).then_some(self.retry);
        [self.next, retry].into_iter().flatten().min()
    }

    /// Notifies the watchdog, if it is time and `is_well`. Otherwise the service manager hears nothing and finally
    /// restarts the service.
    pub(crate) fn watch(&mut self, now: Time, is_well: impl FnOnce() -> bool) {
        if self.retry <= now {
            self.tell_the_rest();
        }
        let (Some(every), Some(_)) = (self.watchdog, self.next.filter(|due| *due <= now)) else { return };
        self.next = Some(now + every);
        match is_well() {
            true => self.tell(&[NotifyState::Watchdog]),
            false => warn!("no worker responds: not notifying the service manager's watchdog"),
        }
    }

    /// The pool ends; the last chance for messages that were not received.
    pub(crate) fn end(&mut self) {
        let end = clock::now() + FLUSH_TIMEOUT;
        while let Some(message) = self.unsent.front() {
            // Zero would be without end.
            let left = end.since(clock::now()).max(Duration::from_millis(1));
            match send(message, |socket| socket.set_write_timeout(Some(left))) {
                // By a signal, whatever its action is (signal(7)).
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return warn!("cannot send {message:?} to the service manager: {error}"),
                Ok(()) => drop(self.unsent.pop_front()),
            }
        }
    }

    /// Sends without blocking, since a service manager that does not read must not stop the pool, and in order.
    fn tell(&mut self, state: &[NotifyState<'_>]) {
        self.unsent.push_back(state.iter().map(|state| format!("{state}\n")).collect());
        if self.unsent.len() > PENDING_MAX {
            self.unsent.pop_front();
        }
        self.tell_the_rest();
    }

    fn tell_the_rest(&mut self) {
        while let Some(message) = self.unsent.front() {
            match send(message, |socket| socket.set_nonblocking(true)) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.retry = clock::now() + RETRY_INTERVAL;
                    return;
                }
                Err(error) => debug!("cannot notify the service manager: {error}"),
                Ok(()) => {}
            }
            self.unsent.pop_front();
        }
    }
}

/// Sends a message, if there is a service manager, by a socket that `prepare` sets up.
fn send(message: &str, prepare: impl FnOnce(&UnixDatagram) -> io::Result<()>) -> io::Result<()> {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let address = match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(&path)?,
    };
    let socket = UnixDatagram::unbound()?;
    prepare(&socket)?;
    socket.send_to_addr(message.as_bytes(), &address).map(drop)
}

/// The sockets that the service manager has opened for this process, if any.
pub(crate) fn given() -> Result<Vec<Reserved>> {
    let fds = listed()?;
    // They are not for processes that this one starts.
    for variable in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
        sys::process::remove_variable(variable);
    }
    let given = |(number, name)| {
        let unusable = |source| Error::Bind { address: format!("given socket {name}"), source };
        let socket = sys::fds::inherited(number).map_err(unusable);
        Given::new(name, socket?).map(Reserved::Given)
    };
    fds.into_iter().map(given).collect()
}

/// Their numbers and names (sd_listen_fds_with_names(3)). Does not touch the sockets: taking one checks first whether
/// it came through execve(2), by a flag that the library would change here.
pub(crate) fn listed() -> Result<Vec<(RawFd, String)>> {
    let invalid = |what: &str| Error::config("LISTEN_FDS", format!("does not say which sockets are given: {what}"));
    let (Ok(pid), Ok(count)) = (std::env::var("LISTEN_PID"), std::env::var("LISTEN_FDS")) else {
        return Ok(Vec::new());
    };
    // They may be for another process, of which this one is a child.
    if pid.parse::<u32>().map_err(|_| invalid("invalid LISTEN_PID"))? != std::process::id() {
        return Ok(Vec::new());
    }
    let count = count.parse::<RawFd>().ok().filter(|count| (0..=GIVEN_MAX).contains(count));
    let count = count.ok_or_else(|| invalid(&format!("it must be a number from 0 to {GIVEN_MAX}")))?;
    let numbers = FIRST_PASSED..FIRST_PASSED + count;
    match std::env::var("LISTEN_FDNAMES") {
        Err(_) => Ok(numbers.map(|number| (number, "unknown".to_owned())).collect()),
        Ok(_) if count == 0 => Ok(Vec::new()),
        Ok(names) => {
            let names: Vec<_> = names.split(':').map(str::to_owned).collect();
            if names.len() != numbers.len() {
                return Err(invalid("LISTEN_FDNAMES has another number of names"));
            }
            Ok(numbers.zip(names).collect())
        }
    }
}

/// The maximum number of sockets from a service manager: as many as a process may usually have open.
const GIVEN_MAX: RawFd = 1024;
