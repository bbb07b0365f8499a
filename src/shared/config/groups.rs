//! The parts of the configuration, grouped by who reads them.

use std::ffi::OsString;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use super::{
    AccessLogFormat, Address, Adopt, Balance, OnStall, Readiness, Rebalance, Rules, Sandbox, StopSignal, TlsConfig,
};
use crate::shared::metrics::Metrics;

/// What the pool listens on.
#[derive(Clone, Debug)]
pub(crate) struct ListenConfig {
    /// The addresses to listen on, in the order given. Once checked, there is one here or in `udp`.
    pub(crate) addresses: Vec<Address>,
    pub(crate) tls: TlsConfig,
    /// The addresses to receive datagrams on, in the form of TCP addresses. A pool may have only these.
    pub(crate) udp: Vec<Address>,
    /// The length of the queue of each listening socket; the kernel caps it at `net.core.somaxconn`.
    pub(crate) backlog: u32,
    /// Permission bits of Unix sockets.
    pub(crate) unix_mode: u32,
}

impl Default for ListenConfig {
    fn default() -> ListenConfig {
        let addresses = vec![Address::Tcp(([127, 0, 0, 1], 8000).into())];
        ListenConfig { addresses, tls: TlsConfig::default(), udp: Vec::new(), backlog: 1024, unix_mode: 0o666 }
    }
}

/// The number of workers, and how connections and CPUs are shared among them.
#[derive(Clone, Debug)]
pub(crate) struct WorkersConfig {
    /// `None` derives it from the CPU affinity and the cgroup quota.
    pub(crate) count: Option<usize>,
    /// How a worker is chosen for a new connection.
    pub(crate) balance: Balance,
    /// The number of other workers that look after each worker's queue.
    pub(crate) neighbours: usize,
    /// Whether workers pass idle connections to each other.
    pub(crate) rebalance: Rebalance,
    /// Whether to pin each worker to a CPU.
    pub(crate) pin: bool,
}

impl Default for WorkersConfig {
    fn default() -> WorkersConfig {
        WorkersConfig { count: None, balance: Balance::Auto, neighbours: 3, rebalance: Rebalance::Auto, pin: false }
    }
}

/// The life of workers and of the pool. Zero is no limit, for every timeout and for `give_up`.
#[derive(Clone, Debug)]
pub(crate) struct LifecycleConfig {
    /// How long a worker may take from its fork until it is ready.
    pub(crate) boot_timeout: Duration,
    /// How long a draining worker may take to finish.
    pub(crate) drain_timeout: Duration,
    /// How long a worker may be busy without progress before it is replaced.
    pub(crate) stall_timeout: Duration,
    pub(crate) on_stall: OnStall,
    /// The number of slots that a rolling restart replaces at a time.
    pub(crate) surge: usize,
    /// The delay between SIGTERM and the drain.
    pub(crate) lame_duck: Duration,
    /// The number of failures in a row of one slot that ends the pool.
    pub(crate) give_up: u32,
}

impl Default for LifecycleConfig {
    fn default() -> LifecycleConfig {
        LifecycleConfig {
            boot_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(25),
            stall_timeout: Duration::from_secs(60),
            on_stall: OnStall::Kill,
            surge: 1,
            lame_duck: Duration::ZERO,
            give_up: 0,
        }
    }
}

/// The limits after which a healthy worker is replaced. Zero is no limit.
#[derive(Clone, Debug, Default)]
pub(crate) struct RecyclingConfig {
    pub(crate) max_requests: u64,
    pub(crate) max_age: Duration,
    pub(crate) max_rss: usize,
}

/// What workers may do.
#[derive(Clone, Debug)]
pub(crate) struct PrivilegesConfig {
    /// The user and group of the workers.
    pub(crate) user: Option<String>,
    pub(crate) group: Option<String>,
    /// How workers are confined once they are ready.
    pub(crate) sandbox: Sandbox,
}

impl Default for PrivilegesConfig {
    fn default() -> PrivilegesConfig {
        PrivilegesConfig { user: None, group: None, sandbox: Sandbox::Off }
    }
}

/// The pool's processes: their files, directory and environment.
#[derive(Clone, Debug)]
pub(crate) struct ProcessConfig {
    pub(crate) pid_file: Option<PathBuf>,
    /// Whether the processes have titles that say what they are.
    pub(crate) titles: bool,
    /// The working directory of the workers. That of the parent does not change.
    pub(crate) chdir: Option<PathBuf>,
    /// Patterns of files; a change of one starts a restart.
    pub(crate) watch: Vec<String>,
    /// The file of variables, and those among them that are for the workers.
    pub(crate) env_file: Option<PathBuf>,
    pub(crate) environment: Rc<Vec<(String, OsString)>>,
}

impl Default for ProcessConfig {
    fn default() -> ProcessConfig {
        let (watch, environment) = (Vec::new(), Rc::default());
        ProcessConfig { pid_file: None, titles: true, chdir: None, watch, env_file: None, environment }
    }
}

/// The admin process.
#[derive(Clone, Debug, Default)]
pub(crate) struct AdminConfig {
    /// `None` if there is none.
    pub(crate) address: Option<Address>,
    /// The host names that it accepts.
    pub(crate) hosts: Vec<String>,
    /// The file with the token for commands over TCP.
    pub(crate) token_file: Option<PathBuf>,
}

/// The files to serve.
#[derive(Clone, Debug, Default)]
pub(crate) struct FilesConfig {
    /// Their directory; `None` serves none.
    pub(crate) root: Option<PathBuf>,
    pub(crate) rules: Rules,
}

/// The access log.
#[derive(Clone, Debug)]
pub(crate) struct AccessLogConfig {
    /// `-` is standard output; `None` writes none.
    pub(crate) file: Option<PathBuf>,
    pub(crate) format: AccessLogFormat,
}

impl Default for AccessLogConfig {
    fn default() -> AccessLogConfig {
        AccessLogConfig { file: None, format: AccessLogFormat::Combined }
    }
}

/// The program that workers run, if they run one.
#[derive(Clone, Debug)]
pub(crate) struct ProgramConfig {
    /// When it counts as ready.
    pub(crate) ready: Readiness,
    /// The signal that asks it to finish.
    pub(crate) stop_signal: StopSignal,
    /// Whether it gets the pool's sockets by binding their addresses.
    pub(crate) adopt: Adopt,
    /// Whether the lines that it prints get a prefix.
    pub(crate) prefix: bool,
    /// Whether the workers run nothing but programs, so that settings of the server in the file of variables are
    /// mistakes.
    pub(crate) are_all: bool,
}

impl Default for ProgramConfig {
    fn default() -> ProgramConfig {
        let (ready, stop_signal, adopt) = (Readiness::Auto, StopSignal::Term, Adopt::Auto);
        ProgramConfig { ready, stop_signal, adopt, prefix: false, are_all: false }
    }
}

/// What the application that runs the pool has set for itself.
#[derive(Clone, Debug)]
pub(crate) struct ApplicationConfig {
    pub(crate) metrics: Metrics,
    /// Whether messages from workers may bring descriptors.
    pub(crate) accept_descriptors: bool,
    /// The percentage of the parent's time that may go into reading the messages of one worker.
    pub(crate) message_share: u32,
}

impl Default for ApplicationConfig {
    fn default() -> ApplicationConfig {
        ApplicationConfig { metrics: Metrics::default(), accept_descriptors: false, message_share: 2 }
    }
}
