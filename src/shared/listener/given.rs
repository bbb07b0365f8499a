//! A socket that another program has opened.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use socket2::{SockRef, Type};

use super::inspect::{inspect, restore};
use super::options::tune;
use super::recorded::Options;
use super::soundness::Expected;
use crate::error::{Error, Result};

/// A listening socket that another program has opened, such as a service manager (sd_listen_fds(3)). All workers share
/// it.
#[derive(Debug)]
pub(crate) struct Given {
    name: String,
    pub(super) socket: OwnedFd,
    /// The options with which it came, after tuning.
    options: Options,
}

impl Given {
    /// # Errors
    ///
    /// [`Error::Bind`] if it is not a listening stream socket.
    pub(crate) fn new(name: String, socket: OwnedFd) -> Result<Given> {
        let check = || {
            let socket = SockRef::from(&socket);
            if socket.r#type()? != Type::STREAM || !socket.is_listener()? {
                return Err(io::Error::other("it is no listening stream socket"));
            }
            socket.set_nonblocking(true)?;
            if socket.local_addr()?.is_ipv4() || socket.local_addr()?.is_ipv6() {
                // The same options as on our own sockets.
                tune(&socket)?;
            }
            Ok(())
        };
        match check() {
            Ok(()) => Ok(Given { options: Options::of(socket.as_fd()), name, socket }),
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
    /// Restores the socket as far as possible.
    ///
    /// # Errors
    ///
    /// Why it cannot be used.
    pub(super) fn mend(&self, is_free: bool) -> io::Result<()> {
        if inspect(self.socket.as_fd(), Expected::Shared).is_some() {
            // A TCP socket that was shut down listens again after listen(2); a Unix socket never does.
            let _ = SockRef::from(&self.socket).listen(libc::SOMAXCONN);
        }
        match inspect(self.socket.as_fd(), Expected::Shared) {
            Some(why) => Err(io::Error::other(format!("{why}; restart it in the service manager"))),
            None if is_free => restore(&self.socket, &self.options, None),
            None => Ok(()),
        }
    }

    pub(super) fn write_address(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
