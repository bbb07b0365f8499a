//! The socket of a client. The only calls that read from and write to one are here, in `file.rs` (sendfile) and in
//! `upgrade.rs`.

use std::io::{self, ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use socket2::SockRef;

use crate::server::access_log::Track;
use crate::server::answer::upgrade::Socket;
use crate::server::http::{Trust, Via};
use crate::server::proxy::Header;
use crate::shared::config::ServerConfig;
use crate::sys;

/// The socket of a client, non-blocking.
#[derive(Debug)]
pub(crate) enum Client {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Client {
    fn source(&mut self) -> &mut dyn Source {
        match self {
            Client::Tcp(stream) => stream,
            Client::Unix(stream) => stream,
        }
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.source().register(registry, token, Interest::READABLE | Interest::WRITABLE)
    }

    pub(crate) fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.source().deregister(registry)
    }

    pub(crate) fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Client::Tcp(stream) => stream.read(bytes),
            Client::Unix(stream) => stream.read(bytes),
        }
    }

    /// Whether there are bytes to read.
    pub(crate) fn has_bytes(&self) -> bool {
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
        SockRef::from(self).recv_with_flags(&mut [MaybeUninit::uninit()], flags).is_ok_and(|count| count > 0)
    }

    /// How many bytes the kernel holds that the client has not read or acknowledged; on a Unix socket, including the
    /// kernel's overhead.
    pub(crate) fn unsent(&self) -> io::Result<usize> {
        sys::fds::unsent(self)
    }

    /// How long nothing has come from the client's machine; that of a Unix socket is this one.
    pub(crate) fn silent_for(&self) -> io::Result<Duration> {
        match self {
            Client::Tcp(stream) => sys::fds::silent_for(stream),
            Client::Unix(_) => Ok(Duration::ZERO),
        }
    }

    /// Writes until done, or until the socket accepts no more; returns how much it accepted.
    #[inline]
    pub(crate) fn write_some(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut sent = 0;
        while sent < bytes.len() {
            let written = match self {
                Client::Tcp(stream) => (&mut &*stream).write(&bytes[sent..]),
                Client::Unix(stream) => (&mut &*stream).write(&bytes[sent..]),
            };
            match written {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // The socket has failed since the last events, so the next events will report it. What it accepted
                // before counts.
                Err(_) if sent > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(sent)
    }

    /// As [`write_some`](Client::write_some), if another call will follow. The kernel may wait for that, and put both
    /// into one packet (`MSG_MORE` in send(2)).
    pub(crate) fn write_beginning(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut sent = 0;
        while sent < bytes.len() {
            match SockRef::from(self).send_with_flags(&bytes[sent..], libc::MSG_MORE | libc::MSG_NOSIGNAL) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(sent)
    }

    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Client::Tcp(stream) => stream.shutdown(how),
            Client::Unix(stream) => stream.shutdown(how),
        }
    }

    /// The socket as a type of the standard library, still non-blocking.
    pub(crate) fn into_socket(self) -> Socket {
        match self {
            Client::Tcp(stream) => Socket::Tcp(OwnedFd::from(stream).into()),
            Client::Unix(stream) => Socket::Unix(OwnedFd::from(stream).into()),
        }
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Client::Tcp(stream) => stream.as_fd(),
            Client::Unix(stream) => stream.as_fd(),
        }
    }
}

/// The address of a client in half the space. Most addresses are IPv4, and all idle connections keep one.
#[derive(Debug)]
pub(crate) enum Peer {
    Unix,
    V4(SocketAddrV4),
    V6(Box<SocketAddrV6>),
    /// There is an access log; this is what it knows about the connection, including the address.
    Logged(Box<Track>),
    /// A proxy names the client before the first request.
    Proxied(Box<Proxied>),
}

/// A connection that begins with a header of the PROXY protocol.
#[derive(Debug)]
pub(crate) struct Proxied {
    /// The proxy.
    peer: Option<SocketAddr>,
    /// The client for which it has made the connection, if the header says so.
    source: Option<SocketAddr>,
    awaits: Awaits,
    track: Option<Box<Track>>,
}

/// The part of the header that is still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaits {
    All,
    /// This many bytes without useful information.
    Skip(usize),
    Nothing,
}

impl Peer {
    /// `None` on a Unix socket.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match self {
            Peer::Unix => None,
            Peer::V4(address) => Some(SocketAddr::V4(*address)),
            Peer::V6(address) => Some(SocketAddr::V6(**address)),
            Peer::Logged(track) => track.peer,
            Peer::Proxied(proxied) => proxied.peer,
        }
    }

    /// Writes [`address`](Peer::address) to its destination. Copying a value that was just written would stall the
    /// processor until it is stored.
    #[inline]
    pub(crate) fn tell(&self, peer: &mut Option<SocketAddr>) {
        match self {
            Peer::V4(address) => *peer = Some(SocketAddr::V4(*address)),
            _ => *peer = self.address(),
        }
    }

    /// The proxies that may be between the peer and the client.
    pub(crate) fn via<'c>(&self, config: &'c ServerConfig) -> Via<'c> {
        let source = match self {
            Peer::Proxied(proxied) => proxied.source,
            _ => None,
        };
        Via { trust: Trust { proxies: &config.proxies, header: config.forwarded_header }, source }
    }

    /// The first bytes belong to a header.
    pub(crate) fn await_header(&mut self) {
        let peer = self.address();
        *self = Peer::Proxied(Box::new(Proxied { peer, source: None, awaits: Awaits::All, track: None }));
    }

    /// Whether the next bytes belong to a header.
    #[inline]
    pub(crate) fn awaits_header(&self) -> bool {
        matches!(self, Peer::Proxied(proxied) if proxied.awaits != Awaits::Nothing)
    }

    /// How many bytes of the header must be skipped, once that is known.
    pub(crate) fn left_to_skip(&self) -> Option<usize> {
        match self {
            Peer::Proxied(proxied) => match proxied.awaits {
                Awaits::All => None,
                Awaits::Skip(left) => Some(left),
                Awaits::Nothing => Some(0),
            },
            _ => Some(0),
        }
    }

    /// Stores the contents of the header; all of it must be skipped now.
    pub(crate) fn learn(&mut self, header: &Header) {
        if let Peer::Proxied(proxied) = self {
            (proxied.source, proxied.awaits) = (header.source, Awaits::Skip(header.len + header.skip));
        }
    }

    /// Skips this many bytes of the header; returns whether those were all.
    pub(crate) fn skipped(&mut self, bytes: usize) -> bool {
        let left = self.left_to_skip().unwrap_or_default().saturating_sub(bytes);
        if let Peer::Proxied(proxied) = self {
            proxied.awaits = if left == 0 { Awaits::Nothing } else { Awaits::Skip(left) };
        }
        left == 0
    }

    /// What the access log knows about the connection; created if necessary.
    pub(crate) fn track(&mut self) -> &mut Track {
        if let Peer::Unix | Peer::V4(_) | Peer::V6(_) = self {
            *self = Peer::Logged(Track::new(self.address(), None));
        }
        match self {
            Peer::Logged(track) => track,
            Peer::Proxied(proxied) => proxied.track.get_or_insert_with(|| Track::new(proxied.peer, proxied.source)),
            _ => unreachable!("it was made a moment ago"),
        }
    }

    /// What the access log already knows about the connection.
    #[inline]
    pub(crate) fn logged(&mut self) -> Option<&mut Track> {
        match self {
            Peer::Logged(track) => Some(track),
            Peer::Proxied(proxied) => proxied.track.as_deref_mut(),
            _ => None,
        }
    }
}

impl From<Option<SocketAddr>> for Peer {
    fn from(address: Option<SocketAddr>) -> Peer {
        match address {
            None => Peer::Unix,
            Some(SocketAddr::V4(address)) => Peer::V4(address),
            Some(SocketAddr::V6(address)) => Peer::V6(Box::new(address)),
        }
    }
}
