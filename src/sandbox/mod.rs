//! What a worker gives up once it is ready, for good. Runs in the worker.
//!
//! Three things, each of which holds without the others: no program that it executes gains privileges
//! (`PR_SET_NO_NEW_PRIVS`), no file can be opened but what it is to read (landlock(7)), and no system call works but
//! those of a server (seccomp(2)). What is open already stays so.

mod calls;
mod program;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::prctl::set_no_new_privs;

use crate::error::{Error, Result};
use crate::sys;
use crate::sys::sandbox::{Domain, READ_DIRECTORY, READ_FILE};

/// How much a worker gives up once it is ready.
///
/// A confined worker can serve what it has open and nothing else: it opens no files but those of
/// [`Worker::allow_files`](crate::Worker::allow_files) and its own executable, to be read; it makes no sockets, starts
/// no processes, maps no new code, and signals nobody else. Most system calls then fail with `EPERM`; executing a
/// program, or reaching into another process, ends the worker by SIGSYS. Threads may still be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sandbox {
    /// Nothing.
    Off,
    /// What this kernel can enforce; what it cannot is said in the log.
    Auto,
    /// All of it: a worker that cannot be confined does not start.
    Strict,
}

/// Confines this process, which may read what is below each of `readable`. Returns what could not be enforced, and why.
///
/// # Errors
///
/// Under [`Sandbox::Strict`], when something could not be.
pub(crate) fn enter(sandbox: Sandbox, readable: &[OwnedFd]) -> Result<Vec<Error>> {
    if sandbox == Sandbox::Off {
        return Ok(Vec::new());
    }
    // A thread keeps what it had when another one gives something up.
    if let Some(count) = sys::process::threads().filter(|count| *count > 1) {
        let source = io::Error::other(format!("it has {count} threads; let it be ready before it starts any"));
        return missed(sandbox, Error::system("confine the worker (sandbox)", source)).map(|missed| vec![missed]);
    }
    // Without it the others need a privilege.
    set_no_new_privs().map_err(|errno| Error::system("give up new privileges with prctl(2)", errno))?;
    let files = restrict_files(readable)
        .map_err(|source| Error::system("confine the worker's files with landlock(7) (sandbox)", source));
    let calls =
        allow_calls().map_err(|source| Error::system("confine the worker's calls with seccomp(2) (sandbox)", source));
    [files, calls].into_iter().filter_map(Result::err).map(|error| missed(sandbox, error)).collect()
}

fn missed(sandbox: Sandbox, error: Error) -> Result<Error> {
    match sandbox {
        Sandbox::Strict => Err(error),
        _ => Ok(error),
    }
}

fn restrict_files(readable: &[OwnedFd]) -> io::Result<()> {
    let domain = Domain::new()?;
    for directory in readable {
        domain.allow(directory.as_fd(), READ_FILE | READ_DIRECTORY)?;
    }
    // A backtrace names functions by what is in it. Where /proc is missing it has no names.
    if let Ok(executable) = File::open("/proc/self/exe") {
        domain.allow(executable.as_fd(), READ_FILE)?;
    }
    domain.enter()
}

fn allow_calls() -> io::Result<()> {
    let architecture = calls::ARCHITECTURE.ok_or(io::ErrorKind::Unsupported)?;
    let calls = calls::of_a_server(std::process::id());
    sys::sandbox::filter_calls(&program::program(architecture, &calls))
}
