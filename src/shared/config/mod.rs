//! The configuration of a pool. `check.rs` refuses contradictions, so later code need not handle them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
#[cfg(feature = "tls")]
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::shared::whole_file::read_whole;

mod address;
mod check;
mod choices;
pub(crate) mod env_file;
mod file_rules;
mod groups;
mod layers;
mod limits;
mod log_format;
mod pattern;
mod program;
mod proxies;
mod readiness;
mod server;
mod settings;
mod tls;
mod values;
mod workers;

pub(crate) use address::Address;
pub use choices::{Adopt, Balance, ForwardedHeader, OnPanic, OnStall, Rebalance, Sandbox, StopSignal, Symlinks};
pub(crate) use file_rules::{HeaderRule, Rules};
pub(crate) use groups::{
    AccessLogConfig, AdminConfig, ApplicationConfig, FilesConfig, LifecycleConfig, ListenConfig, PrivilegesConfig,
    ProcessConfig, ProgramConfig, RecyclingConfig, WorkersConfig,
};
pub(crate) use layers::Layers;
pub(crate) use limits::{Limits, FIELDS_MAX};
pub use log_format::AccessLogFormat;
pub(crate) use log_format::{Part as LogPart, Variable as LogVariable};
pub(crate) use pattern::Pattern;
pub(crate) use proxies::Proxies;
pub use readiness::{Probe, Readiness};
pub(crate) use server::{Capacity, ServerConfig, Timeouts};
pub(crate) use settings::quoted;
pub use settings::{settings, Setting};
pub(crate) use tls::TlsConfig;
pub use values::duration;

/// The whole configuration of a pool.
#[derive(Clone, Debug, Default)]
pub(crate) struct Config {
    pub(crate) listening: ListenConfig,
    pub(crate) workers: WorkersConfig,
    pub(crate) lifecycle: LifecycleConfig,
    pub(crate) recycling: RecyclingConfig,
    pub(crate) privileges: PrivilegesConfig,
    pub(crate) process: ProcessConfig,
    pub(crate) admin: AdminConfig,
    pub(crate) server: ServerConfig,
    pub(crate) files: FilesConfig,
    pub(crate) access_log: AccessLogConfig,
    pub(crate) program: ProgramConfig,
    pub(crate) application: ApplicationConfig,
}

impl Config {
    /// The maximum number of workers. The scoreboard has twice as many rows, since a slot may hold two processes.
    pub(crate) const WORKERS_MAX: usize = 1024;

    /// The sockets of a slot are sent in one message (`SCM_MAX_FD`, unix(7)).
    const ADDRESSES_MAX: usize = 253;

    /// The maximum length of the admin token, with what is around it in its file.
    const TOKEN_MAX: usize = 4096;

    /// Reads the token that lets TCP clients of the admin process give commands.
    ///
    /// # Errors
    ///
    /// [`Error::File`] if the file cannot be read, [`Error::Config`] if it holds no token, or everybody may read it.
    pub(crate) fn admin_token(&self) -> Result<Option<String>> {
        let Some(path) = &self.admin.token_file else { return Ok(None) };
        let shown = path.display();
        let unread = |source| Error::File { path: shown.to_string(), action: "read the admin token in", source };
        let mode = fs::metadata(path).map_err(unread)?.permissions().mode();
        if mode & 0o007 != 0 {
            let problem = format!("every user has access to {shown}; restrict it, for example by chmod o= {shown}");
            return Err(Error::config("admin-token-file", problem));
        }
        let token = read_whole(path, Config::TOKEN_MAX).map_err(unread)?;
        let token = token.trim_ascii_end();
        if token.is_empty() || token.len() > Config::TOKEN_MAX || !token.iter().all(u8::is_ascii_graphic) {
            let problem = format!("{shown} must hold one word of visible ASCII");
            return Err(Error::config("admin-token-file", problem));
        }
        Ok(Some(String::from_utf8_lossy(token).into_owned()))
    }

    /// Reads the certificates and keys, which also shows whether they are right.
    ///
    /// # Errors
    ///
    /// [`Error::File`] or [`Error::Config`] names the file.
    pub(crate) fn loaded(mut self) -> Result<Config> {
        self.server.https_port = self.https_port();
        #[cfg(feature = "tls")]
        if self.listening.tls.is_wanted() {
            self.server.tls = Some(Arc::new(crate::shared::tls::Keyring::load(&self.listening.tls.identity)?));
        }
        Ok(self)
    }

    /// The directory whose files are served, as a path for the parent.
    pub(crate) fn root_path(&self) -> Option<PathBuf> {
        self.files.root.as_deref().map(|root| self.reached_from_chdir(root))
    }

    /// Makes a path of the workers a path for the parent.
    pub(crate) fn reached_from_chdir(&self, path: &Path) -> PathBuf {
        self.process.chdir.as_ref().map_or_else(|| path.to_owned(), |directory| directory.join(path))
    }
}
