//! Finds out which sockets have accepted connections, by sock_diag(7): the kernel selects them, so that this takes no
//! longer on a machine with many other connections, as reading `/proc/net/tcp` would. This needs no privilege.

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

/// `NLM_F_REQUEST`, for one socket; with `NLM_F_DUMP`, for a list.
const ONE: u16 = 1;
const LIST: u16 = ONE | 0x300;

/// `NLMSG_ERROR` and `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// The states of open connections: TCP_ESTABLISHED, and TCP_CLOSE_WAIT, which the peer has closed.
const OPEN: u32 = 1 << 1 | 1 << 8;

/// The position of the inode, which is in `struct inet_diag_msg`.
const INODE: usize = HEADER + 68;

/// The space for a part of a list. The kernel makes parts of up to 32 KiB for readers that have it.
const PART: usize = 32 * 1024;

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
    let diag = ask(&request(ONE, u32::MAX, peer, Some(own)))?;
    let mut answer = [0; 1024];
    // The kernel has answered when send(2) returns.
    let len = match recv(diag.as_raw_fd(), &mut answer, MsgFlags::empty()) {
        Ok(len) => len,
        Err(Errno::EAGAIN) => 0,
        Err(errno) => return Err(errno.into()),
    };
    let answer = &answer[..len];
    match answer.get(4..6) == Some(&BY_FAMILY.to_ne_bytes()[..]) {
        true => Ok(inode(answer)),
        false => match error(answer) {
            error if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            error => Err(error),
        },
    }
}

/// The inode of the socket that a message is about, once it has one.
fn inode(message: &[u8]) -> Option<u64> {
    number(message, INODE).filter(|inode| *inode != 0).map(u64::from)
}

/// The error that a message reports.
fn error(message: &[u8]) -> io::Error {
    match number(message, HEADER).map(|error| i32::from_ne_bytes(error.to_ne_bytes())) {
        Some(error @ ..0) => io::Error::from_raw_os_error(-error),
        _ => io::ErrorKind::InvalidData.into(),
    }
}

fn number(message: &[u8], at: usize) -> Option<u32> {
    message.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

/// Whether one of the sockets that have accepted a connection to this address is sought, by its inode. `is_over` is
/// asked now and then: the list is left when it says so.
///
/// # Errors
///
/// If the kernel does not answer the question.
pub(super) fn any(
    listener: SocketAddr,
    is_sought: impl Fn(u64) -> bool,
    is_over: impl Fn() -> bool,
) -> io::Result<bool> {
    let diag = ask(&request(LIST, OPEN, listener, None))?;
    let mut part = vec![0; PART];
    while !is_over() {
        // The kernel makes the next part of the list when the previous one is read.
        let len = recv(diag.as_raw_fd(), &mut part, MsgFlags::empty())?;
        let mut rest = &part[..len];
        while let Some((size, kind)) = rest.first_chunk().zip(rest.get(4..6)) {
            let size = u32::from_ne_bytes(*size) as usize;
            let message = rest.get(..size).filter(|it| it.len() >= HEADER).ok_or(io::ErrorKind::InvalidData)?;
            match u16::from_ne_bytes([kind[0], kind[1]]) {
                BY_FAMILY if inode(message).is_some_and(&is_sought) => return Ok(true),
                DONE => return Ok(false),
                ERROR => return Err(error(message)),
                _ => {}
            }
            rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
        }
    }
    Ok(false)
}

/// Sends a request to the kernel.
fn ask(request: &[u8]) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let diag: OwnedFd = socket(AddressFamily::Netlink, SockType::Datagram, flags, SockProtocol::NetlinkSockDiag)?;
    send(diag.as_raw_fd(), request, MsgFlags::empty())?;
    Ok(diag)
}

/// Makes a request for sockets in some of the states. `local` is their own address, of which a list only respects the
/// port, and `remote` that of the other end, if there is one in particular.
fn request(flags: u16, states: u32, local: SocketAddr, remote: Option<SocketAddr>) -> [u8; REQUEST] {
    let mut bytes = [0; REQUEST];
    bytes[..4].copy_from_slice(&(REQUEST as u32).to_ne_bytes());
    bytes[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
    bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
    let family = if local.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    bytes[HEADER] = family as u8;
    bytes[HEADER + 1] = libc::IPPROTO_TCP as u8;
    bytes[HEADER + 4..HEADER + 8].copy_from_slice(&states.to_ne_bytes());
    // `struct inet_diag_sockid`.
    let id = &mut bytes[HEADER + 8..];
    id[..2].copy_from_slice(&local.port().to_be_bytes());
    id[2..4].copy_from_slice(&remote.map_or(0, |remote| remote.port()).to_be_bytes());
    for (at, address) in [(4, Some(local)), (20, remote)].into_iter().filter_map(|(at, it)| Some((at, it?))) {
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

    #[test]
    fn who_has_accepted_any_is_known_however_many_others_have() {
        for listens in ["127.0.0.1:0", "[::]:0"] {
            let Ok(listener) = TcpListener::bind(listens) else { continue };
            let address = listener.local_addr().expect("bound");
            let client = || TcpStream::connect(("127.0.0.1", address.port())).expect("it listens");
            let mut pairs = Vec::new();
            // More than fit in one part.
            for _ in 0..500 {
                let client = client();
                pairs.push((client, listener.accept().expect("it waits").0));
            }
            let _waits = client();
            let inode = |stream: &TcpStream| {
                let path = format!("/proc/self/fd/{}", stream.as_raw_fd());
                std::fs::metadata(path).expect("it is open").ino()
            };
            let is_listed = |sought: u64| any(address, |inode| inode == sought, || false).expect("told");
            let (client, accepted) = pairs.swap_remove(250);
            assert!(is_listed(inode(&accepted)) && is_listed(inode(&pairs[0].1)), "{listens}");
            assert!(!is_listed(inode(&client)), "it was not accepted here");
            // Its client has closed it; the program has not.
            drop(client);
            assert!(is_listed(inode(&accepted)), "{listens}");
            let before = inode(&accepted);
            drop(accepted);
            assert!(!is_listed(before), "it is closed");
            assert!(!any(address, |_| true, || true).expect("told"), "there is something else to do");
        }
    }
}
