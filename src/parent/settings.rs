//! The current settings, and what was derived from them for the workers.

use std::ffi::OsString;
use std::rc::Rc;

use crate::error::Result;
use crate::shared::config::{Config, ProgramConfig, ServerConfig};
use crate::shared::credentials::Credentials;
use crate::worker::keeper::KeeperOptions;

/// The configuration, and what follows from it.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) config: Config,
    /// The part that workers get.
    pub(super) server: Rc<ServerConfig>,
    /// The CPUs to which workers are pinned; empty if they are not.
    pub(super) cpus: Rc<[usize]>,
    /// The user of the workers; `None` if it is the parent's.
    pub(super) credentials: Option<Rc<Credentials>>,
    /// The number of workers that follows from the configuration.
    derived: usize,
    /// Why it is this number.
    derivation: String,
}

impl Settings {
    /// The settings of this configuration, and the number of workers that follows from it.
    ///
    /// # Errors
    ///
    /// If there is no such user or group.
    pub(super) fn new(config: Config) -> Result<(Settings, usize)> {
        let (workers, derivation) = config.worker_count();
        let credentials =
            Credentials::look_up(config.privileges.user.as_deref(), config.privileges.group.as_deref())?.map(Rc::new);
        let (server, cpus) = (Rc::new(config.server.clone()), config.cpus().into());
        Ok((Settings { config, server, cpus, credentials, derived: workers, derivation }, workers))
    }

    /// Applies another configuration; returns the previous one.
    pub(super) fn replace(&mut self, next: Config) -> Config {
        self.server = Rc::new(next.server.clone());
        std::mem::replace(&mut self.config, next)
    }

    /// How the next worker keeps a program, if it runs one. `is_shared` says that another program may have its sockets.
    pub(super) fn keeper_options(&self, is_shared: bool, notify_socket: Option<OsString>) -> KeeperOptions {
        let ProgramConfig { ready, stop_signal, adopt, prefix, .. } = self.config.program.clone();
        KeeperOptions { ready, stop_signal, prefix, adopt, is_shared, notify_socket }
    }

    /// Determines the number of workers again.
    pub(super) fn count_workers(&mut self) -> usize {
        let (workers, derivation) = self.config.worker_count();
        (self.derived, self.derivation) = (workers, derivation);
        workers
    }

    /// Why this number of workers is wanted.
    pub(super) fn reason_for(&self, wanted: usize) -> String {
        match wanted {
            _ if wanted == self.derived => self.derivation.clone(),
            1 => "1 worker: as scaled".to_owned(),
            _ => format!("{wanted} workers: as scaled"),
        }
    }
}

/// The user of the workers, if that is not root.
pub(super) fn others(credentials: &Option<Rc<Credentials>>) -> Option<&Credentials> {
    credentials.as_deref().filter(|credentials| !credentials.is_root())
}
