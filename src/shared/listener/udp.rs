//! UDP: a socket for each slot, and the parent's hold on the address until the first slot has one.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::{has_no_ipv6, Reserved};
use crate::error::{Error, Result};
use crate::shared::config::Address;

/// Reserves all UDP addresses, or none. For an address that another pool hands over, found by its text, a copy of one
/// of its sockets is given.
///
/// # Errors
///
/// [`Error::Bind`] names the first address that cannot be bound.
pub(crate) fn reserve_udp(
    addresses: &[Address],
    mut handed_over: impl FnMut(&str) -> Option<OwnedFd>,
) -> Result<Vec<Reserved>> {
    let v4_ports: HashSet<u16> = addresses.iter().filter_map(Address::ipv4_port).collect();
    let mut reserve = |name: &str, address: &Address| match (address, handed_over(name)) {
        (_, Some(socket)) => ReservedUdp::of(name, &SockRef::from(&socket)),
        (Address::Any(port), None) => ReservedUdp::any(name, *port, v4_ports.contains(port)),
        (Address::Tcp(udp), None) => ReservedUdp::new(name, *udp, v4_ports.contains(&udp.port())),
        (Address::Unix(_), None) => Err(ErrorKind::Unsupported.into()),
    };
    let reserved = |address: &Address| {
        let name = format!("udp:{address}");
        reserve(&name, address).map(Reserved::Udp).map_err(|source| Error::Bind { address: name, source })
    };
    addresses.iter().map(reserved).collect()
}

/// A reserved UDP port.
///
/// Like a TCP port, it is bound *without* `SO_REUSEPORT`. But a UDP socket receives from the moment it is bound, and
/// the kernel would give this one a share of the datagrams. So the socket is connected to itself, which excludes all
/// other senders (udp(7)), and closed as soon as a slot's socket holds the address.
#[derive(Debug)]
pub(crate) struct ReservedUdp {
    /// The address as configured, to find it again after an upgrade.
    name: String,
    pub(super) address: SocketAddr,
    only_v6: bool,
    socket: RefCell<Option<Socket>>,
}

impl ReservedUdp {
    fn new(name: &str, address: SocketAddr, only_v6: bool) -> io::Result<ReservedUdp> {
        let socket = udp_socket(address, only_v6)?;
        socket.bind(&address.into())?;
        let reserved = ReservedUdp::of(name, &SockRef::from(&socket))?;
        socket.set_reuse_port(true)?;
        let mut own = reserved.address;
        match own {
            SocketAddr::V4(v4) if v4.ip().is_unspecified() => own.set_ip(Ipv4Addr::LOCALHOST.into()),
            SocketAddr::V6(v6) if v6.ip().is_unspecified() => own.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        socket.connect(&own.into())?;
        reserved.socket.replace(Some(socket));
        Ok(reserved)
    }

    /// Reads the address to which a socket is bound.
    fn of(name: &str, socket: &SockRef<'_>) -> io::Result<ReservedUdp> {
        let address = socket.local_addr()?.as_socket().ok_or(ErrorKind::AddrNotAvailable)?;
        let only_v6 = address.is_ipv6() && socket.only_v6()?;
        Ok(ReservedUdp { name: name.to_owned(), address, only_v6, socket: RefCell::new(None) })
    }

    /// All interfaces: IPv6 and IPv4 in one socket, or IPv4 alone if the kernel has no IPv6.
    fn any(name: &str, port: u16, only_v6: bool) -> io::Result<ReservedUdp> {
        match ReservedUdp::new(name, (Ipv6Addr::UNSPECIFIED, port).into(), only_v6) {
            Err(error) if has_no_ipv6(&error) => ReservedUdp::new(name, (Ipv4Addr::UNSPECIFIED, port).into(), false),
            result => result,
        }
    }

    /// Makes a slot's own socket. Runs in the worker, as the user that reserved the address.
    pub(super) fn bind(&self) -> io::Result<UdpSocket> {
        let socket = udp_socket(self.address, self.only_v6)?;
        socket.set_reuse_port(true)?;
        socket.bind(&self.address.into())?;
        socket.set_nonblocking(true)?;
        Ok(socket.into())
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Called once a slot's socket holds the address.
    pub(super) fn release(&self) {
        self.socket.replace(None);
    }
}

impl fmt::Display for ReservedUdp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "udp://{}", self.address)
    }
}

fn udp_socket(address: SocketAddr, only_v6: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        // As for TCP.
        socket.set_only_v6(only_v6)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn reserve(address: &str) -> Result<ReservedUdp> {
        let mut reserved = reserve_udp(&[address.parse().expect("an address")], |_| None)?;
        match reserved.pop() {
            Some(Reserved::Udp(reserved)) => Ok(reserved),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nobody_else_can_bind_what_is_reserved() {
        for (address, host) in [("127.0.0.1:0", "127.0.0.1"), ("0.0.0.0:0", "127.0.0.1"), (":0", "")] {
            let reserved = reserve(address).expect("a free port");
            let again = format!("{host}:{}", reserved.address.port());
            assert!(matches!(reserve(&again), Err(Error::Bind { .. })), "{address}");
            let socket = reserved.bind().expect("it is ours");
            reserved.release();
            assert_eq!(socket.local_addr().expect("bound"), reserved.address);
            assert!(matches!(reserve(&again), Err(Error::Bind { .. })), "{address}");
        }
    }

    #[test]
    fn the_reserve_takes_no_datagram() {
        for address in ["127.0.0.1:0", "0.0.0.0:0", ":0"] {
            let reserved = reserve(address).expect("a free port");
            let socket = reserved.bind().expect("it is ours");
            // The kernel may deliver a datagram a little after send(2) has returned.
            socket.set_nonblocking(false).expect("a socket");
            socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
            let to = (Ipv4Addr::LOCALHOST, reserved.address.port());
            for _ in 0..50 {
                let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
                client.send_to(b"x", to).expect("it is bound");
                assert_eq!(socket.recv(&mut [0; 8]).expect("it arrives"), 1, "{address}");
            }
        }
    }
}
