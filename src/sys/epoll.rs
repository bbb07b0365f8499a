//! The calls on mio's epoll instance that mio does not make (epoll_ctl(2)). Its selector is an ordinary epoll instance
//! that returns the data as the token.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use mio::{Poll, Token};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// Registers a listener that other processes watch as well, so that a connection wakes only one of them
/// (`EPOLLEXCLUSIVE`): of those that wait, the one that registered first.
pub(crate) fn watch_exclusively(poll: &Poll, listener: impl AsFd, token: Token) -> io::Result<()> {
    let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET | EpollFlags::EPOLLEXCLUSIVE;
    inner(poll).add(listener, EpollEvent::new(flags, token.0 as u64))?;
    Ok(())
}

/// Registers a socket for one event, or again for another one (`EPOLLONESHOT`).
pub(crate) fn watch_once(poll: &Poll, socket: impl AsFd, token: Token) -> io::Result<()> {
    let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET | EpollFlags::EPOLLONESHOT;
    let mut event = EpollEvent::new(flags, token.0 as u64);
    let epoll = inner(poll);
    match epoll.modify(&socket, &mut event) {
        Err(nix::errno::Errno::ENOENT) => Ok(epoll.add(socket, event)?),
        result => Ok(result?),
    }
}

/// Removes a registration.
pub(crate) fn forget(poll: &Poll, socket: impl AsFd) -> io::Result<()> {
    Ok(inner(poll).delete(socket)?)
}

/// Reports that a socket has hung up, as a listener does when it is shut down, and nothing else. A new connection does
/// not wake the watcher.
#[derive(Debug)]
pub(crate) struct Hangups(Epoll);

impl Hangups {
    pub(crate) fn new() -> io::Result<Hangups> {
        Ok(Hangups(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?))
    }

    /// Watches a socket until it is closed.
    pub(crate) fn watch(&self, socket: BorrowedFd<'_>) {
        // epoll_ctl(2) reports EPOLLHUP without being asked to. A socket that cannot be watched is checked when it is
        // passed on.
        let _ = self.0.add(socket, EpollEvent::new(EpollFlags::EPOLLET, 0));
    }

    /// Consumes the pending events.
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

/// mio's epoll instance.
fn inner(poll: &Poll) -> ManuallyDrop<Epoll> {
    // SAFETY: the descriptor is open as long as `poll` is borrowed, which is longer than any caller here keeps this. It
    // is not closed twice, since this is never dropped.
    ManuallyDrop::new(Epoll(unsafe { OwnedFd::from_raw_fd(poll.as_raw_fd()) }))
}
