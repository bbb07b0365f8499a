//! What a pool is told to be, and its checks: contradictions are errors here, so that later code has none to handle.

use std::path::PathBuf;
use std::time::Duration;

use crate::http::Limits;

mod address;

pub(crate) use address::Address;

/// A pool's whole configuration.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Where to listen, in the order given; not empty once checked.
    pub(crate) addresses: Vec<Address>,
    /// How many workers; `None` derives the number from affinity and cgroup quota.
    pub(crate) workers: Option<usize>,
    /// Length of each listening socket's queue; the kernel caps it at `net.core.somaxconn`.
    pub(crate) backlog: u32,
    /// Permission bits of Unix sockets.
    pub(crate) unix_mode: u32,
    /// How long a worker told to leave may finish what it has.
    pub(crate) drain_timeout: Duration,
    /// How long a worker may take from fork to ready.
    pub(crate) boot_timeout: Duration,
    /// How long a worker may be busy without progress before it is replaced; zero is never.
    pub(crate) stall_timeout: Duration,
    /// User and group the workers run as.
    pub(crate) user: Option<String>,
    pub(crate) group: Option<String>,
    pub(crate) pid_file: Option<PathBuf>,
    pub(crate) server: ServerConfig,
}

/// What the built-in HTTP server allows its clients. Time-outs of zero are off.
#[derive(Clone, Debug)]
pub(crate) struct ServerConfig {
    /// The codec's limits.
    pub(crate) limits: Limits,
    /// Requests one connection may make in a row before another has its turn.
    pub(crate) max_pipelined: usize,
    /// Open connections per worker; at the limit it leaves new ones to the others.
    pub(crate) max_connections: usize,
    /// Bytes of answers kept for a client that does not read; beyond it the client is not read either.
    pub(crate) max_output: usize,
    pub(crate) head_timeout: Duration,
    pub(crate) body_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) write_timeout: Duration,
}
