//! cargo run --example sabotage: a pool whose handler breaks the worker's sockets when it is asked to, for the tests.
//!
//! It knows nothing of forkpool's inside: it tries every number that a descriptor may have.
#![allow(unsafe_code)]

mod logger;

use std::fs::File;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::{env, fs, process};

use forkpool::{Pool, Response};
use nix::fcntl::{fcntl, FcntlArg, Flock, FlockArg, OFlag};
use socket2::{SockFilter, SockRef};

fn main() -> forkpool::Result<()> {
    logger::init();
    Pool::bind("127.0.0.1:8000").env().run(|worker| {
        // What a database has: open before the worker is confined.
        let database =
            env::var_os("DATABASE").map(|path| File::options().read(true).write(true).open(path)).transpose()?;
        worker.add_header("X-Pid", &process::id().to_string())?;
        worker.serve(|request| match request.path() {
            "/exit" => process::exit(1),
            "/store" => Response::text(said(store(database.as_ref()))),
            "/open" => Response::text(said(open(request.query().unwrap_or_default()))),
            "/sockets" => Response::text(sabotage(request.query().unwrap_or_default())),
            _ => Response::text("here\n"),
        })?;
        Ok::<(), Box<dyn std::error::Error>>(())
    })
}

fn said(result: io::Result<()>) -> String {
    result.map_or_else(|error| error.to_string(), |()| "done".to_owned())
}

/// Does something to every listening socket that this process has; says how often that worked, or the latest error.
fn sabotage(what: &str) -> String {
    let listeners: Vec<BorrowedFd<'_>> = (3..256).filter_map(listener).collect();
    let results: Vec<io::Result<()>> = listeners.iter().map(|socket| harm(*socket, what)).collect();
    let done = results.iter().filter(|result| result.is_ok()).count();
    match results.into_iter().find_map(Result::err) {
        Some(error) if done == 0 => error.to_string(),
        _ => format!("done to {done}"),
    }
}

fn listener(number: i32) -> Option<BorrowedFd<'static>> {
    // SAFETY: fcntl(2) changes nothing, and says whether there is something at this number.
    let is_open = unsafe { libc::fcntl(number, libc::F_GETFD) } >= 0;
    // SAFETY: it is open, and this program closes no descriptors that are not its own.
    let socket = is_open.then(|| unsafe { BorrowedFd::borrow_raw(number) })?;
    SockRef::from(&socket).is_listener().unwrap_or(false).then_some(socket)
}

fn harm(socket: BorrowedFd<'_>, what: &str) -> io::Result<()> {
    // Drops every packet as a filter, and chooses the first socket of a group.
    let nothing = libc::sock_filter { code: 6, jt: 0, jf: 0, k: 0 };
    match what {
        "shutdown" => SockRef::from(&socket).shutdown(Shutdown::Both),
        "unblock" => {
            let flags = OFlag::from_bits_retain(fcntl(socket, FcntlArg::F_GETFL)?);
            Ok(fcntl(socket, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK)).map(drop)?)
        }
        "unblock-by-ioctl" => SockRef::from(&socket).set_nonblocking(false),
        "filter" => SockRef::from(&socket).attach_filter(&[SockFilter::new(6, 0, 0, 0)]),
        "leave" => SockRef::from(&socket).set_reuse_port(false),
        "steer" => {
            let program = libc::sock_fprog { len: 1, filter: std::ptr::from_ref(&nothing).cast_mut() };
            let size = std::mem::size_of_val(&program) as libc::socklen_t;
            let (option, program) = (libc::SO_ATTACH_REUSEPORT_CBPF, std::ptr::from_ref(&program).cast());
            // SAFETY: the program is what the option takes, and lives until the call returns.
            match unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, program, size) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        }
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// What SQLite and its like do with a file.
fn store(database: Option<&File>) -> io::Result<()> {
    let file = database.ok_or(io::ErrorKind::NotFound)?;
    let lock = Flock::lock(file.try_clone()?, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno)?;
    file.set_len(4096)?;
    file.write_all_at(b"page", 4092)?;
    file.sync_data()?;
    file.sync_all()?;
    let mut page = [0; 4];
    file.read_exact_at(&mut page, 4092)?;
    lock.unlock().map_err(|(_, errno)| errno)?;
    if &page == b"page" {
        Ok(())
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

/// Opens a file for reading; with `w:` before its path, for writing.
fn open(path: &str) -> io::Result<()> {
    match path.strip_prefix("w:") {
        Some(path) => fs::write(path, "x"),
        None => File::open(path).map(drop),
    }
}
