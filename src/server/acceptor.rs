//! A listening socket in a worker's loop.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::rc::Rc;
use std::time::Duration;

use mio::net::{TcpListener, UnixListener};
use mio::{Poll, Token};
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};

use crate::server::client::Client;
use crate::server::station::Station;
use crate::server::tls::Endpoint;
use crate::shared::listener;
use crate::sys::{self, epoll};
use crate::time::Time;

/// A listening socket, and whether connections may be waiting on it.
#[derive(Debug)]
pub(crate) struct Acceptor {
    listener: Listener,
    token: Token,
    /// An edge has arrived, and nothing has shown since that the queue is empty.
    pub(crate) has_waiting: bool,
    /// Whether the loop gets events for new connections.
    is_offered: bool,
    /// Set if its connections begin with a handshake of TLS.
    endpoint: Option<Rc<Endpoint>>,
    /// Set if the socket belongs to another slot.
    pub(crate) neighbour: Option<Neighbour>,
}

/// A slot whose queue this worker looks after.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Neighbour {
    pub(crate) slot: usize,
    /// When connections were first seen waiting, if nothing has shown since that the queue is empty.
    noticed: Time,
    /// When to check them.
    due: Time,
}

#[derive(Debug)]
enum Listener {
    /// A socket of this slot, or of another one.
    Tcp(TcpListener),
    /// Shared by all workers.
    SharedTcp(TcpListener),
    /// Shared by all workers.
    Unix(UnixListener),
}

/// How long a connection may wait in a neighbour's queue. Times are truncated to milliseconds, so this means more than
/// one.
const YIELD: Duration = Duration::from_millis(2);

/// How long a connection may wait there for a worker that is idle and has fewer connections. That worker waits for a
/// processor, and would otherwise keep having fewer connections as long as these last.
const YIELD_TO_FEWER: Duration = Duration::from_millis(10);

/// No queue is longer, unless both the backlog and net.core.somaxconn are far beyond their defaults.
const WAITING_MAX: usize = 1 << 15;

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// No connection waits.
    Nothing,
    /// The waiting connection has gone; there may be another.
    Gone,
    /// Descriptors or memory have run out. Trying again at once would spin.
    Exhausted(io::Error),
    /// The listener itself fails, and will fail again.
    Broken(io::Error),
}

impl Acceptor {
    pub(crate) fn tcp(listener: StdTcpListener) -> Acceptor {
        Acceptor::new(Listener::Tcp(TcpListener::from_std(listener)))
    }

    pub(crate) fn shared_tcp(listener: StdTcpListener) -> Acceptor {
        Acceptor::new(Listener::SharedTcp(TcpListener::from_std(listener)))
    }

    /// A socket of another slot, to look after.
    pub(crate) fn neighbour(slot: usize, socket: OwnedFd, now: Time) -> Acceptor {
        let listener = TcpListener::from_std(StdTcpListener::from(socket));
        let neighbour = Neighbour { slot, noticed: now, due: now + YIELD };
        Acceptor { neighbour: Some(neighbour), ..Acceptor::new(Listener::Tcp(listener)) }
    }

    pub(crate) fn unix(listener: StdUnixListener) -> Acceptor {
        Acceptor::new(Listener::Unix(UnixListener::from_std(listener)))
    }

    fn new(listener: Listener) -> Acceptor {
        Acceptor { listener, token: Token(0), has_waiting: false, is_offered: false, endpoint: None, neighbour: None }
    }

    /// Whether its connections begin with a handshake depends on its address.
    pub(crate) fn secured_by(mut self, endpoint: Option<&Rc<Endpoint>>) -> Acceptor {
        let address = match &self.listener {
            Listener::Tcp(listener) | Listener::SharedTcp(listener) => listener.local_addr().ok(),
            Listener::Unix(_) => None,
        };
        self.endpoint = endpoint.filter(|endpoint| address.is_some_and(|address| endpoint.is_for(address))).cloned();
        self
    }

    /// Whether its connections begin with a handshake of TLS.
    pub(crate) fn is_secured(&self) -> bool {
        self.endpoint.is_some()
    }

    pub(crate) fn register(&mut self, poll: &Poll, token: Token) -> io::Result<()> {
        self.token = token;
        match &self.listener {
            Listener::Tcp(listener) | Listener::SharedTcp(listener) => epoll::watch_exclusively(poll, listener, token)?,
            Listener::Unix(listener) => epoll::watch_exclusively(poll, listener, token)?,
        }
        self.is_offered = true;
        // An inherited queue may already hold connections.
        self.has_waiting = true;
        Ok(())
    }

    /// Must be called before this is dropped. The registration belongs to the socket and not to this copy, and would
    /// still consume the wake-ups meant for others.
    pub(crate) fn deregister(&self, poll: &Poll) {
        let listener = match &self.listener {
            Listener::Tcp(listener) | Listener::SharedTcp(listener) => listener.as_fd(),
            Listener::Unix(listener) => listener.as_fd(),
        };
        // A socket that is not offered is not registered.
        let _ = epoll::forget(poll, listener);
    }

    /// An edge has arrived.
    pub(crate) fn notice(&mut self, now: Time) {
        if let Some(neighbour) = self.neighbour.as_mut().filter(|_| !self.has_waiting) {
            (neighbour.noticed, neighbour.due) = (now, now + YIELD);
        }
        self.has_waiting = true;
    }

    /// When there may be a connection to accept.
    pub(crate) fn due(&self) -> Option<Time> {
        self.has_waiting.then_some(self.neighbour.map_or(Time::default(), |neighbour| neighbour.due))
    }

    /// Whether to accept a connection now, given what other workers report.
    pub(crate) fn may_take_now(&mut self, station: &Station<'_>, now: Time) -> bool {
        match station.is_sticky() {
            true => self.may_take_unserved(now, |slot| station.is_served(slot)),
            false => self.may_take(now, |slot| station.is_stalled(slot, now), |slot| station.is_idle_with_fewer(slot)),
        }
    }

    /// Whether to accept a connection now. From a neighbour's queue only if its worker is stalled, or has left the
    /// connection there for longer than a worker does whose loop turns, unless that worker is idle and has fewer
    /// connections.
    fn may_take(
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
        if is_due && is_idle_with_fewer(neighbour.slot) && now < neighbour.noticed + YIELD_TO_FEWER {
            neighbour.due = now + YIELD;
            return false;
        }
        is_due
    }

    /// As [`may_take`](Acceptor::may_take), if a queue belongs to its own worker alone for as long as there is one.
    fn may_take_unserved(&mut self, now: Time, is_served: impl Fn(usize) -> bool) -> bool {
        match &mut self.neighbour {
            Some(neighbour) if is_served(neighbour.slot) => {
                neighbour.due = now + YIELD_TO_FEWER;
                // Check again only as long as connections wait.
                self.has_waiting = self.is_waited_for();
                false
            }
            _ => true,
        }
    }

    /// Has the kernel wake this worker for new connections, or leave them to others.
    ///
    /// A shared listener is watched if this worker has space, and otherwise left to the other workers. A neighbour's is
    /// not watched while connections are known to wait there: this worker will check them when they are due, and until
    /// then each further connection would wake it for nothing. This slot's own listener is always watched: its
    /// connections wait.
    pub(crate) fn offer(&mut self, poll: &Poll, has_room: bool) {
        let (listener, is_wanted) = match &self.listener {
            Listener::Tcp(_) if self.neighbour.is_none() => return,
            Listener::Tcp(listener) => (listener.as_fd(), !self.has_waiting),
            Listener::SharedTcp(listener) => (listener.as_fd(), has_room),
            Listener::Unix(listener) => (listener.as_fd(), has_room),
        };
        if self.is_offered == is_wanted {
            return;
        }
        let done = match is_wanted {
            true => epoll::watch_exclusively(poll, listener, self.token),
            false => epoll::forget(poll, listener),
        };
        // After a failure nothing has changed, and the next change tries again.
        if done.is_err() {
            return;
        }
        self.is_offered = is_wanted;
        if self.is_shared() {
            // The kernel may have woken only this worker for what waits already.
            self.has_waiting = has_room || self.has_waiting && self.is_waited_for();
        }
    }

    /// Whether other workers of the pool accept from the same socket.
    pub(crate) fn is_shared(&self) -> bool {
        !matches!(self.listener, Listener::Tcp(_))
    }

    /// Whether it is this slot's own socket in a SO_REUSEPORT group.
    pub(crate) fn is_own(&self) -> bool {
        matches!(&self.listener, Listener::Tcp(_)) && self.neighbour.is_none()
    }

    /// Whether a connection waits. Also true if poll(2) cannot tell, as when a signal has just come, since no event
    /// would announce a connection that is left.
    pub(crate) fn is_waited_for(&self) -> bool {
        let listener = match &self.listener {
            Listener::Tcp(listener) | Listener::SharedTcp(listener) => listener.as_fd(),
            Listener::Unix(listener) => listener.as_fd(),
        };
        let mut listener = [PollFd::new(listener, PollFlags::POLLIN)];
        poll(&mut listener, PollTimeout::ZERO).map_or(true, |ready| ready > 0)
    }

    /// The number of connections that wait, or more if the kernel does not say.
    pub(crate) fn waiting(&self) -> usize {
        let waiting = match &self.listener {
            Listener::Tcp(listener) | Listener::SharedTcp(listener) => sys::fds::waiting(listener).ok(),
            Listener::Unix(_) => None,
        };
        waiting.and_then(|waiting| usize::try_from(waiting).ok()).unwrap_or(WAITING_MAX)
    }

    /// Accepts the next connection, of which an event has told if `is_announced`. Otherwise asks first whether there is
    /// one: accept4(2) allocates a socket before it looks, so in vain it costs ten times as much as poll(2).
    pub(crate) fn accept(&self, is_announced: bool) -> Result<(Client, Option<SocketAddr>), Refusal> {
        if !is_announced && !self.is_waited_for() {
            return Err(Refusal::Nothing);
        }
        let accepted = match &self.listener {
            Listener::Tcp(listener) | Listener::SharedTcp(listener) => listener.accept().map(|(stream, peer)| {
                listener::never_linger(&stream);
                (Client::Tcp(stream), Some(peer))
            }),
            Listener::Unix(listener) => listener.accept().map(|(stream, _)| (Client::Unix(stream), None)),
        };
        let accepted = match (&self.endpoint, accepted) {
            (Some(endpoint), Ok((client, peer))) => {
                return client.secure(endpoint).map(|client| (client, peer)).map_err(|error| {
                    log::warn!("dropped a connection: cannot begin TLS: {error}");
                    Refusal::Gone
                });
            }
            (_, accepted) => accepted,
        };
        accepted.map_err(|error| match error.raw_os_error() {
            _ if error.kind() == ErrorKind::WouldBlock => Refusal::Nothing,
            Some(code) if OF_THE_CONNECTION.contains(&code) => Refusal::Gone,
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => Refusal::Exhausted(error),
            _ => Refusal::Broken(error),
        })
    }
}

/// Errors that were pending on the new connection and only end that connection (accept(2), "Error handling").
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
            // It checks when it said that it would, and no more often.
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
    fn a_neighbour_s_queue_wakes_nobody_while_connections_are_known_to_wait_there() {
        let listener = StdTcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let mut poll = Poll::new().expect("epoll");
        let is_woken = |poll: &mut Poll| {
            let mut events = mio::Events::with_capacity(4);
            poll.poll(&mut events, Some(Duration::ZERO)).expect("epoll");
            !events.is_empty()
        };
        let connect = || std::net::TcpStream::connect(address).expect("it listens");
        let mut acceptor = Acceptor::neighbour(1, listener.into(), Time::default());
        acceptor.register(&poll, Token(1)).expect("a socket");
        acceptor.has_waiting = false;
        let _first = connect();
        assert!(is_woken(&mut poll));
        acceptor.notice(Time::default());
        acceptor.offer(&poll, true);
        let _second = connect();
        assert!(!is_woken(&mut poll), "it will check anyway");
        acceptor.accept(true).expect("the first");
        acceptor.has_waiting = false;
        acceptor.offer(&poll, true);
        assert!(is_woken(&mut poll), "the second waits");
        acceptor.accept(false).expect("the second");
        acceptor.offer(&poll, true);
        assert!(!is_woken(&mut poll));
        let _third = connect();
        assert!(is_woken(&mut poll));
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
        // The kernel may be behind with what ends a handshake, of which the client knows.
        while !acceptor.is_waited_for() {
            std::thread::yield_now();
        }
        acceptor.notice(at(5));
        assert!(!acceptor.may_take_unserved(at(5), |_| true));
        assert_eq!(acceptor.due(), Some(at(15)), "somebody may be gone by then");
        assert!(acceptor.may_take_unserved(at(15), |_| false));
    }
}
