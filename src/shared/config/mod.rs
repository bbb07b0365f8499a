//! The configuration of a pool. `check.rs` refuses contradictions, so later code need not handle them.

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
mod program;
mod proxies;
mod readiness;
mod settings;
mod values;
mod workers;

pub(crate) use address::Address;
pub use choices::{Adopt, Balance, ForwardedHeader, OnPanic, OnStall, Sandbox, StopSignal, Symlinks};
pub(crate) use file_rules::{HeaderRule, Rules};
pub(crate) use layers::Layers;
pub(crate) use limits::{Limits, FIELDS_MAX};
pub use log_format::AccessLogFormat;
pub(crate) use log_format::{Part as LogPart, Variable as LogVariable};
pub(crate) use pattern::Pattern;
pub(crate) use proxies::Proxies;
pub use readiness::{Probe, Readiness};
pub(crate) use settings::quoted;
pub use settings::{settings, Setting};
pub use values::duration;

/// The whole configuration of a pool.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The addresses to listen on, in the order given. Once checked, there is one here or in `udp`.
    pub(crate) addresses: Vec<Address>,
    /// The addresses to receive datagrams on, in the form of TCP addresses. A pool may have only these.
    pub(crate) udp: Vec<Address>,
    /// The number of workers; `None` derives it from the CPU affinity and the cgroup quota.
    pub(crate) workers: Option<usize>,
    /// The length of the queue of each listening socket; the kernel caps it at `net.core.somaxconn`.
    pub(crate) backlog: u32,
    /// Permission bits of Unix sockets.
    pub(crate) unix_mode: u32,
    /// How long a draining worker may take to finish. Zero is no limit, as for every timeout.
    pub(crate) drain_timeout: Duration,
    /// How long a worker may take from its fork until it is ready.
    pub(crate) boot_timeout: Duration,
    /// How long a worker may be busy without progress before it is replaced.
    pub(crate) stall_timeout: Duration,
    pub(crate) on_stall: OnStall,
    /// The number of slots that a rolling restart replaces at a time.
    pub(crate) surge: usize,
    /// The delay between SIGTERM and the drain.
    pub(crate) lame_duck: Duration,
    /// The number of failures in a row of one slot that ends the pool. Zero is no limit, as for the limits below.
    pub(crate) give_up: u32,
    /// The requests, the time and the memory after which a worker is replaced.
    pub(crate) max_requests: u64,
    pub(crate) max_age: Duration,
    pub(crate) max_rss: usize,
    /// How a worker is chosen for a new connection.
    pub(crate) balance: Balance,
    /// The number of other workers that look after each worker's queue.
    pub(crate) neighbours: usize,
    /// Whether to pin each worker to a CPU.
    pub(crate) pin: bool,
    /// The user and group of the workers.
    pub(crate) user: Option<String>,
    pub(crate) group: Option<String>,
    /// How workers are confined once they are ready.
    pub(crate) sandbox: Sandbox,
    pub(crate) pid_file: Option<PathBuf>,
    /// The working directory of the workers. That of the parent does not change.
    pub(crate) chdir: Option<PathBuf>,
    /// Patterns of files; a change of one starts a restart.
    pub(crate) watch: Vec<String>,
    /// The file of variables, and those among them that are for the workers.
    pub(crate) env_file: Option<PathBuf>,
    pub(crate) environment: Rc<Vec<(String, OsString)>>,
    /// The address of the admin process, the host names it accepts, and the file with the token for commands over TCP.
    pub(crate) admin: Option<Address>,
    pub(crate) admin_hosts: Vec<String>,
    pub(crate) admin_token_file: Option<PathBuf>,
    pub(crate) server: ServerConfig,
    /// The directory whose files are served, and how.
    pub(crate) root: Option<PathBuf>,
    pub(crate) files: Rules,
    /// The access log, `-` for standard output, and its format.
    pub(crate) access_log: Option<PathBuf>,
    pub(crate) access_log_format: AccessLogFormat,
    /// When a program that a worker executes counts as ready.
    pub(crate) ready: Readiness,
    /// The signal that asks it to finish.
    pub(crate) stop_signal: StopSignal,
    /// Whether programs that bind the pool's addresses get its sockets.
    pub(crate) adopt: Adopt,
    /// Whether keepers prefix the lines that their programs print.
    pub(crate) prefix: bool,
    /// Whether messages from workers may bring descriptors.
    pub(crate) accept_descriptors: bool,
    /// The percentage of the parent's time that may go into reading the messages of one worker.
    pub(crate) message_share: u32,
}

/// The configuration of the built-in HTTP server. A timeout of zero is off.
#[derive(Clone, Debug)]
pub(crate) struct ServerConfig {
    /// The codec's limits.
    pub(crate) limits: Limits,
    pub(crate) capacity: Capacity,
    pub(crate) timeouts: Timeouts,
    /// Whether a client that closes its sending side still waits for its response.
    pub(crate) half_close: bool,
    pub(crate) on_panic: OnPanic,
    /// Whether the parent's log names the request in which a worker hangs or dies.
    pub(crate) name_requests: bool,
    /// How long the application may take for a response before that is logged. Zero is no limit.
    pub(crate) slow_request: Duration,
    /// The proxies that may name the client of a request, and the header fields in which they do.
    pub(crate) proxies: Proxies,
    pub(crate) forwarded_header: ForwardedHeader,
    /// Whether TCP connections begin with a header of the PROXY protocol.
    pub(crate) proxy_protocol: bool,
}

/// How much clients may have in progress.
#[derive(Clone, Debug)]
pub(crate) struct Capacity {
    /// The number of pipelined requests of one connection that are answered before other connections are served.
    pub(crate) max_pipelined: usize,
    /// The maximum number of open connections per worker. At the limit idle connections are closed, and new ones are
    /// directed to other workers. Zero is no limit.
    pub(crate) max_connections: usize,
    /// At the limit, also close connections with incomplete requests or unread responses.
    pub(crate) evicts_unfinished: bool,
    /// The bytes of unread responses to buffer per client. Beyond it, no more requests of that client are read.
    pub(crate) max_output: usize,
    /// The bytes that a worker may hold for requests and responses in progress. Zero is no limit.
    pub(crate) max_held: usize,
}

/// How long clients, and the application, may take. Zero is no limit.
#[derive(Clone, Debug)]
pub(crate) struct Timeouts {
    /// For a request's head.
    pub(crate) head: Duration,
    /// For a pause within a request's body.
    pub(crate) body: Duration,
    /// The bytes per second of a body that a client must send, on average over `body`. Zero is no minimum.
    pub(crate) min_rate: usize,
    /// Between two requests.
    pub(crate) idle: Duration,
    /// For a client that should read a response.
    pub(crate) write: Duration,
    /// For the application's deferred response.
    pub(crate) answer: Duration,
    /// After how much silence the kernel probes whether a TCP client is still there.
    pub(crate) tcp_keepalive: Duration,
}

impl ServerConfig {
    /// Whether a panic in a handler ends the worker, and not only the connection.
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
                capacity: Capacity {
                    max_pipelined: 64,
                    max_connections: 0,
                    evicts_unfinished: false,
                    max_output: 256 << 10,
                    max_held: 64 << 20,
                },
                timeouts: Timeouts {
                    head: Duration::from_secs(10),
                    body: Duration::from_secs(60),
                    min_rate: 500,
                    idle: Duration::from_secs(75),
                    write: Duration::from_secs(360),
                    answer: Duration::from_secs(300),
                    tcp_keepalive: Duration::from_secs(60),
                },
                half_close: false,
                on_panic: OnPanic::Answer,
                name_requests: true,
                slow_request: Duration::ZERO,
                proxies: Proxies::default(),
                forwarded_header: ForwardedHeader::Auto,
                proxy_protocol: false,
            },
            root: None,
            files: Rules::default(),
            access_log: None,
            access_log_format: AccessLogFormat::Combined,
            ready: Readiness::Auto,
            stop_signal: StopSignal::Term,
            adopt: Adopt::Auto,
            prefix: false,
            accept_descriptors: false,
            message_share: 2,
        }
    }
}

impl Config {
    /// The maximum number of workers. The scoreboard has twice as many rows, since a slot may hold two processes.
    pub(crate) const WORKERS_MAX: usize = 1024;

    /// The sockets of a slot are sent in one message (`SCM_MAX_FD`, unix(7)).
    const ADDRESSES_MAX: usize = 253;

    /// Reads the token that lets TCP clients of the admin process give commands.
    ///
    /// # Errors
    ///
    /// [`Error::File`] if the file cannot be read, [`Error::Config`] if it holds no token, or everybody may read it.
    pub(crate) fn admin_token(&self) -> Result<Option<String>> {
        let Some(path) = &self.admin_token_file else { return Ok(None) };
        let shown = path.display();
        let unread = |source| Error::File { path: shown.to_string(), action: "read the admin token in", source };
        let mode = fs::metadata(path).map_err(unread)?.permissions().mode();
        if mode & 0o007 != 0 {
            let problem = format!("every user has access to {shown}; restrict it, for example by chmod o= {shown}");
            return Err(Error::config("admin-token-file", problem));
        }
        let token = fs::read_to_string(path).map_err(unread)?.trim_end().to_owned();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            let problem = format!("{shown} must hold one word of visible ASCII");
            return Err(Error::config("admin-token-file", problem));
        }
        Ok(Some(token))
    }

    /// The directory whose files are served, as a path for the parent.
    pub(crate) fn root_path(&self) -> Option<PathBuf> {
        self.root.as_deref().map(|root| self.reached_from_chdir(root))
    }

    /// Makes a path of the workers a path for the parent.
    pub(crate) fn reached_from_chdir(&self, path: &Path) -> PathBuf {
        self.chdir.as_ref().map_or_else(|| path.to_owned(), |directory| directory.join(path))
    }
}
