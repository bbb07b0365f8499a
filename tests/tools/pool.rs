//! The pool that a tool measures: the testbed beside it, started, and stopped whatever happens.
// Each tool uses its own part of this.
#![allow(dead_code)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::mpsc::Receiver;

use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

#[path = "../support/program.rs"]
mod program;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A program that was built with this one.
pub(crate) fn beside(name: &str) -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    if !path.exists() {
        return Err(format!("{} is not built; run cargo build --release --examples", path.display()).into());
    }
    Ok(path)
}

/// The testbed with so many workers, on a free port.
pub(crate) fn testbed(workers: u32) -> Result<Command> {
    let mut command = Command::new(beside("testbed")?);
    command.env("FORKPOOL_LISTEN", "127.0.0.1:0").env("FORKPOOL_WORKERS", workers.to_string()).env_remove("RUST_LOG");
    Ok(command)
}

pub(crate) struct Pool {
    parent: Child,
    lines: Receiver<String>,
    address: Option<SocketAddr>,
    warnings: Vec<String>,
}

impl Pool {
    /// Returns at once.
    pub(crate) fn spawn(command: &mut Command) -> Result<Pool> {
        let (parent, lines) = program::spawn(command)?;
        Ok(Pool { parent, lines, address: None, warnings: Vec::new() })
    }

    /// Returns when all its workers are ready.
    pub(crate) fn start(command: &mut Command) -> Result<Pool> {
        let mut pool = Pool::spawn(command)?;
        while pool.address.is_none() {
            let Ok(line) = pool.lines.recv() else {
                return Err(pool.warnings.pop().unwrap_or_else(|| "the testbed did not start".to_owned()).into());
            };
            pool.address = program::announced(&line);
            pool.warnings.extend(is_warning(&line).then_some(line));
        }
        Ok(pool)
    }

    /// Where it listens; `start` waits until it has said so.
    pub(crate) fn address(&self) -> Result<SocketAddr> {
        Ok(self.address.ok_or("the testbed has not announced its address")?)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.parent.id()
    }

    /// Sends a signal and waits for the end; returns what it has warned of.
    pub(crate) fn stop(mut self, signal: Signal) -> Result<Vec<String>> {
        kill(Pid::from_raw(self.parent.id().try_into()?), signal)?;
        let status = self.parent.wait()?;
        let mut warnings = std::mem::take(&mut self.warnings);
        warnings.extend(self.lines.iter().filter(|line| is_warning(line)));
        if status.success() {
            Ok(warnings)
        } else {
            Err(format!("the pool has ended with {status}: {}", warnings.join("; ")).into())
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
