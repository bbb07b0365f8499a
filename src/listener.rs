//! Reserves addresses in the parent, makes the sockets of a slot in its worker. All socket options are here.

mod options;
mod udp;

use std::collections::HashSet;
use std::fmt;
use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process;

use nix::sys::stat::fstat;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::config::Address;
use crate::error::{Error, Result};

use self::options::tune;
pub(crate) use self::options::{prepare, reset_at_close};
pub(crate) use self::udp::reserve_udp;
use self::udp::ReservedUdp;

/// An address that is ours: bound by the parent for as long as the pool lives.
#[derive(Debug)]
pub(crate) enum Reserved {
    Tcp(ReservedTcp),
    Unix(ReservedUnix),
    Given(Given),
    /// Behind all others.
    Udp(ReservedUdp),
}

/// Reserves every address, or none. One that another pool hands over, by its text, is not bound again.
///
/// # Errors
///
/// [`Error::Bind`] names the first address that cannot be had.
pub(crate) fn reserve(
    addresses: &[Address],
    backlog: u32,
    unix_mode: u32,
    mut handed_over: impl FnMut(&str) -> Option<OwnedFd>,
) -> Result<Vec<Reserved>> {
    // An IPv6 wildcard takes IPv4 connections too, unless the same port was asked for by an IPv4 address of its own.
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
    /// As a URL where there is one, with the real port.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reserved::Tcp(tcp) => write!(f, "http://{}", tcp.address),
            Reserved::Unix(unix) => write!(f, "unix:{}", unix.path.display()),
            Reserved::Given(given) => given.fmt(f),
            Reserved::Udp(udp) => udp.fmt(f),
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
    socket: Socket,
}

impl ReservedTcp {
    fn new(address: SocketAddr, only_v6: bool) -> io::Result<ReservedTcp> {
        let socket = tcp_socket(address, only_v6)?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.set_reuse_port(true)?;
        socket.set_reuse_address(false)?;
        let address = socket.local_addr()?.as_socket().ok_or(ErrorKind::AddrNotAvailable)?;
        Ok(ReservedTcp { address, only_v6, socket })
    }

    /// One that another pool has reserved.
    fn from_fd(fd: OwnedFd) -> io::Result<ReservedTcp> {
        let socket = Socket::from(fd);
        let address = socket.local_addr()?.as_socket().ok_or(ErrorKind::AddrNotAvailable)?;
        let only_v6 = address.is_ipv6() && socket.only_v6()?;
        Ok(ReservedTcp { address, only_v6, socket })
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
        // Accepted sockets inherit it.
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

    /// One that another pool listens on.
    fn from_fd(path: &Path, fd: OwnedFd) -> io::Result<ReservedUnix> {
        let file = fs::symlink_metadata(path)?;
        let file = (file.dev(), file.ino());
        // The other pool's, until that has handed it over: it goes on if this one fails.
        Ok(ReservedUnix { path: path.to_owned(), listener: fd.into(), file, owner: 0 })
    }
}

/// A socket that somebody else has opened and listens on, as a service manager does (sd_listen_fds(3)): all workers
/// share it.
#[derive(Debug)]
pub(crate) struct Given {
    name: String,
    socket: OwnedFd,
}

impl Given {
    /// # Errors
    ///
    /// [`Error::Bind`] when it is no stream socket that listens.
    pub(crate) fn new(name: String, socket: OwnedFd) -> Result<Given> {
        let check = || {
            let socket = SockRef::from(&socket);
            if socket.r#type()? != Type::STREAM || !socket.is_listener()? {
                return Err(io::Error::other("it is no listening stream socket"));
            }
            socket.set_nonblocking(true)?;
            if socket.local_addr()?.is_ipv4() || socket.local_addr()?.is_ipv6() {
                // As on sockets of our own.
                tune(&socket)?;
            }
            Ok(())
        };
        match check() {
            Ok(()) => Ok(Given { name, socket }),
            Err(source) => Err(Error::Bind { address: format!("given socket {name}"), source }),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_address(f)?;
        write!(f, " (given as {})", self.name)
    }
}

impl Given {
    fn write_address(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = socket2::SockRef::from(&self.socket).local_addr().ok();
        match address.as_ref().and_then(socket2::SockAddr::as_socket) {
            Some(address) => write!(f, "http://{address}")?,
            None => match address.as_ref().and_then(socket2::SockAddr::as_pathname) {
                Some(path) => write!(f, "unix:{}", path.display())?,
                None => f.write_str("a Unix socket")?,
            },
        }
        Ok(())
    }
}

/// The admin process's: made by the parent, alone on its address, and kept while that process dies and comes again.
#[derive(Debug)]
pub(crate) struct AdminListener(Reserved);

impl AdminListener {
    /// Listens, or takes over the socket on which another pool has listened.
    ///
    /// # Errors
    ///
    /// [`Error::Bind`] when the address cannot be had.
    pub(crate) fn listen(address: &Address, handed_over: Option<OwnedFd>) -> Result<AdminListener> {
        let named = |source| Error::Bind { address: format!("{address} (admin)"), source };
        let reserved = match (address, handed_over) {
            (Address::Unix(path), Some(fd)) => ReservedUnix::from_fd(path, fd).map(Reserved::Unix),
            (Address::Unix(path), None) => ReservedUnix::listen(path, BACKLOG, 0o600).map(Reserved::Unix),
            (Address::Any(_) | Address::Tcp(_), Some(fd)) => return Ok(AdminListener(Reserved::Given(given(fd)?))),
            (Address::Tcp(tcp), None) => listen_alone(*tcp),
            (Address::Any(port), None) => match listen_alone((Ipv6Addr::UNSPECIFIED, *port).into()) {
                Err(error) if has_no_ipv6(&error) => listen_alone((Ipv4Addr::UNSPECIFIED, *port).into()),
                result => result,
            },
        };
        reserved.map(AdminListener).map_err(named)
    }

    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.0.fd()
    }

    /// A copy for the process.
    pub(crate) fn shared(&self) -> io::Result<Shared> {
        self.0.shared()?.ok_or_else(|| ErrorKind::Unsupported.into())
    }

    pub(crate) fn is_unix(&self) -> bool {
        matches!(self.0, Reserved::Unix(_))
    }

    /// Leaves the file of a Unix socket to whoever listens on it now.
    pub(crate) fn hand_over(&mut self) {
        self.0.hand_over();
    }

    /// Removes the file of a Unix socket in the end, as another pool does not any more.
    pub(crate) fn take_over(&mut self) {
        self.0.take_over();
    }
}

impl fmt::Display for AdminListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Reserved::Given(given) => given.write_address(f),
            reserved => reserved.fmt(f),
        }
    }
}

/// Clients of the admin process that may wait.
const BACKLOG: u32 = 128;

fn given(fd: OwnedFd) -> Result<Given> {
    Given::new("admin".to_owned(), fd)
}

/// Listens without letting anybody share the port.
fn listen_alone(address: SocketAddr) -> io::Result<Reserved> {
    let socket = tcp_socket(address, false)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG as i32)?;
    given(socket.into()).map(Reserved::Given).map_err(io::Error::other)
}

/// A listener that all workers share.
#[derive(Debug)]
pub(crate) enum Shared {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Reserved {
    /// The socket itself: bound, or listening where all workers share it. A UDP address is held by the slots' sockets
    /// alone.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Reserved::Tcp(tcp) => Some(tcp.socket.as_fd()),
            Reserved::Unix(unix) => Some(unix.listener.as_fd()),
            Reserved::Given(given) => Some(given.socket.as_fd()),
            Reserved::Udp(_) => None,
        }
    }

    /// A copy for a worker of what all workers share; None where each has its own.
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

    /// Leaves the file of a Unix socket to whoever listens on it now.
    pub(crate) fn hand_over(&mut self) {
        if let Reserved::Unix(unix) = self {
            unix.owner = 0;
        }
    }

    /// Removes the file of a Unix socket in the end, as another pool does not any more.
    pub(crate) fn take_over(&mut self) {
        if let Reserved::Unix(unix) = self {
            unix.owner = process::id();
        }
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
    let client = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    client.set_nonblocking(true)?;
    match client.connect(&socket2::SockAddr::unix(path)?) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        // Somebody listens who does not accept at the moment.
        Err(error) if error.kind() == ErrorKind::WouldBlock => Err(ErrorKind::AddrInUse.into()),
        Err(error) => Err(error),
        Ok(()) => Err(ErrorKind::AddrInUse.into()),
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

/// The sockets of one slot, in the order of the addresses: what a worker serves and the parent keeps.
///
/// One is missing where another pool, which has handed over the rest, had none, and a UDP one where the slot had been
/// scaled away.
#[derive(Debug, Default)]
pub(crate) struct SlotSockets {
    /// Listening.
    tcp: Vec<Option<TcpListener>>,
    udp: Vec<Option<UdpSocket>>,
}

impl SlotSockets {
    pub(crate) fn new(tcp: Vec<Option<OwnedFd>>, udp: Vec<Option<OwnedFd>>) -> SlotSockets {
        let tcp = tcp.into_iter().map(|fd| fd.map(TcpListener::from)).collect();
        SlotSockets { tcp, udp: udp.into_iter().map(|fd| fd.map(UdpSocket::from)).collect() }
    }

    /// What tells the listening ones from all others (stat(2)).
    pub(crate) fn inodes(&self) -> Vec<u64> {
        let found = self.tcp.iter().flatten().filter_map(|listener| fstat(listener).ok());
        found.map(|found| found.st_ino).collect()
    }

    /// From what a worker has sent up. Runs in the parent, whose own hold on UDP addresses ends here.
    pub(crate) fn received(fds: Vec<OwnedFd>, reserved: &[Reserved]) -> SlotSockets {
        let mut fds = fds.into_iter().map(Some);
        let tcp = fds.by_ref().take(count(reserved, |it| matches!(it, Reserved::Tcp(_)))).collect();
        let sockets = SlotSockets::new(tcp, fds.collect());
        let udp = reserved.iter().filter_map(|reserved| match reserved {
            Reserved::Udp(udp) => Some(udp),
            _ => None,
        });
        udp.zip(&sockets.udp).for_each(|(udp, _)| udp.let_go());
        sockets
    }

    /// Makes a socket for every reserved address where there is none yet. Runs in the worker, at its slot's first start.
    pub(crate) fn complete(self, reserved: &[Reserved], backlog: u32) -> Result<SlotSockets> {
        let (mut tcp, mut udp) = (self.tcp.into_iter(), self.udp.into_iter());
        let mut sockets = SlotSockets::default();
        for reserved in reserved {
            let named = |source| {
                let address = reserved.to_string();
                Error::Bind { address: address.trim_start_matches("http://").to_owned(), source }
            };
            match reserved {
                Reserved::Tcp(address) => {
                    let socket = tcp.next().flatten().map_or_else(|| address.listen(backlog), Ok);
                    sockets.tcp.push(Some(socket.map_err(named)?));
                }
                Reserved::Udp(address) => {
                    let socket = udp.next().flatten().map_or_else(|| address.bind(), Ok);
                    sockets.udp.push(Some(socket.map_err(named)?));
                }
                Reserved::Unix(_) | Reserved::Given(_) => {}
            }
        }
        Ok(sockets)
    }

    /// Whether there is a socket for every reserved TCP and UDP address.
    pub(crate) fn is_complete(&self, reserved: &[Reserved]) -> bool {
        self.all().len() == own(reserved)
    }

    pub(crate) fn try_clone(&self) -> io::Result<SlotSockets> {
        let listener = |socket: &Option<TcpListener>| socket.as_ref().map(TcpListener::try_clone).transpose();
        let socket = |socket: &Option<UdpSocket>| socket.as_ref().map(UdpSocket::try_clone).transpose();
        let tcp = self.tcp.iter().map(listener).collect::<io::Result<_>>()?;
        Ok(SlotSockets { tcp, udp: self.udp.iter().map(socket).collect::<io::Result<_>>()? })
    }

    /// Every socket: those that listen, then those for UDP.
    pub(crate) fn all(&self) -> Vec<BorrowedFd<'_>> {
        self.fds().into_iter().chain(self.udp.iter().flatten().map(AsFd::as_fd)).collect()
    }

    /// Those that listen.
    pub(crate) fn fds(&self) -> Vec<BorrowedFd<'_>> {
        self.tcp.iter().flatten().map(AsFd::as_fd).collect()
    }

    /// The one of an address, counted among the TCP addresses and then among the UDP addresses.
    pub(crate) fn fd(&self, address: usize) -> Option<BorrowedFd<'_>> {
        match address.checked_sub(self.tcp.len()) {
            None => self.tcp[address].as_ref().map(AsFd::as_fd),
            Some(address) => self.udp.get(address)?.as_ref().map(AsFd::as_fd),
        }
    }

    /// Closes what nobody would read: unlike a connection, a datagram that comes to a socket without a worker cannot be
    /// taken by another one.
    pub(crate) fn close_udp(&mut self) {
        self.udp.iter_mut().for_each(|socket| *socket = None);
    }

    /// Where it listens.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.tcp.iter().flatten().filter_map(|socket| socket.local_addr().ok()).collect()
    }

    /// Where it takes datagrams.
    pub(crate) fn udp_addresses(&self) -> Vec<SocketAddr> {
        self.udp.iter().flatten().filter_map(|socket| socket.local_addr().ok()).collect()
    }

    pub(crate) fn into_parts(self) -> (Vec<TcpListener>, Vec<UdpSocket>) {
        (self.tcp.into_iter().flatten().collect(), self.udp.into_iter().flatten().collect())
    }
}

/// For how many addresses each slot has sockets of its own.
pub(crate) fn own(reserved: &[Reserved]) -> usize {
    count(reserved, |it| matches!(it, Reserved::Tcp(_) | Reserved::Udp(_)))
}

fn count(reserved: &[Reserved], is_meant: fn(&Reserved) -> bool) -> usize {
    reserved.iter().filter(|reserved| is_meant(reserved)).count()
}
