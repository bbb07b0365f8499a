//! The ways to choose the worker of a new connection, and the pool that is loaded with one of them.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::Command;

use crate::pool::{testbed, Pool, Result};

/// A way to choose the worker of a new connection.
#[derive(Debug)]
pub(crate) struct Method {
    pub(crate) name: &'static str,
    /// In a table.
    pub(crate) label: &'static str,
}

impl Method {
    /// All but the first and the last are values of the pool's setting `balance`.
    pub(crate) const ALL: [Method; 7] = [
        PLAIN,
        Method { name: "hash", label: "hash, and neighbours" },
        Method { name: "random", label: "random, around stalled workers (classic BPF)" },
        Method { name: "least-connections", label: "least connections (eBPF)" },
        Method { name: "cpu", label: "the CPU that received it" },
        Method { name: "client", label: "the client's address" },
        SHARED,
    ];

    /// # Errors
    /// What there is instead.
    pub(crate) fn named(name: &str) -> std::result::Result<&'static Method, String> {
        let names = || Method::ALL.map(|method| method.name).join(", ");
        const ALL: &[Method] = &Method::ALL;
        ALL.iter().find(|method| method.name == name).ok_or_else(|| format!("{name} is none of {}", names()))
    }
}

/// What every other server has: the kernel's hash, and nobody who looks after a busy worker's queue.
const PLAIN: Method = Method { name: "plain", label: "plain SO_REUSEPORT" };

/// Without SO_REUSEPORT: all workers accept from one queue, and the kernel wakes one of those that wait.
const SHARED: Method = Method { name: "shared", label: "one shared socket, EPOLLEXCLUSIVE" };

/// Starts a pool with that method.
pub(crate) fn start(method: &Method, workers: u32) -> Result<Pool> {
    let mut command = if method.name == SHARED.name { with_shared_socket(workers)? } else { testbed(workers)? };
    match method.name {
        "shared" => &mut command,
        "plain" => command.env("FORKPOOL_BALANCE", "hash").env("FORKPOOL_NEIGHBOURS", "0"),
        balance => command.env("FORKPOOL_BALANCE", balance),
    };
    Pool::start(&mut command)
}

/// The testbed with a listening socket as a service manager gives it (sd_listen_fds(3)). The shell puts it where it has
/// to be, and becomes the process whose number has to be known before it is there.
fn with_shared_socket(workers: u32) -> Result<Command> {
    let testbed = testbed(workers)?;
    let mut command = Command::new("sh");
    command.args(["-c", "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" 3<&0 </dev/null"]).arg(testbed.get_program());
    command.envs(testbed.get_envs().filter_map(|(name, value)| Some((name, value?)))).env_remove("RUST_LOG");
    command.stdin(OwnedFd::from(TcpListener::bind("127.0.0.1:0")?));
    Ok(command)
}
