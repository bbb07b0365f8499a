//! What mio does not do with its epoll instance (epoll_ctl(2)). Its selector is an ordinary one, and gives back the data
//! as the token.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use mio::{Poll, Token};
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};

/// Registers a listener that other processes watch as well, so that a connection wakes one of them (`EPOLLEXCLUSIVE`):
/// the first to have registered of those that wait.
pub(crate) fn watch_exclusively(poll: &Poll, listener: impl AsFd, token: Token) -> io::Result<()> {
    let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET | EpollFlags::EPOLLEXCLUSIVE;
    inner(poll)?.add(listener, EpollEvent::new(flags, token.0 as u64))?;
    Ok(())
}

/// Registers a socket for one event, or again for another one (`EPOLLONESHOT`).
pub(crate) fn watch_once(poll: &Poll, socket: impl AsFd, token: Token) -> io::Result<()> {
    let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET | EpollFlags::EPOLLONESHOT;
    let mut event = EpollEvent::new(flags, token.0 as u64);
    let epoll = inner(poll)?;
    match epoll.modify(&socket, &mut event) {
        Err(nix::errno::Errno::ENOENT) => Ok(epoll.add(socket, event)?),
        result => Ok(result?),
    }
}

/// Takes a registration back.
pub(crate) fn forget(poll: &Poll, socket: impl AsFd) -> io::Result<()> {
    Ok(inner(poll)?.delete(socket)?)
}

/// mio's epoll instance, by another descriptor.
fn inner(poll: &Poll) -> io::Result<Epoll> {
    let descriptor: OwnedFd = poll.registry().as_fd().try_clone_to_owned()?;
    Ok(Epoll(descriptor))
}
