//! The admin process, and the identity and environment of the processes.

use std::fmt::Display;
use std::path::PathBuf;

use super::Builder;
use crate::shared::config::Sandbox;
use crate::shared::metrics::Metrics;

impl Builder {
    /// Adds an admin process on this address, for status, metrics, health checks and control. Default: none. The
    /// address has a form of [`bind`](Builder::bind), and nothing else may listen there.
    ///
    /// The process is separate from the workers and answers while all of them are busy or dead: `/` for people,
    /// `/status.json`, `/status.txt`, `/history.json`, `/metrics` for Prometheus, `/healthz`, `/readyz`, `/events`, and
    /// by POST `/restart`, `/scale?workers=N`, `/stop`, `/upgrade`, `/log?level=LEVEL`.
    ///
    /// Only the user that runs the pool may connect to a Unix socket (mode 0600). Over TCP, everybody who can connect
    /// can read the status, but nobody can control the pool without an [`admin_token_file`](Builder::admin_token_file).
    /// The admin process speaks no TLS, so keep a TCP address on a private network.
    pub fn admin(self, address: impl Display) -> Builder {
        self.set("admin", &address.to_string())
    }

    /// Shows the application's own metrics in `/metrics` of the [`admin`](Builder::admin) process. Without this call,
    /// workers count for themselves only.
    pub fn metrics(mut self, metrics: &Metrics) -> Builder {
        self.config.application.metrics = metrics.clone();
        self
    }

    /// Adds a host name, without a port, that TCP clients may use for the [`admin`](Builder::admin) process. Default:
    /// none, only IP addresses and `localhost`. Requests for other names get 421, since a web page could make its own
    /// name resolve to this host (DNS rebinding). `/metrics`, `/healthz` and `/readyz` accept any name.
    pub fn admin_host(self, name: impl Into<String>) -> Builder {
        self.put("admin-host", |config| config.admin.hosts.push(name.into()))
    }

    /// Sets the file with the token that lets TCP clients of [`admin`](Builder::admin) control the pool. Default: none.
    /// The file holds one word, which clients send as `Authorization: Bearer TOKEN`. It is read once and must not be
    /// readable by every user.
    pub fn admin_token_file(self, path: impl Into<PathBuf>) -> Builder {
        self.put("admin-token-file", |config| config.admin.token_file = Some(path.into()))
    }

    /// Switches workers to this user after binding, by name or number; needs root. Default: none, which leaves it
    /// unchanged.
    ///
    /// The variables HOME, USER and LOGNAME of a worker are set to match.
    pub fn user(self, user: impl Into<String>) -> Builder {
        self.put("user", |config| config.privileges.user = Some(user.into()))
    }

    /// Switches workers to this group after binding, by name or number; needs root. Default: none, and so the user's
    /// own.
    pub fn group(self, group: impl Into<String>) -> Builder {
        self.put("group", |config| config.privileges.group = Some(group.into()))
    }

    /// Sets how workers are confined once they are [ready](crate::Worker::ready). Default [`Sandbox::Off`]: only you
    /// know what your handler needs. The binary confines its own workers ([`Sandbox::Auto`]).
    ///
    /// A worker that [becomes a program](crate::Worker::exec) is not confined, except that it cannot gain privileges
    /// (prctl(2), `PR_SET_NO_NEW_PRIVS`): set-user-ID programs such as sudo do not work in it.
    pub fn sandbox(self, sandbox: Sandbox) -> Builder {
        self.put("sandbox", |config| config.privileges.sandbox = sandbox)
    }

    /// Sets the working directory of the workers. Default: none, that of this process. It is resolved each time a
    /// worker starts, as the worker's user, so a rolling restart follows a symbolic link that was swapped. The parent's
    /// own directory does not change. A relative [`root`](Builder::root) is relative to it.
    pub fn chdir(self, directory: impl Into<PathBuf>) -> Builder {
        self.put("chdir", |config| config.process.chdir = Some(directory.into()))
    }

    /// Sets a file of variables, which is read and checked at the start and again before each rolling restart and
    /// upgrade. Default: none.
    ///
    /// Each line is a `NAME=value`, empty, or a comment that begins with `#`. The value is the rest of the line;
    /// nothing is quoted or expanded. Variables that begin with `FORKPOOL_` are settings of the pool, as for
    /// [`env`](Builder::env): they override what was set before this call, and later calls override them. All other
    /// variables go into the environment of the workers and override inherited ones.
    ///
    /// An error in the file aborts a restart ([`Event::RestartAborted`](crate::Event::RestartAborted)) and changes
    /// nothing. If a restart cannot apply a changed setting
    /// ([`Setting::needs_upgrade`](crate::Setting::needs_upgrade)), the log says so. A worker that is replaced for
    /// another reason gets the same variables as the others.
    pub fn env_file(self, path: impl Into<PathBuf>) -> Builder {
        self.put("env-file", |config| config.process.env_file = Some(path.into()))
    }

    /// Sets the file for the parent's process id, with mode 0644. Default: none. It is written once the addresses are
    /// bound, and removed at the end. On a full disk the pool starts without it, logs that, and retries every five
    /// seconds.
    pub fn pid_file(self, path: impl Into<PathBuf>) -> Builder {
        self.put("pid-file", |config| config.process.pid_file = Some(path.into()))
    }

    /// Sets whether ps(1) and top(1) show what each process of the pool is, such as `app: worker 3 gen 2`. Default
    /// `true`. `std::env::args` returns what it did before. Needs a kernel with CONFIG_CHECKPOINT_RESTORE.
    pub fn process_titles(self, are_shown: bool) -> Builder {
        self.put("process-titles", |config| config.process.titles = are_shown)
    }
}
