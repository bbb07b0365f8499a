//! The socket of a client. The only calls that read from and write to one are here, in `file.rs` (sendfile) and in
//! `upgrade.rs`.

use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::errno::Errno;
use nix::sys::socket::{recv, send, MsgFlags};
use socket2::SockRef;

use crate::server::access_log::LoggedConnection;
use crate::server::http::{TlsInfo, TrustedProxies, Via};
use crate::server::proxy::Header;
use crate::server::tls;
use crate::shared::config::ServerConfig;
use crate::sys;

/// nix does not know it.
const MORE: MsgFlags = MsgFlags::from_bits_retain(libc::MSG_MORE);

/// The socket of a client. No call on it blocks, whatever the flags of its file description are: another process may
/// have a copy of a socket that it has passed to this one.
#[derive(Debug)]
pub(crate) enum Client {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// Another process has passed it to this one.
    Taken {
        socket: OwnedFd,
        is_unix: bool,
    },
    Tls(Box<tls::Stream>),
}

impl Client {
    /// Begins with a handshake.
    ///
    /// # Errors
    ///
    /// If the library refuses its configuration.
    pub(crate) fn secure(self, endpoint: &Rc<tls::Endpoint>) -> io::Result<Client> {
        match self {
            Client::Tcp(stream) => Ok(Client::Tls(Box::new(tls::Stream::new(stream, Rc::clone(endpoint))?))),
            client => Ok(client),
        }
    }

    /// What is known about its TLS.
    #[inline]
    pub(crate) fn tls_info(&self) -> Option<&TlsInfo> {
        match self {
            Client::Tls(stream) => stream.info(),
            _ => None,
        }
    }

    /// Whether its handshake is in progress, and if so, what is to come of it.
    pub(crate) fn handshake(&self) -> Option<tls::Awaited> {
        match self {
            Client::Tls(stream) => stream.handshake(),
            _ => None,
        }
    }

    /// Ends a handshake in favour of another.
    pub(crate) fn end_handshake(&mut self) {
        if let Client::Tls(stream) = self {
            stream.give_way();
        }
    }

    /// A header of the PROXY protocol comes before the handshake, if there is one.
    pub(crate) fn await_header(&mut self) {
        if let Client::Tls(stream) = self {
            stream.await_header();
        }
    }

    /// The header has come, and these bytes after it. Returns whether they belong to a handshake.
    pub(crate) fn begin_tls(&mut self, bytes: &[u8]) -> bool {
        match self {
            Client::Tls(stream) => {
                stream.begin(bytes);
                true
            }
            _ => {
                let _ = bytes;
                false
            }
        }
    }

    /// Whether it has something to send besides responses.
    #[inline]
    pub(crate) fn wants_write(&self) -> bool {
        match self {
            Client::Tls(stream) => stream.wants_write(),
            _ => false,
        }
    }

    /// Whether TLS has refused the client, which may still have to read why.
    pub(crate) fn is_refused(&self) -> bool {
        match self {
            Client::Tls(stream) => stream.is_refused(),
            _ => false,
        }
    }

    /// Whether a read may find more without another event, if the socket's own state does not tell.
    #[inline]
    pub(crate) fn has_more(&self) -> Option<bool> {
        match self {
            Client::Tls(stream) => Some(stream.has_more()),
            _ => None,
        }
    }

    /// The memory that it holds in buffers.
    #[inline]
    pub(crate) fn held(&self) -> usize {
        match self {
            Client::Tls(stream) => stream.held(),
            _ => 0,
        }
    }

    /// Tells the client that nothing more will come, if its protocol has a word for that.
    #[inline]
    pub(crate) fn send_close_notify(&mut self) {
        if let Client::Tls(stream) = self {
            stream.give_up();
            stream.send_close_notify();
        }
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let wanted = Interest::READABLE | Interest::WRITABLE;
        match self {
            Client::Tcp(stream) => stream.register(registry, token, wanted),
            Client::Unix(stream) => stream.register(registry, token, wanted),
            Client::Taken { socket, .. } => SourceFd(&socket.as_raw_fd()).register(registry, token, wanted),
            Client::Tls(stream) => stream.socket().register(registry, token, wanted),
        }
    }

    pub(crate) fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Client::Tcp(stream) => stream.deregister(registry),
            Client::Unix(stream) => stream.deregister(registry),
            Client::Taken { socket, .. } => SourceFd(&socket.as_raw_fd()).deregister(registry),
            Client::Tls(stream) => stream.socket().deregister(registry),
        }
    }

    /// Whether another process has passed it to this one, and may have a copy.
    #[inline]
    pub(crate) fn is_taken(&self) -> bool {
        matches!(self, Client::Taken { .. })
    }

    /// The socket, if nothing lies between it and HTTP. One look at the kind per call: a match within the loops of the
    /// calls below cost plain HTTP thirty instructions a request.
    #[inline]
    fn plain(&self) -> Option<RawFd> {
        match self {
            Client::Tcp(stream) => Some(stream.as_raw_fd()),
            Client::Unix(stream) => Some(stream.as_raw_fd()),
            Client::Taken { socket, .. } => Some(socket.as_raw_fd()),
            Client::Tls(_) => None,
        }
    }

    #[inline]
    pub(crate) fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self.plain() {
            Some(socket) => Ok(recv(socket, bytes, MsgFlags::MSG_DONTWAIT)?),
            None => self.read_secured(bytes),
        }
    }

    #[inline(never)]
    fn read_secured(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Client::Tls(stream) => stream.read(bytes),
            _ => Err(ErrorKind::Unsupported.into()),
        }
    }

    /// Whether there are bytes to read.
    pub(crate) fn has_bytes(&self) -> bool {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        recv(self.as_fd().as_raw_fd(), &mut [0], flags).is_ok_and(|count| count > 0)
    }

    /// How many bytes the kernel holds that the client has not read or acknowledged; on a Unix socket, including the
    /// kernel's overhead.
    pub(crate) fn unsent(&self) -> io::Result<usize> {
        sys::fds::unsent(self)
    }

    /// How long nothing has come from the client's machine; that of a Unix socket is this one.
    pub(crate) fn silent_for(&self) -> io::Result<Duration> {
        match self {
            Client::Unix(_) | Client::Taken { is_unix: true, .. } => Ok(Duration::ZERO),
            _ => sys::fds::silent_for(self),
        }
    }

    /// Writes until done, or until the socket accepts no more; returns how much it accepted.
    #[inline]
    pub(crate) fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.plain() {
            Some(socket) => write(socket, bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL),
            None => self.write_secured(bytes, false),
        }
    }

    /// As [`write_some`](Client::write_some), if another call will follow. The kernel may wait for that, and put both
    /// into one packet (`MSG_MORE` in send(2)).
    pub(crate) fn write_beginning(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.plain() {
            Some(socket) => write(socket, bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL | MORE),
            None => self.write_secured(bytes, true),
        }
    }

    #[inline(never)]
    fn write_secured(&mut self, bytes: &[u8], has_more: bool) -> io::Result<usize> {
        match self {
            Client::Tls(stream) => stream.write(bytes, has_more),
            _ => Err(ErrorKind::Unsupported.into()),
        }
    }

    pub(crate) fn shutdown(&mut self, how: Shutdown) -> io::Result<()> {
        if let Client::Tls(stream) = self {
            return stream.shutdown(how);
        }
        SockRef::from(&*self).shutdown(how)
    }
}

/// [`Client::write_some`] on a socket.
#[inline]
fn write(socket: RawFd, bytes: &[u8], flags: MsgFlags) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match send(socket, &bytes[sent..], flags) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => sent += count,
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => break,
            // The socket has failed since the last events, so the next events will report it. What it accepted
            // before counts.
            Err(_) if sent > 0 => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(sent)
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Client::Tcp(stream) => stream.as_fd(),
            Client::Unix(stream) => stream.as_fd(),
            Client::Taken { socket, .. } => socket.as_fd(),
            Client::Tls(stream) => stream.as_fd(),
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
    Logged(Box<LoggedConnection>),
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
    logged: Option<Box<LoggedConnection>>,
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
            Peer::Logged(logged) => logged.peer,
            Peer::Proxied(proxied) => proxied.peer,
        }
    }

    /// Writes [`address`](Peer::address) to its destination. Copying a value that was just written would stall the
    /// processor until it is stored.
    #[inline]
    pub(crate) fn tell(&self, peer: &mut Option<SocketAddr>) {
        match self {
            Peer::V4(address) => *peer = Some(SocketAddr::V4(*address)),
            _ => *peer = self.other_address(),
        }
    }

    /// Out of line, so that the address of nearly all clients is found by one comparison.
    #[inline(never)]
    fn other_address(&self) -> Option<SocketAddr> {
        self.address()
    }

    /// The proxies that may be between the peer and the client.
    pub(crate) fn via<'c>(&self, config: &'c ServerConfig) -> Via<'c> {
        let source = match self {
            Peer::Proxied(proxied) => proxied.source,
            _ => None,
        };
        Via { trust: TrustedProxies { proxies: &config.proxies, header: config.forwarded_header }, source }
    }

    /// The peer of a new connection, which waits for a header first if the configuration says so.
    pub(crate) fn expected(address: Option<SocketAddr>, config: &ServerConfig) -> Peer {
        let mut peer = Peer::from(address);
        if config.begins_with_header(address) {
            peer.await_header();
        }
        peer
    }

    /// A client whose connection began with a header, which is complete.
    pub(crate) fn after_header(peer: Option<SocketAddr>, source: Option<SocketAddr>) -> Peer {
        Peer::Proxied(Box::new(Proxied { peer, source, awaits: Awaits::Nothing, logged: None }))
    }

    /// What another process must know about the header: whether it is still to come, and the client that it has named.
    /// `None` while a part of it is skipped.
    pub(crate) fn header(&self) -> Option<(bool, Option<SocketAddr>)> {
        match self {
            Peer::Proxied(proxied) => match proxied.awaits {
                Awaits::All => Some((true, None)),
                Awaits::Skip(_) => None,
                Awaits::Nothing => Some((false, proxied.source)),
            },
            _ => Some((false, None)),
        }
    }

    /// The first bytes belong to a header.
    pub(crate) fn await_header(&mut self) {
        let peer = self.address();
        *self = Peer::Proxied(Box::new(Proxied { peer, source: None, awaits: Awaits::All, logged: None }));
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
    #[inline]
    pub(crate) fn begin_logging(&mut self) -> &mut LoggedConnection {
        match self {
            Peer::Logged(logged) => logged,
            _ => self.begin_logging_otherwise(),
        }
    }

    #[inline(never)]
    fn begin_logging_otherwise(&mut self) -> &mut LoggedConnection {
        if let Peer::Unix | Peer::V4(_) | Peer::V6(_) = self {
            *self = Peer::Logged(LoggedConnection::new(self.address(), None));
        }
        match self {
            Peer::Logged(logged) => logged,
            Peer::Proxied(proxied) => {
                proxied.logged.get_or_insert_with(|| LoggedConnection::new(proxied.peer, proxied.source))
            }
            _ => unreachable!("it was made a moment ago"),
        }
    }

    /// What the access log already knows about the connection.
    #[inline]
    pub(crate) fn logged(&mut self) -> Option<&mut LoggedConnection> {
        match self {
            Peer::Logged(logged) => Some(logged),
            Peer::Proxied(proxied) => proxied.logged.as_deref_mut(),
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
