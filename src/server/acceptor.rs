//! A listening socket in a worker's loop.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::time::Duration;

use mio::net::{TcpListener, UnixListener};
use mio::{Poll, Token};
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};

use crate::server::client::Client;
use crate::shared::listener;
use crate::sys::epoll;
use crate::time::Time;

/// A listening socket, and whether connections may be waiting on it.
#[derive(Debug)]
pub(crate) struct Acceptor {
    listener: Listener,
    token: Token,
    /// An edge has come, and nothing since has said that the queue is empty.
    pub(crate) has_waiting: bool,
    /// The loop is told of new connections.
    is_offered: bool,
    /// Whose it is, if it is another slot's.
    pub(crate) neighbour: Option<Neighbour>,
}

/// A slot whose queue is looked after.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Neighbour {
    pub(crate) slot: usize,
    /// When connections were first seen waiting, since when nothing has said that the queue is empty.
    noticed: Time,
    /// When to look at them.
    due: Time,
}

#[derive(Debug)]
enum Listener {
    /// This slot's own, or another's.
    Tcp(TcpListener),
    /// Shared by all workers.
    SharedTcp(TcpListener),
    /// Shared by all workers.
    Unix(UnixListener),
}

/// How long a connection may wait in a neighbour's queue: times are cut to milliseconds, so this is more than one.
const PATIENCE: Duration = Duration::from_millis(2);

/// How long it may wait there for a worker that is idle and has fewer connections: that one waits for a processor, and
/// would go on to have fewer for as long as these connections are kept.
const PATIENCE_FOR_FEWER: Duration = Duration::from_millis(10);

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// None waits.
    Nothing,
    /// The one that waited has gone; there may be another.
    Gone,
    /// Descriptors or memory have run out; trying again at once would spin.
    Exhausted(io::Error),
    /// The listener itself fails, and will go on to.
    Broken(io::Error),
}

impl Acceptor {
    pub(crate) fn tcp(listener: StdTcpListener) -> Acceptor {
        Acceptor::new(Listener::Tcp(TcpListener::from_std(listener)))
    }

    pub(crate) fn shared_tcp(listener: StdTcpListener) -> Acceptor {
        Acceptor::new(Listener::SharedTcp(TcpListener::from_std(listener)))
    }

    /// One of another slot's, to look after.
    pub(crate) fn neighbour(slot: usize, socket: OwnedFd, now: Time) -> Acceptor {
        let listener = TcpListener::from_std(StdTcpListener::from(socket));
        let neighbour = Neighbour { slot, noticed: now, due: now + PATIENCE };
        Acceptor { neighbour: Some(neighbour), ..Acceptor::new(Listener::Tcp(listener)) }
    }

    pub(crate) fn unix(listener: StdUnixListener) -> Acceptor {
        Acceptor::new(Listener::Unix(UnixListener::from_std(listener)))
    }

    fn new(listener: Listener) -> Acceptor {
        Acceptor { listener, token: Token(0), has_waiting: false, is_offered: false, neighbour: None }
    }

    pub(crate) fn register(&mut self, poll: &Poll, token: Token) -> io::Result<()> {
        self.token = token;
        match &self.listener {
            Listener::Tcp(listener) | Listener::SharedTcp(listener) => epoll::watch_exclusively(poll, listener, token)?,
            Listener::Unix(listener) => epoll::watch_exclusively(poll, listener, token)?,
        }
        self.is_offered = true;
        // A queue that was inherited may hold connections since before.
        self.has_waiting = true;
        Ok(())
    }

    /// To be called before it is dropped: the registration belongs to the socket and not to this copy of it, and would
    /// go on to take the wake-ups that others are meant to get.
    pub(crate) fn deregister(&self, poll: &Poll) {
        let listener = match &self.listener {
            Listener::Tcp(listener) | Listener::SharedTcp(listener) => listener.as_fd(),
            Listener::Unix(listener) => listener.as_fd(),
        };
        // One that is not offered is not registered.
        let _ = epoll::forget(poll, listener);
    }

    /// An edge has come.
    pub(crate) fn notice(&mut self, now: Time) {
        if let Some(neighbour) = self.neighbour.as_mut().filter(|_| !self.has_waiting) {
            (neighbour.noticed, neighbour.due) = (now, now + PATIENCE);
        }
        self.has_waiting = true;
    }

    /// When there may be something to take.
    pub(crate) fn due(&self) -> Option<Time> {
        self.has_waiting.then_some(self.neighbour.map_or(Time::default(), |neighbour| neighbour.due))
    }

    /// Whether a connection may be taken now: from a neighbour's queue only if its worker is stalled, or has left the
    /// connection there for longer than a worker that turns its loop would, unless that
    /// worker is idle and has fewer.
    pub(crate) fn may_take(
        &mut self,
        now: Time,
        is_stalled: impl Fn(usize) -> bool,
        is_idle_with_fewer: impl Fn(usize) -> bool,
    ) -> bool {
        let Some(neighbour) = &mut self.neighbour else { return true };
        if is_stalled(neighbour.slot) {
            return true;
        }
        let is_due = neighbour.due <= now;
        if is_due && is_idle_with_fewer(neighbour.slot) && now < neighbour.noticed + PATIENCE_FOR_FEWER {
            neighbour.due = now + PATIENCE;
            return false;
        }
        is_due
    }

    /// As [`may_take`](Acceptor::may_take) where a queue is its own worker's alone for as long as there is one.
    pub(crate) fn may_take_unserved(&mut self, now: Time, is_served: impl Fn(usize) -> bool) -> bool {
        match &mut self.neighbour {
            Some(neighbour) if is_served(neighbour.slot) => {
                neighbour.due = now + PATIENCE_FOR_FEWER;
                // It is looked at again only as long as there is something.
                self.has_waiting = self.is_waited_for();
                false
            }
            _ => true,
        }
    }

    /// Takes part in the distribution of a shared listener's connections or, without room for them, leaves them to
    /// the other workers. A listener of the slot's own is left as it is: its connections wait.
    pub(crate) fn offer(&mut self, poll: &Poll, has_room: bool) {
        let listener = match &self.listener {
            Listener::Tcp(_) => return,
            Listener::SharedTcp(listener) => listener.as_fd(),
            Listener::Unix(listener) => listener.as_fd(),
        };
        if self.is_offered == has_room {
            return;
        }
        let done = match has_room {
            true => epoll::watch_exclusively(poll, listener, self.token),
            false => epoll::forget(poll, listener),
        };
        // A failure leaves it as it is, and the next change tries again.
        if done.is_ok() {
            self.is_offered = has_room;
            self.has_waiting = has_room;
        }
    }

    /// Whether other workers of the pool accept from the same socket.
    pub(crate) fn is_shared(&self) -> bool {
        !matches!(self.listener, Listener::Tcp(_))
    }

    /// Whether it is of this slot's own in an SO_REUSEPORT group.
    pub(crate) fn is_own(&self) -> bool {
        matches!(&self.listener, Listener::Tcp(_)) && self.neighbour.is_none()
    }

    /// Whether a connection waits, when [`accept`](Acceptor::accept) cannot tell.
    pub(crate) fn is_waited_for(&self) -> bool {
        let listener = match &self.listener {
            Listener::Tcp(listener) | Listener::SharedTcp(listener) => listener.as_fd(),
            Listener::Unix(listener) => listener.as_fd(),
        };
        let mut listener = [PollFd::new(listener, PollFlags::POLLIN)];
        poll(&mut listener, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    pub(crate) fn accept(&self) -> Result<(Client, Option<SocketAddr>), Refusal> {
        let accepted = match &self.listener {
            Listener::Tcp(listener) | Listener::SharedTcp(listener) => listener.accept().map(|(stream, peer)| {
                listener::never_linger(&stream);
                (Client::Tcp(stream), Some(peer))
            }),
            Listener::Unix(listener) => listener.accept().map(|(stream, _)| (Client::Unix(stream), None)),
        };
        accepted.map_err(|error| match error.raw_os_error() {
            _ if error.kind() == ErrorKind::WouldBlock => Refusal::Nothing,
            Some(code) if OF_THE_CONNECTION.contains(&code) => Refusal::Gone,
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => Refusal::Exhausted(error),
            _ => Refusal::Broken(error),
        })
    }
}

/// Errors that were pending on the new connection and end only that (accept(2), "Error handling").
const OF_THE_CONNECTION: [i32; 11] = [
    libc::EINTR,
    libc::ECONNABORTED,
    libc::EPERM,
    libc::EPROTO,
    libc::ENETDOWN,
    libc::ENOPROTOOPT,
    libc::EHOSTDOWN,
    libc::ENONET,
    libc::EHOSTUNREACH,
    libc::EOPNOTSUPP,
    libc::ENETUNREACH,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_neighbour_s_connection_is_taken_when_its_worker_does_not_come_for_it() {
        let socket = || StdTcpListener::bind("127.0.0.1:0").expect("a port is free").into();
        let at = |millis| Time::from_millis(1_000 + millis);
        for (stalls, is_idle_with_fewer, taken_at) in
            [(true, true, 0), (true, false, 0), (false, false, 2), (false, true, 10)]
        {
            let mut acceptor = Acceptor::neighbour(1, socket(), at(0));
            acceptor.notice(at(0));
            // It looks when it has said that it would, and no oftener.
            let (mut now, mut looks) = (at(0), 0_u64);
            while !acceptor.may_take(now, |_| stalls, |_| is_idle_with_fewer) {
                now = acceptor.due().expect("there is something");
                looks += 1;
            }
            assert_eq!((now, looks), (at(taken_at), taken_at / 2), "{stalls} {is_idle_with_fewer}");
        }
        assert!(Acceptor::tcp(StdTcpListener::from(socket())).may_take(at(0), |_| false, |_| true), "its own");
    }

    #[test]
    fn a_queue_that_is_its_worker_s_alone_is_taken_from_when_there_is_none() {
        let at = |millis: u64| Time::from_millis(1_000 + millis);
        let listener = StdTcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let mut acceptor = Acceptor::neighbour(1, listener.into(), at(0));
        acceptor.notice(at(0));
        assert!(!acceptor.may_take_unserved(at(0), |_| true));
        assert_eq!(acceptor.due(), None, "nothing waits");
        let _client = std::net::TcpStream::connect(address).expect("it listens");
        acceptor.notice(at(5));
        assert!(!acceptor.may_take_unserved(at(5), |_| true));
        assert_eq!(acceptor.due(), Some(at(15)), "somebody may be gone by then");
        assert!(acceptor.may_take_unserved(at(15), |_| false));
    }
}
