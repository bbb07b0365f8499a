//! The socket of the admin process. No worker has a copy.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd};

use super::{has_no_ipv6, tcp_socket, Given, Reserved, ReservedUnix, Shared};
use crate::error::{Error, Result};
use crate::shared::config::Address;

/// The listener of the admin process. The parent makes it, shares its address with nobody, and keeps it while the
/// process is replaced.
#[derive(Debug)]
pub(crate) struct AdminListener(Reserved);

impl AdminListener {
    /// Listens, or takes over a socket on which another pool has listened.
    ///
    /// # Errors
    ///
    /// [`Error::Bind`] if the address cannot be bound.
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

    /// A copy for the admin process.
    pub(crate) fn shared(&self) -> io::Result<Shared> {
        self.0.shared()?.ok_or_else(|| ErrorKind::Unsupported.into())
    }

    pub(crate) fn is_unix(&self) -> bool {
        matches!(self.0, Reserved::Unix(_))
    }

    /// Leaves the file of a Unix socket to the pool that takes over.
    pub(crate) fn hand_over(&mut self) {
        self.0.hand_over();
    }

    /// Removes the file of a Unix socket at the end, which the old pool now leaves to this one.
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

/// The length of the queue of clients.
const BACKLOG: u32 = 1024;

fn given(fd: OwnedFd) -> Result<Given> {
    Given::new("admin".to_owned(), fd)
}

/// Listens without letting anybody else share the port.
fn listen_alone(address: SocketAddr) -> io::Result<Reserved> {
    let socket = tcp_socket(address, false)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG as i32)?;
    given(socket.into()).map(Reserved::Given).map_err(io::Error::other)
}
