//! What a pool is told to be, and its checks: contradictions are errors here, so that later code has none to handle.

use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use nix::unistd::{eaccess, AccessFlags};

use crate::error::{Error, Result};
use crate::shared::credentials::Credentials;
use crate::shared::log_file;

mod address;
mod choices;
pub(crate) mod env_file;
mod file_rules;
mod layers;
mod limits;
mod log_format;
mod pattern;
mod proxies;
mod readiness;
mod settings;
mod values;
mod workers;

pub(crate) use address::Address;
pub use choices::{Balance, ForwardedHeader, OnPanic, OnStall, Sandbox, Symlinks};
pub(crate) use file_rules::{HeaderRule, Rules};
pub(crate) use layers::Layers;
pub(crate) use limits::{Limits, FIELDS_MAX};
pub use log_format::AccessLogFormat;
pub(crate) use log_format::{Part as LogPart, Variable as LogVariable};
pub(crate) use pattern::Pattern;
pub(crate) use proxies::Proxies;
pub use readiness::Readiness;
pub(crate) use settings::quoted;
pub use settings::{settings, Setting};
pub use values::duration;

/// A pool's whole configuration.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Where to listen, in the order given; not empty once checked.
    pub(crate) addresses: Vec<Address>,
    /// Where to take datagrams: TCP addresses by their form. UDP and no TCP is as good as the other way round.
    pub(crate) udp: Vec<Address>,
    /// How many workers; `None` derives the number from affinity and cgroup quota.
    pub(crate) workers: Option<usize>,
    /// Length of each listening socket's queue; the kernel caps it at `net.core.somaxconn`.
    pub(crate) backlog: u32,
    /// Permission bits of Unix sockets.
    pub(crate) unix_mode: u32,
    /// How long a worker told to leave may finish what it has; zero is for ever, as for every timeout.
    pub(crate) drain_timeout: Duration,
    /// How long a worker may take from fork to ready.
    pub(crate) boot_timeout: Duration,
    /// How long a worker may be busy without progress before it is replaced.
    pub(crate) stall_timeout: Duration,
    pub(crate) on_stall: OnStall,
    /// Slots that a rolling restart replaces at a time.
    pub(crate) surge: usize,
    /// From SIGTERM to the beginning of the drain.
    pub(crate) lame_duck: Duration,
    /// Failures of one slot in a row that end the pool; zero for never, as for the limits that follow.
    pub(crate) give_up: u32,
    /// Requests, time and memory after which a worker is replaced.
    pub(crate) max_requests: u64,
    pub(crate) max_age: Duration,
    pub(crate) max_rss: usize,
    /// Who picks the worker for a new connection.
    pub(crate) balance: Balance,
    /// How many other workers look after each worker's queue.
    pub(crate) neighbours: usize,
    /// Each worker stays on one CPU.
    pub(crate) pin: bool,
    /// User and group the workers run as.
    pub(crate) user: Option<String>,
    pub(crate) group: Option<String>,
    /// What workers give up once they are ready.
    pub(crate) sandbox: Sandbox,
    pub(crate) pid_file: Option<PathBuf>,
    /// Where workers work; the parent stays where it was started.
    pub(crate) chdir: Option<PathBuf>,
    /// Files for whose changes there is a restart, as patterns.
    pub(crate) watch: Vec<String>,
    /// A file that says more, and what it says for the workers.
    pub(crate) env_file: Option<PathBuf>,
    pub(crate) environment: Rc<Vec<(String, OsString)>>,
    /// Where the admin process listens, by which names it may be asked, and what lets TCP clients give commands.
    pub(crate) admin: Option<Address>,
    pub(crate) admin_hosts: Vec<String>,
    pub(crate) admin_token_file: Option<PathBuf>,
    pub(crate) server: ServerConfig,
    /// The directory whose files are served, and how.
    pub(crate) root: Option<PathBuf>,
    pub(crate) files: Rules,
    /// Where each answer is logged, `-` for standard output, and how.
    pub(crate) access_log: Option<PathBuf>,
    pub(crate) access_log_format: AccessLogFormat,
    /// When a program that a worker executes is ready.
    pub(crate) readiness: Readiness,
    /// Their keepers pass on what programs print, with a prefix.
    pub(crate) prefix: bool,
    /// Messages of workers may bring descriptors.
    pub(crate) accept_descriptors: bool,
    /// Percent of the parent's time that reading the messages of one worker may take.
    pub(crate) message_share: u32,
}

/// What the built-in HTTP server allows its clients. Timeouts of zero are off.
#[derive(Clone, Debug)]
pub(crate) struct ServerConfig {
    /// The codec's limits.
    pub(crate) limits: Limits,
    /// Requests one connection may make in a row before another has its turn.
    pub(crate) max_pipelined: usize,
    /// Open connections per worker; at the limit idle ones make room, and new ones are led to other workers. Zero is no
    /// limit.
    pub(crate) max_connections: usize,
    /// At the limit, requests that have not come whole and answers that are not taken make room too.
    pub(crate) evicts_unfinished: bool,
    /// Bytes of answers kept for a client that does not read; beyond it the client is not read either.
    pub(crate) max_output: usize,
    /// Bytes that a worker holds of requests and answers in progress. Zero is no limit.
    pub(crate) max_held: usize,
    pub(crate) head_timeout: Duration,
    pub(crate) body_timeout: Duration,
    /// Bytes a second that a client has to send of a body, over any `body_timeout`. Zero is no minimum.
    pub(crate) min_rate: usize,
    pub(crate) idle_timeout: Duration,
    pub(crate) write_timeout: Duration,
    /// How long the application may take for an answer that it makes later.
    pub(crate) answer_timeout: Duration,
    /// After how much silence the kernel asks whether a TCP client is still there.
    pub(crate) tcp_keepalive: Duration,
    /// A client's end of file says no more than that it sends nothing else.
    pub(crate) half_close: bool,
    pub(crate) on_panic: OnPanic,
    /// The parent's log names the request in which a worker hangs or dies.
    pub(crate) name_requests: bool,
    /// Who may say on whose behalf it asks, and in which field.
    pub(crate) proxies: Proxies,
    pub(crate) forwarded_header: ForwardedHeader,
    /// TCP connections begin with the PROXY protocol's header.
    pub(crate) proxy_protocol: bool,
}

impl ServerConfig {
    /// Whether a handler's panic ends the worker, and not only the connection.
    pub(crate) fn exits_on_panic(&self) -> bool {
        self.on_panic == OnPanic::Exit
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            addresses: vec![Address::Tcp(([127, 0, 0, 1], 8000).into())],
            udp: Vec::new(),
            workers: None,
            backlog: 1024,
            unix_mode: 0o666,
            drain_timeout: Duration::from_secs(25),
            boot_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(60),
            on_stall: OnStall::Kill,
            surge: 1,
            lame_duck: Duration::ZERO,
            give_up: 0,
            max_requests: 0,
            max_age: Duration::ZERO,
            max_rss: 0,
            balance: Balance::Auto,
            neighbours: 3,
            pin: false,
            user: None,
            group: None,
            sandbox: Sandbox::Off,
            pid_file: None,
            chdir: None,
            watch: Vec::new(),
            env_file: None,
            environment: Rc::default(),
            admin: None,
            admin_hosts: Vec::new(),
            admin_token_file: None,
            server: ServerConfig {
                limits: Limits {
                    target: 8 << 10,
                    head: 16 << 10,
                    fields: 100,
                    body: 1 << 20,
                    requests: 0,
                    utf8_query: true,
                },
                max_pipelined: 64,
                max_connections: 0,
                evicts_unfinished: false,
                max_output: 256 << 10,
                max_held: 64 << 20,
                head_timeout: Duration::from_secs(10),
                body_timeout: Duration::from_secs(60),
                min_rate: 500,
                idle_timeout: Duration::from_secs(75),
                write_timeout: Duration::from_secs(360),
                answer_timeout: Duration::from_secs(300),
                tcp_keepalive: Duration::from_secs(60),
                half_close: false,
                on_panic: OnPanic::Answer,
                name_requests: true,
                proxies: Proxies::default(),
                forwarded_header: ForwardedHeader::Auto,
                proxy_protocol: false,
            },
            root: None,
            files: Rules::default(),
            access_log: None,
            access_log_format: AccessLogFormat::Combined,
            readiness: Readiness::Auto,
            prefix: false,
            accept_descriptors: false,
            message_share: 2,
        }
    }
}

impl Config {
    /// Twice as many processes have a row in the scoreboard: a slot may hold two. More is a mistake.
    pub(crate) const WORKERS_MAX: usize = 1024;

    /// The sockets of a slot go in one message (`SCM_MAX_FD`, unix(7)).
    const ADDRESSES_MAX: usize = 253;

    /// Refuses what does not make sense, alone or together. Binds and writes nothing; reads the admin token.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] names the setting, [`Error::File`] the pid file or the token, [`Error::Bind`] a Unix socket
    /// without a directory.
    pub(crate) fn check(&self) -> Result<()> {
        for setting in settings() {
            setting.check(self).map_err(|problem| Error::config(setting.name(), problem))?;
        }
        self.check_limits()?;
        self.check_readiness()?;
        self.check_addresses()?;
        self.check_admin()?;
        Credentials::look_up(self.user.as_deref(), self.group.as_deref())?;
        self.check_directories()
    }

    fn check_limits(&self) -> Result<()> {
        let (target, head) = (self.server.limits.target, self.server.limits.head);
        if target > head {
            let problem = format!("{target} bytes do not fit in max-head ({head}); lower max-target or raise max-head");
            return Err(Error::config("max-target", problem));
        }
        let (body, held) = (self.server.limits.body, self.server.max_held);
        if held > 0 && body > held {
            let problem = format!("{body} bytes do not fit in max-held ({held}); lower max-body or raise max-held");
            return Err(Error::config("max-body", problem));
        }
        Ok(())
    }

    fn check_readiness(&self) -> Result<()> {
        match self.readiness {
            Readiness::Delay(delay) if !self.boot_timeout.is_zero() && delay >= self.boot_timeout => {
                let problem = format!(
                    "{:?} is over before the program is ready, {delay:?} after it is executed; raise boot-timeout or \
                     shorten the delay",
                    self.boot_timeout
                );
                Err(Error::config("boot-timeout", problem))
            }
            _ => Ok(()),
        }
    }

    fn check_addresses(&self) -> Result<()> {
        check_overlaps("listen", &self.addresses, "connections")?;
        check_overlaps("bind_udp", &self.udp, "datagrams")?;
        if self.addresses.len() > Config::ADDRESSES_MAX {
            let (count, most) = (self.addresses.len(), Config::ADDRESSES_MAX);
            let problem = format!("{count} addresses are more than {most}; give the others to another pool");
            return Err(Error::config("listen", problem));
        }
        let is_pid_file =
            |address: &&Address| matches!(address, Address::Unix(path) if Some(path) == self.pid_file.as_ref());
        match self.addresses.iter().find(is_pid_file) {
            Some(address) => Err(Error::config("pid-file", format!("is also the path of {address}; choose another"))),
            None => Ok(()),
        }
    }

    fn check_admin(&self) -> Result<()> {
        let Some(admin) = &self.admin else {
            let needless = match (&self.admin_token_file, &self.admin_hosts[..]) {
                (Some(_), _) => "admin-token-file",
                (None, [_, ..]) => "admin-host",
                (None, []) => return Ok(()),
            };
            return Err(Error::config(needless, "there is no admin address that it is for; add admin"));
        };
        if let Some(other) = self.addresses.iter().find(|other| other.covers(admin) || admin.covers(other)) {
            return Err(Error::config("admin", format!("{other} is where the workers listen; choose another")));
        }
        if matches!((admin, &self.pid_file), (Address::Unix(socket), Some(file)) if socket == file) {
            return Err(Error::config("pid-file", format!("is also the path of {admin}; choose another")));
        }
        self.admin_token().map(drop)
    }

    /// What lets TCP clients of the admin process give commands.
    ///
    /// # Errors
    ///
    /// [`Error::File`] when it cannot be read, [`Error::Config`] when it is none, or everybody's.
    pub(crate) fn admin_token(&self) -> Result<Option<String>> {
        let Some(path) = &self.admin_token_file else { return Ok(None) };
        let shown = path.display();
        let unread = |source| Error::File { path: shown.to_string(), action: "read the admin token in", source };
        let mode = fs::metadata(path).map_err(unread)?.permissions().mode();
        if mode & 0o007 != 0 {
            let problem = format!("every user may use {shown}; take that away, as by chmod o= {shown}");
            return Err(Error::config("admin-token-file", problem));
        }
        let token = fs::read_to_string(path).map_err(unread)?.trim_end().to_owned();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            let problem = format!("{shown} must hold one word of visible ASCII");
            return Err(Error::config("admin-token-file", problem));
        }
        Ok(Some(token))
    }

    /// The directory whose files are served, as the parent reaches it.
    pub(crate) fn root_path(&self) -> Option<PathBuf> {
        self.root.as_deref().map(|root| self.reached_from_chdir(root))
    }

    /// Where the parent finds what the workers find at this path.
    pub(crate) fn reached_from_chdir(&self, path: &Path) -> PathBuf {
        self.chdir.as_ref().map_or_else(|| path.to_owned(), |directory| directory.join(path))
    }

    fn check_directories(&self) -> Result<()> {
        for address in self.addresses.iter().chain(&self.admin) {
            if let Address::Unix(path) = address {
                writable(path).map_err(|source| Error::Bind { address: address.to_string(), source })?;
            }
        }
        for (setting, path) in [("chdir", self.chdir.clone()), ("root", self.root_path())] {
            let Some(path) = path else { continue };
            readable(&path).map_err(|problem| Error::config(setting, format!("{} {problem}", path.display())))?;
        }
        for text in &self.watch {
            let base = self.reached_from_chdir(Path::new(&Pattern::new(text).base));
            if let Err(error) = fs::metadata(&base) {
                let problem = format!("{} cannot be watched: {error}; choose another", base.display());
                return Err(Error::config("watch", problem));
            }
        }
        if let Some(path) = &self.access_log {
            // What is wrong with the names is said where they are looked up.
            let workers = Credentials::look_up(self.user.as_deref(), self.group.as_deref()).ok().flatten();
            let others = workers.as_ref().filter(|workers| !workers.is_root());
            log_file::check(path, others, writable)?;
        }
        let Some(path) = &self.pid_file else { return Ok(()) };
        let unwritable =
            |source| Error::File { path: path.display().to_string(), action: "write the pid file", source };
        writable(path).map_err(unwritable)
    }
}

/// Refuses what `setting` says twice.
fn check_overlaps(setting: &str, addresses: &[Address], taken: &str) -> Result<()> {
    for (index, address) in addresses.iter().enumerate() {
        let overlapping = |other: &&Address| other.covers(address) || address.covers(other);
        if let Some(other) = addresses[..index].iter().find(overlapping) {
            let (wide, narrow) = if other.covers(address) { (other, address) } else { (address, other) };
            let problem = match wide == narrow {
                true => format!("{address} is given twice; leave one out"),
                false => format!("{wide} already takes the {taken} to {narrow}; leave one out"),
            };
            return Err(Error::config(setting, problem));
        }
    }
    Ok(())
}

/// Whether `path` is a directory. Whether the workers may read it, they find out.
fn readable(path: &Path) -> Result<(), String> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err("is no directory; choose another".to_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Err("does not exist; create it or choose another".to_owned())
        }
        Err(error) => Err(format!("cannot be reached ({error}); choose another")),
    }
}

/// Whether a file could be made at `path`, without making one: a check must not touch what a running pool has there.
fn writable(path: &Path) -> io::Result<()> {
    let directory = match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    };
    let shown = directory.display();
    let problem = match fs::metadata(directory) {
        _ if path.is_dir() => "it is a directory; add the file's name".to_owned(),
        Ok(found) if found.is_dir() => match eaccess(directory, AccessFlags::W_OK | AccessFlags::X_OK) {
            Ok(()) => return Ok(()),
            Err(errno) => format!("the directory {shown} is not writable ({}); choose another", errno.desc()),
        },
        Ok(_) => format!("{shown} is no directory; choose another"),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            format!("the directory {shown} does not exist; create it or choose another")
        }
        Err(error) => format!("the directory {shown} cannot be reached ({error}); choose another"),
    };
    Err(io::Error::new(ErrorKind::InvalidInput, problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_ready_before_the_boot_timeout() {
        for (delay, boot, is_right) in [(10, 60, true), (60, 60, false), (61, 60, false), (61, 0, true)] {
            let config = Config {
                readiness: Readiness::Delay(Duration::from_secs(delay)),
                boot_timeout: Duration::from_secs(boot),
                ..Config::default()
            };
            assert_eq!(config.check().is_ok(), is_right, "{delay} {boot}");
        }
    }

    #[test]
    fn the_default_is_valid() {
        Config::default().check().expect("valid");
    }

    #[test]
    fn contradictions_are_refused() {
        let many = (1..255).map(|last| format!("127.0.0.{last}:1 ")).collect::<String>();
        for (said, message) in [
            (&[("listen", "127.0.0.1:1 127.0.0.1:1")][..], "listen: 127.0.0.1:1 is given twice"),
            (&[("listen", "unix:a,unix:a")], "listen: unix:a is given twice"),
            (&[("listen", "127.0.0.1:1,:1")], "listen: :1 already takes the connections to 127.0.0.1:1"),
            (&[("listen", "0.0.0.0:1,127.0.0.1:1")], "listen: 0.0.0.0:1 already takes the connections to 127.0.0.1:1"),
            (&[("listen", &many)], "listen: 254 addresses are more than 253"),
            (&[("max-target", "8k"), ("max-head", "4k")], "max-target: 8192 bytes do not fit in max-head (4096)"),
            (&[("max-body", "65M")], "max-body: 68157440 bytes do not fit in max-held (67108864)"),
            (&[("max-head", "4k")], "max-target: 8192 bytes do not fit in max-head (4096)"),
            (&[("listen", "unix:/a/b"), ("pid-file", "/a/b")], "pid-file: is also the path of unix:/a/b"),
            (&[("pid-file", "/nowhere/x.pid")], "the directory /nowhere does not exist"),
            (
                &[("listen", "unix:/nowhere/x")],
                "cannot listen on unix:/nowhere/x: the directory /nowhere does not exist",
            ),
            (&[("pid-file", "/")], "it is a directory"),
            (&[("admin-token-file", "x")], "admin-token-file: there is no admin address"),
            (&[("admin-host", "x")], "admin-host: there is no admin address"),
            (&[("listen", ":1"), ("admin", "127.0.0.1:1")], "admin: :1 is where the workers listen"),
            (&[("pid-file", "/a/b"), ("admin", "unix:/a/b")], "pid-file: is also the path of unix:/a/b"),
            (
                &[("admin", "unix:/nowhere/x")],
                "cannot listen on unix:/nowhere/x: the directory /nowhere does not exist",
            ),
            (&[("admin", ":1"), ("admin-token-file", "/nowhere/x")], "cannot read the admin token in /nowhere/x"),
            (&[("admin", ":1"), ("admin-token-file", "/proc/version")], "every user may use /proc/version"),
        ] {
            let mut config = Config::default();
            for (name, value) in said {
                let setting = Setting::named(name).expect("a setting");
                setting.apply(&mut config, value).expect("valid alone");
            }
            let error = config.check().expect_err(message).report();
            assert!(error.contains(message), "{said:?}: {error}");
        }
    }

    #[test]
    fn what_only_looks_like_a_contradiction_is_accepted() {
        for listen in ["127.0.0.1:0,127.0.0.1:0", ":0,:0", "[::]:1,0.0.0.0:1", "127.0.0.1:1,127.0.0.2:1", "unix:a,:1"] {
            let mut config = Config::default();
            Setting::named("listen").expect("a setting").apply(&mut config, listen).expect("valid alone");
            assert!(config.check().is_ok(), "{listen}");
        }
    }
}
