//! Finds out which socket has accepted a connection of ours, by sock_diag(7). This needs no privilege.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{recv, send, socket, AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType};

/// The lengths of `struct nlmsghdr`, and of a request: the header and `struct inet_diag_req_v2`.
const HEADER: usize = 16;
const REQUEST: usize = HEADER + 56;

/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;

/// `NLM_F_REQUEST`: for one socket, not for a list.
const ONE: u16 = 1;

/// The position of the inode, which is in `struct inet_diag_msg`.
const INODE: usize = HEADER + 68;

/// Returns the inode of the socket at the other end; `None` if the connection was not accepted yet, or that socket is
/// gone.
///
/// # Errors
///
/// If the kernel does not answer the question.
pub(super) fn by(stream: &TcpStream) -> io::Result<Option<u64>> {
    let (peer, own) = match (stream.peer_addr(), stream.local_addr()) {
        (Ok(peer), Ok(own)) => (peer, own),
        // It is not connected yet.
        (Err(error), _) if error.kind() == io::ErrorKind::NotConnected => return Ok(None),
        (Err(error), _) | (_, Err(error)) => return Err(error),
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let diag: OwnedFd = socket(AddressFamily::Netlink, SockType::Datagram, flags, SockProtocol::NetlinkSockDiag)?;
    send(diag.as_raw_fd(), &request(peer, own), MsgFlags::empty())?;
    let mut answer = [0; 1024];
    // The kernel has answered when send(2) returns.
    let len = match recv(diag.as_raw_fd(), &mut answer, MsgFlags::empty()) {
        Ok(len) => len,
        Err(Errno::EAGAIN) => 0,
        Err(errno) => return Err(errno.into()),
    };
    let four = |at: usize| answer[..len].get(at..at + 4).and_then(|four| four.try_into().ok()).map(u32::from_ne_bytes);
    if answer.get(4..6) != Some(&BY_FAMILY.to_ne_bytes()[..]) {
        return match four(HEADER).map(|error| i32::from_ne_bytes(error.to_ne_bytes())) {
            Some(error) if error == -libc::ENOENT => Ok(None),
            Some(error) if error < 0 => Err(io::Error::from_raw_os_error(-error)),
            _ => Err(io::ErrorKind::InvalidData.into()),
        };
    }
    Ok(four(INODE).filter(|inode| *inode != 0).map(u64::from))
}

/// Makes a request for one socket. The addresses are those of the other end, as it sees them.
fn request(local: SocketAddr, remote: SocketAddr) -> [u8; REQUEST] {
    let mut bytes = [0; REQUEST];
    bytes[..4].copy_from_slice(&(REQUEST as u32).to_ne_bytes());
    bytes[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
    bytes[6..8].copy_from_slice(&ONE.to_ne_bytes());
    let family = if local.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    bytes[HEADER] = family as u8;
    bytes[HEADER + 1] = libc::IPPROTO_TCP as u8;
    bytes[HEADER + 4..HEADER + 8].copy_from_slice(&u32::MAX.to_ne_bytes());
    // `struct inet_diag_sockid`.
    let id = &mut bytes[HEADER + 8..];
    id[..2].copy_from_slice(&local.port().to_be_bytes());
    id[2..4].copy_from_slice(&remote.port().to_be_bytes());
    for (at, address) in [(4, local), (20, remote)] {
        match address.ip() {
            IpAddr::V4(ip) => id[at..at + 4].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => id[at..at + 16].copy_from_slice(&ip.octets()),
        }
    }
    // This cookie matches any socket.
    id[40..48].copy_from_slice(&[0xff; 8]);
    bytes
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn who_has_accepted_is_known_once_somebody_has() {
        for (listens, port_at) in [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1"), ("[::]:0", "127.0.0.1")] {
            // Not every machine has IPv6.
            let Ok(listener) = TcpListener::bind(listens) else { continue };
            let port = listener.local_addr().expect("bound").port();
            let ip: IpAddr = port_at.parse().expect("an address");
            let client = TcpStream::connect((ip, port)).expect("it listens");
            assert_eq!(by(&client).expect("told"), None, "{listens}");
            let (accepted, _) = listener.accept().expect("it waits");
            let path = format!("/proc/self/fd/{}", accepted.as_raw_fd());
            let inode = std::fs::metadata(path).expect("it is open").ino();
            assert_eq!(by(&client).expect("told"), Some(inode), "{listens}");
        }
    }
}
