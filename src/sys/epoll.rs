//! What mio does not do with its epoll instance (epoll_ctl(2)). Its selector is an ordinary one, and gives back the data
//! as the token.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use mio::{Poll, Token};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

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

/// Tells when sockets hang up, as a listener does that somebody shuts down, and nothing else of them: a connection that
/// comes wakes nobody here.
#[derive(Debug)]
pub(crate) struct Hangups(Epoll);

impl Hangups {
    pub(crate) fn new() -> io::Result<Hangups> {
        Ok(Hangups(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?))
    }

    /// Watches a socket for as long as it is open.
    pub(crate) fn watch(&self, socket: BorrowedFd<'_>) {
        // A hang-up is told without being asked for (epoll_ctl(2), EPOLLHUP). What cannot be watched is looked at when it
        // is handed on.
        let _ = self.0.add(socket, EpollEvent::new(EpollFlags::EPOLLET, 0));
    }

    /// Takes in what there is.
    pub(crate) fn clear(&self) {
        let mut events = [EpollEvent::empty(); 64];
        while self.0.wait(&mut events, EpollTimeout::ZERO).is_ok_and(|count| count == events.len()) {}
    }
}

impl AsRawFd for Hangups {
    fn as_raw_fd(&self) -> RawFd {
        self.0 .0.as_raw_fd()
    }
}

/// mio's epoll instance, by another descriptor.
fn inner(poll: &Poll) -> io::Result<Epoll> {
    let descriptor: OwnedFd = poll.registry().as_fd().try_clone_to_owned()?;
    Ok(Epoll(descriptor))
}
