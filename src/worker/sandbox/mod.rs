//! The rights that a worker gives up for good once it is ready. Runs in the worker.
//!
//! There are three independent measures: programs that it executes gain no privileges (`PR_SET_NO_NEW_PRIVS`), it can
//! open no files except those it must read (landlock(7)), and it can only make the system calls of a server
//! (seccomp(2)). What is already open stays open.

mod calls;
mod keeper;
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

/// Confines this process, which may read what is below each of `readable`. `own` are the descriptors of its sockets to
/// the parent. Returns what could not be enforced, and why.
///
/// # Errors
///
/// Under [`Sandbox::Strict`], if anything could not be enforced.
pub(crate) fn enter(sandbox: Sandbox, readable: &[OwnedFd], own: &[RawFd], is_fixed: bool) -> Result<Vec<Error>> {
    if sandbox == Sandbox::Off {
        return Ok(Vec::new());
    }
    // The measures only confine the calling thread; other threads keep their rights.
    if let Some(count) = sys::process::threads().filter(|count| *count > 1) {
        let source = io::Error::other(format!("it has {count} threads; call ready before starting threads"));
        return missed(sandbox, Error::system("confine the worker (sandbox)", source)).map(|missed| vec![missed]);
    }
    // Without this, the other measures need a privilege.
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
        // A missing file is not an error.
        if let Ok(file) = File::open(path) {
            domain.allow(file.as_fd(), *access)?;
        }
    }
    domain.enter()
}

/// Files that any code may need at any time, and that reveal nothing.
const EVERYBODY_S: &[(&str, u64)] = &[
    // A backtrace finds the names of functions in it.
    ("/proc/self/exe", READ_FILE),
    ("/dev/null", READ_FILE | WRITE_FILE),
    ("/dev/zero", READ_FILE),
    ("/dev/urandom", READ_FILE),
    ("/dev/random", READ_FILE),
    ("/etc/localtime", READ_FILE),
    ("/usr/share/zoneinfo", READ_FILE | READ_DIRECTORY),
];

/// Confines this process, which keeps a program: it keeps only the calls that this takes. The program is not confined,
/// so it must run already. `asks` says whether the keeper asks it by HTTP whether it is ready.
///
/// # Errors
///
/// If the kernel refuses it. The process is not confined then.
pub(crate) fn enter_as_keeper(parent: i32, asks: bool) -> io::Result<()> {
    let architecture = calls::ARCHITECTURE.ok_or(io::ErrorKind::Unsupported)?;
    set_no_new_privs()?;
    let calls = keeper::of_a_keeper(keeper::Caller { pid: std::process::id(), parent, asks });
    sys::sandbox::filter_calls(&program::program(architecture, &calls))
}

fn allow_calls(own: &[RawFd], is_fixed: bool) -> io::Result<()> {
    let architecture = calls::ARCHITECTURE.ok_or(io::ErrorKind::Unsupported)?;
    let streams = standard_sockets();
    let calls = calls::of_a_server(Caller { pid: std::process::id(), own, streams: &streams, is_fixed });
    sys::sandbox::filter_calls(&program::program(architecture, &calls))
}
