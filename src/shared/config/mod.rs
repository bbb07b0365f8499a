//! What a pool is told to be. check.rs refuses contradictions, so that later code has none to handle.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use crate::error::{Error, Result};

mod address;
mod check;
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
}
