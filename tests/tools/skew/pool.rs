//! The pool that is loaded: the testbed, with one of the methods.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

use crate::Result;

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

/// An example that was built with this one.
pub(crate) fn beside(name: &str) -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    if !path.exists() {
        return Err(format!("{} is not built; run cargo build --release --examples", path.display()).into());
    }
    Ok(path)
}

pub(crate) struct Pool {
    parent: Child,
    address: String,
    log: Receiver<String>,
    warnings: Vec<String>,
}

impl Pool {
    /// Returns when all its workers are ready.
    pub(crate) fn start(method: &Method, workers: u32) -> Result<Pool> {
        let mut command =
            if method.name == SHARED.name { with_shared_socket()? } else { Command::new(beside("testbed")?) };
        command.env("FORKPOOL_LISTEN", "127.0.0.1:0").env("FORKPOOL_WORKERS", workers.to_string());
        match method.name {
            "shared" => &mut command,
            "plain" => command.env("FORKPOOL_BALANCE", "hash").env("FORKPOOL_NEIGHBOURS", "0"),
            balance => command.env("FORKPOOL_BALANCE", balance),
        };
        let mut parent = command.env_remove("RUST_LOG").stderr(Stdio::piped()).spawn()?;
        let errors = parent.stderr.take().ok_or("stderr is piped")?;
        let (sender, log) = mpsc::channel();
        // Reads on to the end, so that the pool never waits for who reads its log.
        thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(std::result::Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut pool = Pool { parent, address: String::new(), log, warnings: Vec::new() };
        while pool.address.is_empty() {
            let Ok(line) = pool.log.recv() else {
                return Err(pool.warnings.pop().unwrap_or_else(|| "the testbed has not started".to_owned()).into());
            };
            if let Some((_, rest)) = line.split_once("listening on http://") {
                pool.address = rest.split(' ').next().unwrap_or_default().to_owned();
            }
            pool.warnings.extend(is_warning(&line).then_some(line));
        }
        Ok(pool)
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Lets it drain; returns what it has warned of.
    pub(crate) fn stop(mut self) -> Result<Vec<String>> {
        kill(Pid::from_raw(self.parent.id().try_into()?), Signal::SIGTERM)?;
        let status = self.parent.wait()?;
        let mut warnings = std::mem::take(&mut self.warnings);
        warnings.extend(self.log.iter().filter(|line| is_warning(line)));
        match status.success() {
            true => Ok(warnings),
            false => Err(format!("the pool has ended with {status}: {}", warnings.join("; ")).into()),
        }
    }
}

/// Whatever has gone wrong, no pool stays: its workers end when the parent does.
impl Drop for Pool {
    fn drop(&mut self) {
        if let Ok(None) = self.parent.try_wait() {
            let _ = self.parent.kill();
            let _ = self.parent.wait();
        }
    }
}

fn is_warning(line: &str) -> bool {
    line.starts_with("WARN ") || line.starts_with("ERROR ")
}

/// The testbed with a listening socket as a service manager gives it (sd_listen_fds(3)). The shell puts it where it has
/// to be, and becomes the process whose number has to be known before it is there.
fn with_shared_socket() -> Result<Command> {
    let mut command = Command::new("sh");
    command.args(["-c", "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" 3<&0 </dev/null"]).arg(beside("testbed")?);
    command.stdin(OwnedFd::from(TcpListener::bind("127.0.0.1:0")?));
    Ok(command)
}
