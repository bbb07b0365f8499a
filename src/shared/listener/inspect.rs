//! Inspects a socket and restores it. Runs in the parent, before it passes a socket on.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use socket2::{Domain, Protocol, SockRef, Type};

use super::recorded::Options;
use super::soundness::{flaw, Expected, Facts, Kind};
use crate::sys;

/// Returns why a socket must not be passed on, if so.
pub(super) fn inspect(socket: BorrowedFd<'_>, expected: Expected) -> Option<String> {
    match facts(socket) {
        Ok(facts) => flaw(&facts, expected).map(str::to_owned),
        Err(error) => Some(format!("it cannot be inspected: {error}")),
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

/// Whether a socket listens. Any process with a copy may have shut it down.
pub(crate) fn is_listening(socket: BorrowedFd<'_>) -> bool {
    SockRef::from(&socket).is_listener().unwrap_or(false)
}

/// Whether a Unix socket was shut down. Such a socket still reports that it listens.
fn is_shut(socket: BorrowedFd<'_>) -> io::Result<bool> {
    let mut wait = [PollFd::new(socket, PollFlags::from_bits_retain(libc::POLLRDHUP))];
    poll(&mut wait, PollTimeout::ZERO)?;
    // nix does not know POLLRDHUP, which is the only other bit here.
    Ok(wait[0].revents().is_none_or(|found| found.contains(PollFlags::POLLHUP)))
}

/// Returns why a socket that could not be [restored](restore) must not be passed on.
pub(super) fn unrestored(restored: io::Result<()>) -> Option<String> {
    restored.err().map(|error| format!("it cannot be restored: {error}"))
}

/// Restores a socket: no call on it blocks, no filter drops packets (`SO_ATTACH_FILTER` in socket(7)), and it has its
/// original options, which connections inherit. `backlog` is that of a TCP listener of ours.
///
/// # Errors
///
/// For example, if a filter was locked. The socket must not be passed on then.
pub(super) fn restore(fd: impl AsFd, options: &Options, backlog: Option<u32>) -> io::Result<()> {
    sys::fds::set_nonblocking(&fd, true)?;
    let socket = SockRef::from(&fd);
    match socket.detach_filter() {
        Err(error) if error.raw_os_error() != Some(libc::ENOENT) => return Err(error),
        _ => {}
    }
    options.put_back(fd.as_fd())?;
    let Some(backlog) = backlog else { return Ok(()) };
    // On a listening socket this only changes the backlog.
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))
}
