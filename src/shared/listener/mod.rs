//! Reserves addresses in the parent, and makes a slot's sockets in its worker. All socket options are set here.

mod admin;
mod given;
mod inspect;
mod options;
mod recorded;
mod slot;
mod soundness;
mod udp;
mod unix;

use std::collections::HashSet;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::process;

use socket2::{Domain, Protocol, Socket, Type};

use crate::error::{Error, Result};
use crate::shared::config::Address;

pub(crate) use self::admin::AdminListener;
pub(crate) use self::given::Given;
pub(crate) use self::inspect::is_listening;
use self::inspect::{inspect, restore, unrestored};
use self::options::tune;
pub(crate) use self::options::{keep_alive, never_linger, prepare, reset_at_close};
pub(crate) use self::slot::{own, SlotSockets};
use self::soundness::Expected;
pub(crate) use self::udp::reserve_udp;
use self::udp::ReservedUdp;
pub(crate) use self::unix::ReservedUnix;

/// An address that the parent has bound for as long as the pool lives.
#[derive(Debug)]
pub(crate) enum Reserved {
    Tcp(ReservedTcp),
    Unix(ReservedUnix),
    Given(Given),
    /// UDP addresses come last.
    Udp(ReservedUdp),
}

/// Reserves all addresses, or none. An address that another pool hands over, found by its text, is not bound again.
///
/// # Errors
///
/// [`Error::Bind`] names the first address that cannot be bound.
pub(crate) fn reserve(
    addresses: &[Address],
    backlog: u32,
    unix_mode: u32,
    mut handed_over: impl FnMut(&str) -> Option<OwnedFd>,
) -> Result<Vec<Reserved>> {
    // An IPv6 wildcard also takes IPv4 connections, unless an IPv4 address with the same port was configured.
    let v4_ports: HashSet<u16> = addresses.iter().filter_map(Address::ipv4_port).collect();
    let mut reserve = |address: &Address| match (address, handed_over(&address.to_string())) {
        (Address::Any(_) | Address::Tcp(_), Some(fd)) => ReservedTcp::from_fd(fd).map(Reserved::Tcp),
        (Address::Any(port), None) => ReservedTcp::any(*port, v4_ports.contains(port)).map(Reserved::Tcp),
        (Address::Tcp(tcp), None) => ReservedTcp::new(*tcp, v4_ports.contains(&tcp.port())).map(Reserved::Tcp),
        (Address::Unix(path), Some(fd)) => ReservedUnix::from_fd(path, fd).map(Reserved::Unix),
        (Address::Unix(path), None) => ReservedUnix::listen(path, backlog, unix_mode).map(Reserved::Unix),
    };
    let reserved =
        |address: &Address| reserve(address).map_err(|source| Error::Bind { address: address.to_string(), source });
    addresses.iter().map(reserved).collect()
}

impl fmt::Display for Reserved {
    /// Formats the address, with its real port, as a URL if there is one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reserved::Tcp(tcp) => write!(f, "{}://{}", if tcp.is_tls { "https" } else { "http" }, tcp.address),
            Reserved::Unix(unix) => write!(f, "unix:{}", unix.path.display()),
            Reserved::Given(given) => given.fmt(f),
            Reserved::Udp(udp) => udp.fmt(f),
        }
    }
}

/// A TCP port that is bound but not listened on.
///
/// The port is bound *without* `SO_REUSEPORT`, so a second instance fails instead of silently sharing the port. The
/// option is set afterwards, so that the workers' sockets can join. `SO_REUSEADDR` is on while binding, so that
/// connections in TIME_WAIT do not matter. It is off afterwards, since two sockets that both have it may share a port
/// on which neither listens.
#[derive(Debug)]
pub(crate) struct ReservedTcp {
    address: SocketAddr,
    only_v6: bool,
    socket: Socket,
    /// Whether connections begin with a handshake of TLS.
    is_tls: bool,
}

impl ReservedTcp {
    fn new(address: SocketAddr, only_v6: bool) -> io::Result<ReservedTcp> {
        let socket = tcp_socket(address, only_v6)?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.set_reuse_port(true)?;
        socket.set_reuse_address(false)?;
        let address = socket.local_addr()?.as_socket().ok_or(ErrorKind::AddrNotAvailable)?;
        Ok(ReservedTcp { address, only_v6, socket, is_tls: false })
    }

    /// A port that another pool has reserved.
    fn from_fd(fd: OwnedFd) -> io::Result<ReservedTcp> {
        let socket = Socket::from(fd);
        let address = socket.local_addr()?.as_socket().ok_or(ErrorKind::AddrNotAvailable)?;
        let only_v6 = address.is_ipv6() && socket.only_v6()?;
        Ok(ReservedTcp { address, only_v6, socket, is_tls: false })
    }

    /// All interfaces: IPv6 and IPv4 in one socket, or IPv4 alone if the kernel has no IPv6.
    fn any(port: u16, only_v6: bool) -> io::Result<ReservedTcp> {
        match ReservedTcp::new((Ipv6Addr::UNSPECIFIED, port).into(), only_v6) {
            Err(error) if has_no_ipv6(&error) => ReservedTcp::new((Ipv4Addr::UNSPECIFIED, port).into(), false),
            result => result,
        }
    }

    /// Makes a slot's own listening socket. Runs in the worker, as the user that reserved the address, since the kernel
    /// only lets sockets of one user share a port.
    pub(crate) fn listen(&self, backlog: u32) -> io::Result<TcpListener> {
        let socket = tcp_socket(self.address, self.only_v6)?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        // Accepted sockets inherit these options.
        tune(&socket)?;
        socket.bind(&self.address.into())?;
        socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
        socket.set_nonblocking(true)?;
        Ok(socket.into())
    }
}

fn tcp_socket(address: SocketAddr, only_v6: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // Set in both cases, since the default depends on the machine (`net.ipv6.bindv6only`).
        socket.set_only_v6(only_v6)?;
    }
    Ok(socket)
}

fn has_no_ipv6(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EAFNOSUPPORT) || error.kind() == ErrorKind::AddrNotAvailable
}

/// A listener that all workers share.
#[derive(Debug)]
pub(crate) enum Shared {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Reserved {
    /// The socket itself: bound, or listening if all workers share it. `None` for a UDP address, which only the sockets
    /// of the slots hold.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Reserved::Tcp(tcp) => Some(tcp.socket.as_fd()),
            Reserved::Unix(unix) => Some(unix.fd()),
            Reserved::Given(given) => Some(given.socket.as_fd()),
            Reserved::Udp(_) => None,
        }
    }

    /// Whether all workers share the socket.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self, Reserved::Unix(_) | Reserved::Given(_))
    }

    /// A copy for a worker of a socket that all workers share; `None` if each worker has its own.
    pub(crate) fn shared(&self) -> io::Result<Option<Shared>> {
        match self {
            Reserved::Tcp(_) | Reserved::Udp(_) => Ok(None),
            Reserved::Unix(unix) => Ok(Some(Shared::Unix(unix.listener.try_clone()?))),
            Reserved::Given(given) => {
                let socket = given.socket.try_clone()?;
                let is_unix = socket2::SockRef::from(&socket).local_addr()?.is_unix();
                Ok(Some(if is_unix { Shared::Unix(socket.into()) } else { Shared::Tcp(socket.into()) }))
            }
        }
    }

    /// Makes sure that a socket shared by all workers can be passed on. If the socket has to be made anew, returns why;
    /// running workers do not have the new one. `is_free` means that no process holds the socket and needs its options.
    /// Runs in the parent.
    ///
    /// # Errors
    ///
    /// Why the socket cannot be used.
    pub(crate) fn mend(&mut self, backlog: u32, mode: u32, is_free: bool) -> io::Result<Option<String>> {
        match self {
            Reserved::Tcp(_) | Reserved::Udp(_) => Ok(None),
            Reserved::Given(given) => given.mend(is_free).map(|()| None),
            Reserved::Unix(unix) => {
                let restored = || if is_free { restore(unix.fd(), &unix.options, None) } else { Ok(()) };
                let flaw = inspect(unix.fd(), Expected::Shared).or_else(|| unrestored(restored()));
                if flaw.is_some() {
                    unix.remake(backlog, mode)?;
                }
                Ok(flaw)
            }
        }
    }

    /// Connections to this address begin with a handshake of TLS.
    pub(crate) fn speak_tls(&mut self) {
        if let Reserved::Tcp(tcp) = self {
            tcp.is_tls = true;
        }
    }

    /// The address, if connections to it begin with a handshake of TLS.
    #[cfg(feature = "tls")]
    pub(crate) fn tls_address(&self) -> Option<SocketAddr> {
        match self {
            Reserved::Tcp(tcp) => tcp.is_tls.then_some(tcp.address),
            _ => None,
        }
    }

    /// Leaves the file of a Unix socket to the pool that takes over.
    pub(crate) fn hand_over(&mut self) {
        if let Reserved::Unix(unix) = self {
            unix.owner = 0;
        }
    }

    /// Removes the file of a Unix socket at the end, which the old pool now leaves to this one.
    pub(crate) fn take_over(&mut self) {
        if let Reserved::Unix(unix) = self {
            unix.owner = process::id();
        }
    }
}
