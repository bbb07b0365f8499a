//! Whether a descriptor that another process has passed on is a client's connection to this pool.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use socket2::{Domain, Protocol, SockAddr, SockRef, Type};

use crate::shared::listener;
use crate::sys;

/// The addresses of the pool's listening sockets.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    tcp: Vec<SocketAddr>,
    unix: Vec<PathBuf>,
}

/// A connection to one of these addresses.
#[derive(Debug)]
pub(crate) enum Admitted {
    /// With the address of its client.
    Tcp(OwnedFd, SocketAddr),
    Unix(OwnedFd),
}

impl Gate {
    /// Admits connections to what this socket listens on.
    pub(crate) fn open(&mut self, listener: BorrowedFd<'_>) {
        let Ok(address) = SockRef::from(&listener).local_addr() else { return };
        self.tcp.extend(address.as_socket());
        self.unix.extend(address.as_pathname().map(PathBuf::from));
    }

    /// Whether a connection of this process was accepted on one of the addresses, so that others would admit it.
    pub(crate) fn covers(&self, connection: &impl AsFd) -> bool {
        SockRef::from(connection).local_addr().is_ok_and(|local| self.has(&local))
    }

    fn has(&self, local: &SockAddr) -> bool {
        match (local.as_socket(), local.as_pathname()) {
            (Some(local), _) => self.tcp.iter().any(|own| covers(*own, local)),
            (_, Some(path)) => self.unix.iter().any(|own| own == path),
            _ => false,
        }
    }

    /// Admits a connected stream socket that was accepted on one of the addresses, and makes sure that it does not
    /// block and that closing it does not. Whoever has passed it may have kept a copy, and may change both again, so no
    /// call may rely on it.
    ///
    /// # Errors
    ///
    /// What it is instead. It is closed.
    pub(crate) fn admit(&self, fd: OwnedFd) -> Result<Admitted, &'static str> {
        let Ok(domain) = SockRef::from(&fd).domain() else { return Err("no socket") };
        // Also for what is refused: closing the last copy must not wait.
        listener::never_linger(&fd);
        let peer = self.inspect(fd.as_fd(), domain)?;
        sys::fds::set_nonblocking(&fd, true).map_err(|_| "a socket that cannot be made non-blocking")?;
        Ok(match peer.as_socket() {
            Some(peer) => Admitted::Tcp(fd, peer),
            None => Admitted::Unix(fd),
        })
    }

    /// Returns the peer's address.
    fn inspect(&self, fd: BorrowedFd<'_>, domain: Domain) -> Result<SockAddr, &'static str> {
        let socket = SockRef::from(&fd);
        let is_tcp = domain == Domain::IPV4 || domain == Domain::IPV6;
        if socket.r#type().ok() != Some(Type::STREAM) || !(is_tcp || domain == Domain::UNIX) {
            return Err("no stream socket");
        }
        if is_tcp && socket.protocol().ok().flatten() != Some(Protocol::TCP) {
            return Err("no TCP socket");
        }
        if socket.is_listener().unwrap_or(true) {
            return Err("a listening socket");
        }
        // Fails if it was never connected, or if the client has reset it.
        let peer = socket.peer_addr().map_err(|_| "a socket that is not connected")?;
        let local = socket.local_addr().map_err(|_| "a socket without an address")?;
        match self.has(&local) {
            true => Ok(peer),
            false => Err("a connection to another address"),
        }
    }
}

/// Whether a socket that listens on this address accepts connections with that local address.
fn covers(listener: SocketAddr, local: SocketAddr) -> bool {
    let (ours, theirs) = (listener.ip().to_canonical(), local.ip().to_canonical());
    listener.port() == local.port() && (listener.ip().is_unspecified() || ours == theirs)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

    use super::*;

    fn refused(gate: &Gate, fd: impl Into<OwnedFd>) -> &'static str {
        gate.admit(fd.into()).expect_err("it is no connection of this pool")
    }

    #[test]
    fn only_connections_of_clients_are_admitted() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let mut gate = Gate::default();
        gate.open(listener.as_fd());
        let client = TcpStream::connect(address).expect("it listens");
        let (accepted, peer) = listener.accept().expect("a client");
        assert!(gate.covers(&accepted) && !gate.covers(&client));
        assert!(matches!(gate.admit(accepted.into()), Ok(Admitted::Tcp(_, found)) if found == peer));
        assert_eq!(refused(&gate, client), "a connection to another address");
        assert_eq!(refused(&gate, listener), "a listening socket");
        assert_eq!(refused(&gate, UdpSocket::bind("127.0.0.1:0").expect("a port")), "no stream socket");
        let fresh = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        assert_eq!(refused(&gate, fresh), "a socket that is not connected");
        assert_eq!(refused(&gate, std::fs::File::open("/dev/null").expect("Linux")), "no socket");
        let (one, other) = UnixStream::pair().expect("descriptors");
        assert_eq!(refused(&gate, one), "a connection to another address");
        drop(other);
        assert_eq!(refused(&gate, UnixDatagram::unbound().expect("a descriptor")), "no stream socket");
        let elsewhere = TcpListener::bind("127.0.0.1:0").expect("a port");
        let _client = TcpStream::connect(elsewhere.local_addr().expect("bound")).expect("it listens");
        assert_eq!(refused(&gate, elsewhere.accept().expect("a client").0), "a connection to another address");
    }

    #[test]
    fn what_is_admitted_does_not_block() {
        let listener = TcpListener::bind("0.0.0.0:0").expect("a port");
        let mut gate = Gate::default();
        gate.open(listener.as_fd());
        let port = listener.local_addr().expect("bound").port();
        let _client = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        let (accepted, _) = listener.accept().expect("a client");
        SockRef::from(&accepted).set_linger(Some(std::time::Duration::from_secs(60))).expect("a TCP socket");
        let Ok(Admitted::Tcp(admitted, _)) = gate.admit(accepted.into()) else { panic!("it is a client's") };
        let socket = SockRef::from(&admitted);
        assert!(socket.nonblocking().expect("it is open") && socket.linger().expect("it is open").is_none());
    }

    #[test]
    fn connections_to_a_unix_socket_are_admitted_by_its_path() {
        let path = std::env::temp_dir().join(format!("forkpool-gate-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).expect("a directory that is writable");
        let mut gate = Gate::default();
        gate.open(listener.as_fd());
        let mut client = UnixStream::connect(&path).expect("it listens");
        client.write_all(b"x").expect("there is room");
        let accepted = listener.accept().expect("a client").0;
        std::fs::remove_file(&path).expect("it is ours");
        assert!(matches!(gate.admit(accepted.into()), Ok(Admitted::Unix(_))));
        assert_eq!(refused(&gate, client), "a connection to another address");
    }
}
