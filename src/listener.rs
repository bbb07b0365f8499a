//! Reserves addresses in the parent, makes the listening sockets of a slot in its worker. All socket options are here.

use std::collections::HashSet;
use std::fmt;
use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process;

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::Address;
use crate::error::{Error, Result};

/// An address that is ours: bound by the parent for as long as the pool lives.
#[derive(Debug)]
pub(crate) enum Reserved {
    Tcp(ReservedTcp),
    Unix(ReservedUnix),
}

/// Reserves every address, or none.
///
/// # Errors
///
/// [`Error::Bind`] names the first address that cannot be had.
pub(crate) fn reserve(addresses: &[Address], backlog: u32, unix_mode: u32) -> Result<Vec<Reserved>> {
    // An IPv6 wildcard takes IPv4 connections too, unless the same port was asked for by an IPv4 address of its own.
    let v4_ports: HashSet<u16> = addresses.iter().filter_map(Address::ipv4_port).collect();
    let reserve = |address: &Address| match address {
        Address::Any(port) => ReservedTcp::any(*port, v4_ports.contains(port)).map(Reserved::Tcp),
        Address::Tcp(tcp) => ReservedTcp::new(*tcp, v4_ports.contains(&tcp.port())).map(Reserved::Tcp),
        Address::Unix(path) => ReservedUnix::listen(path, backlog, unix_mode).map(Reserved::Unix),
    };
    let reserved =
        |address: &Address| reserve(address).map_err(|source| Error::Bind { address: address.to_string(), source });
    addresses.iter().map(reserved).collect()
}

impl fmt::Display for Reserved {
    /// As a URL where there is one, with the real port.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reserved::Tcp(tcp) => write!(f, "http://{}", tcp.address),
            Reserved::Unix(unix) => write!(f, "unix:{}", unix.path.display()),
        }
    }
}

/// A TCP port bound and not listened on.
///
/// Bound *without* `SO_REUSEPORT`, so that a second instance fails instead of silently sharing the port; the option
/// is set afterwards, so that the workers' sockets may join. `SO_REUSEADDR` is on while binding, so that connections
/// left in TIME_WAIT do not matter, and off afterwards, because two sockets that both have it may share a port that
/// neither listens on.
#[derive(Debug)]
pub(crate) struct ReservedTcp {
    address: SocketAddr,
    only_v6: bool,
    _socket: Socket,
}

impl ReservedTcp {
    fn new(address: SocketAddr, only_v6: bool) -> io::Result<ReservedTcp> {
        let socket = tcp_socket(address, only_v6)?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.set_reuse_port(true)?;
        socket.set_reuse_address(false)?;
        let address = socket.local_addr()?.as_socket().ok_or(ErrorKind::AddrNotAvailable)?;
        Ok(ReservedTcp { address, only_v6, _socket: socket })
    }

    /// Every interface: IPv6 and IPv4 in one socket, or IPv4 alone where the kernel has no IPv6.
    fn any(port: u16, only_v6: bool) -> io::Result<ReservedTcp> {
        match ReservedTcp::new((Ipv6Addr::UNSPECIFIED, port).into(), only_v6) {
            Err(error) if has_no_ipv6(&error) => ReservedTcp::new((Ipv4Addr::UNSPECIFIED, port).into(), false),
            result => result,
        }
    }

    /// Makes a slot's own listening socket. Runs in the worker, as the user who reserved the address: the kernel lets
    /// only one user's sockets share a port.
    pub(crate) fn listen(&self, backlog: u32) -> io::Result<TcpListener> {
        let socket = tcp_socket(self.address, self.only_v6)?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        // Accepted sockets inherit it: an answer is sent whole, and Nagle would only hold back its last segment.
        socket.set_tcp_nodelay(true)?;
        socket.bind(&self.address.into())?;
        socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
        socket.set_nonblocking(true)?;
        Ok(socket.into())
    }
}

fn tcp_socket(address: SocketAddr, only_v6: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // Said either way: the default is the machine's (`net.ipv6.bindv6only`).
        socket.set_only_v6(only_v6)?;
    }
    Ok(socket)
}

fn has_no_ipv6(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EAFNOSUPPORT) || error.kind() == ErrorKind::AddrNotAvailable
}

/// A Unix socket, made by the parent and inherited by every worker: there is no SO_REUSEPORT for them.
#[derive(Debug)]
pub(crate) struct ReservedUnix {
    path: PathBuf,
    listener: UnixListener,
    /// Device and inode of the file, to unlink only what was made here.
    file: (u64, u64),
    owner: u32,
}

impl ReservedUnix {
    fn listen(path: &Path, backlog: u32, mode: u32) -> io::Result<ReservedUnix> {
        remove_stale(path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&socket2::SockAddr::unix(path)?)?;
        let file = fs::symlink_metadata(path)?;
        let reserved = ReservedUnix {
            path: path.to_owned(),
            file: (file.dev(), file.ino()),
            owner: process::id(),
            listener: UnixListener::from(OwnedFd::from(socket.try_clone()?)),
        };
        // Before anybody can connect.
        fs::set_permissions(path, Permissions::from_mode(mode))?;
        socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
        socket.set_nonblocking(true)?;
        Ok(reserved)
    }

    pub(crate) fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }
}

/// Unlinks a socket that nobody listens on any more, as a killed server leaves it.
fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(file) if !file.file_type().is_socket() => return Err(io::Error::other("the path exists and is no socket")),
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
        Ok(_) => Err(ErrorKind::AddrInUse.into()),
    }
}

impl Drop for ReservedUnix {
    /// Removes the file: in the process that made it, not in a worker that drops its copy, and only while it is still
    /// the same.
    fn drop(&mut self) {
        let same = |file: fs::Metadata| (file.dev(), file.ino()) == self.file;
        if process::id() == self.owner && fs::symlink_metadata(&self.path).is_ok_and(same) {
            // Nothing to be done about a directory that has become read-only.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The listening TCP sockets of one slot, in the order of the addresses: what a worker serves and the parent keeps.
#[derive(Debug)]
pub(crate) struct SlotSockets(Vec<TcpListener>);

impl SlotSockets {
    /// Listens on every reserved TCP address. Runs in the worker, at its slot's first start.
    pub(crate) fn listen(reserved: &[Reserved], backlog: u32) -> Result<SlotSockets> {
        let mut sockets = Vec::new();
        for reserved in reserved {
            if let Reserved::Tcp(tcp) = reserved {
                let listen =
                    tcp.listen(backlog).map_err(|source| Error::Bind { address: tcp.address.to_string(), source });
                sockets.push(listen?);
            }
        }
        Ok(SlotSockets(sockets))
    }

    /// From what a worker has sent up. Runs in the parent.
    pub(crate) fn from_fds(fds: Vec<OwnedFd>) -> SlotSockets {
        SlotSockets(fds.into_iter().map(TcpListener::from).collect())
    }

    pub(crate) fn try_clone(&self) -> io::Result<SlotSockets> {
        Ok(SlotSockets(self.0.iter().map(TcpListener::try_clone).collect::<io::Result<_>>()?))
    }

    pub(crate) fn fds(&self) -> Vec<std::os::fd::BorrowedFd<'_>> {
        self.0.iter().map(AsFd::as_fd).collect()
    }

    pub(crate) fn into_listeners(self) -> Vec<TcpListener> {
        self.0
    }
}
