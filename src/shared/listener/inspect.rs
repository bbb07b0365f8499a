//! Reads what a socket is, and makes it what it was. Runs in the parent, before it hands a socket on.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use socket2::{Domain, Protocol, SockRef, Type};

use super::recorded::Options;
use super::whole::{flaw, Facts, Kind, Wanted};
use crate::sys;

/// Why a socket may not be handed on; None if it may.
pub(super) fn inspect(socket: BorrowedFd<'_>, wanted: Wanted) -> Option<String> {
    match facts(socket) {
        Ok(facts) => flaw(&facts, wanted).map(str::to_owned),
        Err(error) => Some(format!("it cannot be asked what it is: {error}")),
    }
}

fn facts(fd: BorrowedFd<'_>) -> io::Result<Facts> {
    let socket = SockRef::from(&fd);
    let (domain, kind, protocol) = (socket.domain()?, socket.r#type()?, socket.protocol()?);
    let is_ip = domain == Domain::IPV4 || domain == Domain::IPV6;
    let kind = match () {
        () if is_ip && kind == Type::STREAM && protocol == Some(Protocol::TCP) => Kind::Tcp,
        () if is_ip && kind == Type::DGRAM && protocol == Some(Protocol::UDP) => Kind::Udp,
        () if domain == Domain::UNIX && kind == Type::STREAM => Kind::Unix,
        () => Kind::Other,
    };
    Ok(Facts {
        kind,
        address: socket.local_addr()?.as_socket(),
        listens: socket.is_listener()?,
        is_shut: is_shut(fd)?,
        is_connected: socket.peer_addr().is_ok(),
        shares_port: is_ip && socket.reuse_port()?,
        is_bound_to_device: is_ip && socket.device()?.is_some(),
    })
}

/// Whether a socket listens: any process that holds it may have shut it down.
pub(crate) fn is_listening(socket: BorrowedFd<'_>) -> bool {
    SockRef::from(&socket).is_listener().unwrap_or(false)
}

/// A Unix socket that was shut down still says that it listens.
fn is_shut(socket: BorrowedFd<'_>) -> io::Result<bool> {
    let mut wait = [PollFd::new(socket, PollFlags::from_bits_retain(libc::POLLRDHUP))];
    poll(&mut wait, PollTimeout::ZERO)?;
    // POLLRDHUP is the one bit here that nix does not know.
    Ok(wait[0].revents().is_none_or(|found| found.contains(PollFlags::POLLHUP)))
}

/// Why a socket that could not be [restored](restore) may not be handed on.
pub(super) fn unrestored(restored: io::Result<()>) -> Option<String> {
    restored.err().map(|error| format!("it cannot be restored: {error}"))
}

/// Has a socket block nobody again, takes off a filter that drops what comes (socket(7), `SO_ATTACH_FILTER`), and gives
/// it the options that it had at first, which connections inherit. `backlog` is that of a TCP listener of ours.
///
/// # Errors
///
/// When a filter was locked, among others: then it must not be handed on.
pub(super) fn restore(fd: impl AsFd, options: &Options, backlog: Option<u32>) -> io::Result<()> {
    sys::fds::set_nonblocking(&fd, true)?;
    let socket = SockRef::from(&fd);
    match socket.detach_filter() {
        Err(error) if error.raw_os_error() != Some(libc::ENOENT) => return Err(error),
        _ => {}
    }
    options.put_back(fd.as_fd())?;
    let Some(backlog) = backlog else { return Ok(()) };
    // On a socket that listens it changes the backlog alone.
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))
}
