//! What a service manager is told, and what it gives (sd_notify(3), sd_listen_fds(3), sd_watchdog_enabled(3)). Without
//! one all of this does nothing.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use log::{debug, warn};
use sd_notify::NotifyState;

use crate::error::{Error, Result};
use crate::listener::{Given, Reserved};
use crate::sys;
use crate::time::Time;

/// The line to the service manager. Runs in the parent.
#[derive(Debug)]
pub(crate) struct Service {
    /// How often it wants to hear that all is well: half of what it waits for.
    watchdog: Option<Duration>,
    next: Option<Time>,
    status: String,
}

impl Service {
    pub(crate) fn new(now: Time) -> Service {
        let watchdog = sd_notify::watchdog_enabled().map(|limit| limit / 2);
        Service { watchdog, next: watchdog.map(|every| now + every), status: String::new() }
    }

    /// The pool serves, for the first time or after a reload.
    pub(crate) fn ready(&self) {
        tell(&[NotifyState::Ready]);
    }

    /// A rolling restart begins. It ends with [`ready`](Service::ready), whatever its outcome: the service serves.
    pub(crate) fn reloading(&self) {
        // systemd.service(5), `Type=notify-reload`: the time tells it which reload this is.
        match NotifyState::monotonic_usec_now() {
            Ok(time) => tell(&[NotifyState::Reloading, time]),
            Err(error) => warn!("the service manager is not told of the reload: {error}"),
        }
    }

    pub(crate) fn stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }

    /// Another process is the service now.
    pub(crate) fn handed_over(&self, pid: i32) {
        tell(&[NotifyState::MainPid(pid.unsigned_abs()), NotifyState::Ready]);
    }

    /// One line on how it goes; told when it has changed.
    pub(crate) fn status(&mut self, status: String) {
        if self.status != status {
            self.status = status;
            tell(&[NotifyState::Status(&self.status)]);
        }
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        self.next
    }

    /// Says that all is well, if it is time and `is_well`. When it is not, the service manager hears nothing and, in
    /// the end, restarts the service.
    pub(crate) fn watch(&mut self, now: Time, is_well: impl FnOnce() -> bool) {
        let (Some(every), Some(_)) = (self.watchdog, self.next.filter(|due| *due <= now)) else { return };
        self.next = Some(now + every);
        match is_well() {
            true => tell(&[NotifyState::Watchdog]),
            false => warn!("no worker answers: the service manager's watchdog is not told that all is well"),
        }
    }
}

/// Sends without waiting: a service manager that does not read must not stop the pool.
fn tell(state: &[NotifyState<'_>]) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let message: String = state.iter().map(|state| format!("{state}\n")).collect();
    let sent = UnixDatagram::unbound().and_then(|socket| {
        let address = match path.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(&path)?,
        };
        socket.set_nonblocking(true)?;
        socket.send_to_addr(message.as_bytes(), &address)
    });
    if let Err(error) = sent {
        debug!("the service manager cannot be told: {error}");
    }
}

/// The sockets that the service manager has opened for this process, if any.
pub(crate) fn given() -> Result<Vec<Reserved>> {
    let invalid = |error| Error::config("LISTEN_FDS", format!("does not say which sockets are given: {error}"));
    let fds: Vec<_> = sd_notify::listen_fds_with_names().map_err(invalid)?.collect();
    // They are not for what this process starts.
    for variable in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
        std::env::remove_var(variable);
    }
    let given = |(number, name)| {
        let unusable = |source| Error::Bind { address: format!("given socket {name}"), source };
        let socket = sys::fds::inherited(number).map_err(unusable);
        Given::new(name, socket?).map(Reserved::Given)
    };
    fds.into_iter().map(given).collect()
}
