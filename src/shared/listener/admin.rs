//! The admin process's socket, which no worker ever has.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd};

use super::{has_no_ipv6, tcp_socket, Given, Reserved, ReservedUnix, Shared};
use crate::error::{Error, Result};
use crate::shared::config::Address;

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
const BACKLOG: u32 = 1024;

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
