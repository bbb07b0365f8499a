//! What a worker gives up once it is ready, for good. Runs in the worker.
//!
//! Three things, each of which holds without the others: no program that it executes gains privileges
//! (`PR_SET_NO_NEW_PRIVS`), no file can be opened but what it is to read (landlock(7)), and no system call works but
//! those of a server (seccomp(2)). What is open already stays so.

mod calls;
mod program;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};

use nix::sys::prctl::set_no_new_privs;

use crate::error::{Error, Result};
use crate::shared::config::Sandbox;
use crate::sys;
use crate::sys::fds::standard_sockets;
use crate::sys::sandbox::{Domain, READ_DIRECTORY, READ_FILE, WRITE_FILE};

use self::calls::Caller;

/// Confines this process, which may read what is below each of `readable`. `own` are the numbers of its sockets towards
/// the parent. Returns what could not be enforced, and why.
///
/// # Errors
///
/// Under [`Sandbox::Strict`], when something could not be.
pub(crate) fn enter(sandbox: Sandbox, readable: &[OwnedFd], own: &[RawFd], is_fixed: bool) -> Result<Vec<Error>> {
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
    let calls = allow_calls(own, is_fixed)
        .map_err(|source| Error::system("confine the worker's calls with seccomp(2) (sandbox)", source));
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
    for (path, access) in EVERYBODY_S {
        // What is not there is not missed.
        if let Ok(file) = File::open(path) {
            domain.allow(file.as_fd(), *access)?;
        }
    }
    domain.enter()
}

/// What any code may need at any time, and what tells nobody anything.
const EVERYBODY_S: &[(&str, u64)] = &[
    // A backtrace names functions by what is in it.
    ("/proc/self/exe", READ_FILE),
    ("/dev/null", READ_FILE | WRITE_FILE),
    ("/dev/zero", READ_FILE),
    ("/dev/urandom", READ_FILE),
    ("/dev/random", READ_FILE),
    ("/etc/localtime", READ_FILE),
    ("/usr/share/zoneinfo", READ_FILE | READ_DIRECTORY),
];

fn allow_calls(own: &[RawFd], is_fixed: bool) -> io::Result<()> {
    let architecture = calls::ARCHITECTURE.ok_or(io::ErrorKind::Unsupported)?;
    let streams = standard_sockets();
    let calls = calls::of_a_server(Caller { pid: std::process::id(), own, streams: &streams, is_fixed });
    sys::sandbox::filter_calls(&program::program(architecture, &calls))
}
