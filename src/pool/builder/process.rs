//! Who shows the pool and controls it, and what its processes run as.

use std::fmt::Display;
use std::path::PathBuf;

use super::Builder;
use crate::shared::config::Sandbox;

impl Builder {
    /// Address of a process for status, metrics, health and control: as of [`bind`](Builder::bind), but one, and nobody
    /// else's. Default: none. It is beside the workers, and answers while all of them are busy or dead: `/` for people,
    /// `/status.json`, `/status.txt`, `/metrics` for Prometheus, `/healthz`, `/readyz`, `/events`, and by POST `/restart`,
    /// `/scale?workers=N`, `/stop`, `/upgrade`, `/log?level=LEVEL`.
    ///
    /// A Unix socket is for the user alone who runs the pool (mode 0600). Over TCP everybody who can connect can read,
    /// and nobody can control the pool without an [`admin_token_file`](Builder::admin_token_file). There is no TLS, so
    /// keep a TCP address to a private network.
    pub fn admin(self, address: impl Display) -> Builder {
        self.set("admin", &address.to_string())
    }

    /// Host name, without a port, by which [`admin`](Builder::admin) may be asked over TCP too. Default: none, only IP
    /// addresses and `localhost`; other names are refused with 421, since a web page could have its own name resolved to
    /// this host (DNS rebinding). `/metrics`, `/healthz` and `/readyz` answer to any name.
    pub fn admin_host(self, name: impl Into<String>) -> Builder {
        self.put("admin-host", |config| config.admin_hosts.push(name.into()))
    }

    /// File with one word, which a client of [`admin`](Builder::admin) over TCP sends to control the pool, as
    /// `Authorization: Bearer TOKEN`. Default: none. It is read once, and may not be accessible to every user.
    pub fn admin_token_file(self, path: impl Into<PathBuf>) -> Builder {
        self.put("admin-token-file", |config| config.admin_token_file = Some(path.into()))
    }

    /// User that workers become once they listen, by name or number; only root can. Default: none, they stay as they are.
    ///
    /// In a worker the variables HOME, USER and LOGNAME are that user's.
    pub fn user(self, user: impl Into<String>) -> Builder {
        self.put("user", |config| config.user = Some(user.into()))
    }

    /// Group that workers become, by name or number; only root can. Default: none, and so the user's own.
    pub fn group(self, group: impl Into<String>) -> Builder {
        self.put("group", |config| config.group = Some(group.into()))
    }

    /// What workers give up once they are [ready](crate::Worker::ready). Default [`Sandbox::Off`]: only you know what
    /// your handler needs. The binary confines its own workers ([`Sandbox::Auto`]).
    ///
    /// A worker that [becomes a program](crate::Worker::exec) gives up nothing but new privileges (prctl(2),
    /// `PR_SET_NO_NEW_PRIVS`): set-user-ID programs such as sudo do not work in it.
    pub fn sandbox(self, sandbox: Sandbox) -> Builder {
        self.put("sandbox", |config| config.sandbox = sandbox)
    }

    /// Directory that each worker works in. Default: none, that of this process. It is resolved again at the start of each
    /// worker, as the user whom it runs as, so that a rolling restart follows a symbolic link that was exchanged; this
    /// process stays where it is. A relative [`root`](Builder::root) is looked up from there.
    pub fn chdir(self, directory: impl Into<PathBuf>) -> Builder {
        self.put("chdir", |config| config.chdir = Some(directory.into()))
    }

    /// File of variables, read and checked at the start, and again before a rolling restart and an upgrade. Default: none.
    ///
    /// Each line is a `NAME=value`, empty, or a comment behind `#`. The value is the rest of the line as it is: no quotes, and
    /// nothing is expanded. Variables that begin with `FORKPOOL_` are settings of the pool, as those of
    /// [`env`](Builder::env): they replace what was said before this call, and what is said after it wins over them. All
    /// others go into the environment of the workers, over what that inherits.
    ///
    /// When something is wrong with the file, a restart is aborted ([`Event::RestartAborted`](crate::Event::RestartAborted)),
    /// and everything stays as it was. A changed setting that a restart cannot apply
    /// ([`Setting::needs_upgrade`](crate::Setting::needs_upgrade)) is told in the log. A worker that is replaced for another
    /// reason gets what the others have.
    pub fn env_file(self, path: impl Into<PathBuf>) -> Builder {
        self.put("env-file", |config| config.env_file = Some(path.into()))
    }

    /// File for the parent's process id, written once the addresses are bound and removed at the end; mode 0644. On a full
    /// disk the pool starts without it, says so, and tries again every five seconds. Default: none.
    pub fn pid_file(self, path: impl Into<PathBuf>) -> Builder {
        self.put("pid-file", |config| config.pid_file = Some(path.into()))
    }
}
