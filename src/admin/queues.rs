//! Counts the connections that wait in the queues of listening sockets, and those to a port, by sock_diag(7). This
//! needs no copies of the sockets, which would keep them open.
//!
//! The kernel does not say here which process owns a connection; to find out, one would have to look at every
//! descriptor of every program. So the connections of programs are counted for the pool as a whole, and only when a
//! client asks for the status: that takes a walk through the kernel's table of connections, and a hundred bytes for
//! each connection to the port.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{recv, send, socket, AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType};

/// A netlink socket to sock_diag(7).
#[derive(Debug)]
pub(super) struct Queues(OwnedFd);

/// `TCP_LISTEN`, one of the states in tcp(7).
const LISTENING: u32 = 1 << 10;

/// `TCP_ESTABLISHED`, and `TCP_CLOSE_WAIT`, in which the client has finished sending and waits for a response.
const OPEN: u32 = 1 << 1 | 1 << 8;

/// The length of a header of netlink(7), and of a request of sock_diag(7) with its header.
const HEADER: usize = 16;
const REQUEST: usize = HEADER + 56;

/// `SOCK_DIAG_BY_FAMILY`, the type of a message with data; other types are the end, or an error.
const BY_FAMILY: u16 = 20;

impl Queues {
    pub(super) fn open() -> io::Result<Queues> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        Ok(Queues(socket(AddressFamily::Netlink, SockType::Datagram, flags, SockProtocol::NetlinkSockDiag)?))
    }

    /// Returns the queue length of each listening TCP socket in this network namespace, by inode.
    pub(super) fn read(&self) -> io::Result<BTreeMap<u64, u64>> {
        let mut lengths = BTreeMap::new();
        // `struct inet_diag_msg`: the queue length follows the addresses and a timer; the inode is at the end.
        self.ask(LISTENING, 0, &mut |message| {
            lengths.insert(number(message, 68).into(), number(message, 56).into());
        })?;
        Ok(lengths)
    }

    /// Returns the number of open connections to a port in this network namespace, including those not yet accepted.
    pub(super) fn established(&self, port: u16) -> io::Result<u64> {
        let mut count = 0;
        self.ask(OPEN, port, &mut |_| count += 1)?;
        Ok(count)
    }

    /// Calls `found` for each TCP socket in these states, restricted to this port if it is not 0.
    fn ask(&self, states: u32, port: u16, found: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        let mut buffer = vec![0; 32 << 10];
        for family in [libc::AF_INET, libc::AF_INET6] {
            send(self.0.as_raw_fd(), &request(family as u8, states, port), MsgFlags::empty())?;
            // The kernel has the whole answer when the call returns, and hands it out in parts.
            loop {
                match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                    Ok(len) if take(&buffer[..len], found) => {}
                    Ok(_) | Err(Errno::EAGAIN) => break,
                    Err(Errno::EINTR) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
        }
        Ok(())
    }
}

/// `struct nlmsghdr`, followed by `struct inet_diag_req_v2`.
fn request(family: u8, states: u32, port: u16) -> [u8; REQUEST] {
    /// `NLM_F_REQUEST` and `NLM_F_DUMP`.
    const FLAGS: u16 = 0x301;
    let mut bytes = [0; REQUEST];
    bytes[..4].copy_from_slice(&(REQUEST as u32).to_ne_bytes());
    bytes[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
    bytes[6..8].copy_from_slice(&FLAGS.to_ne_bytes());
    bytes[HEADER] = family;
    bytes[HEADER + 1] = libc::IPPROTO_TCP as u8;
    bytes[HEADER + 4..HEADER + 8].copy_from_slice(&states.to_ne_bytes());
    bytes[HEADER + 8..HEADER + 10].copy_from_slice(&port.to_be_bytes());
    bytes
}

fn number(bytes: &[u8], at: usize) -> u32 {
    let four = bytes.get(at..at + 4).and_then(|four| four.try_into().ok());
    u32::from_ne_bytes(four.unwrap_or_default())
}

/// Handles the messages of one part; returns whether more parts follow.
fn take(mut messages: &[u8], found: &mut dyn FnMut(&[u8])) -> bool {
    while messages.len() >= HEADER {
        let len = (number(messages, 0) as usize).clamp(HEADER, messages.len());
        let kind = number(messages, 4) as u16;
        if kind != BY_FAMILY {
            return false;
        }
        let message = &messages[HEADER..len];
        if message.len() >= 72 {
            found(message);
        }
        messages = &messages[len.next_multiple_of(4).min(messages.len())..];
    }
    true
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::fs::MetadataExt;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn what_waits_is_counted() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).expect("loopback");
            let port = listener.local_addr().expect("bound");
            let _waiting = [0; 3].map(|_| TcpStream::connect(port).expect("it listens"));
            let inode = std::fs::metadata(format!("/proc/self/fd/{}", listener.as_raw_fd())).expect("it is open").ino();
            let queues = Queues::open().expect("netlink");
            // The kernel may be behind with what ends a handshake, of which the client knows.
            let waiting = || queues.read().expect("an answer").get(&inode).copied();
            let end = Instant::now() + Duration::from_secs(60);
            while waiting() != Some(3) && Instant::now() < end {
                std::thread::yield_now();
            }
            assert_eq!(waiting(), Some(3), "{address}");
            let port = listener.local_addr().expect("bound").port();
            assert_eq!(queues.established(port).expect("an answer"), 3, "{address}");
            let accepted = listener.accept();
            assert_eq!(waiting(), Some(2), "{address}");
            assert_eq!(queues.established(port).expect("an answer"), 3, "{address}");
            drop(accepted);
            assert_eq!(queues.established(port).expect("an answer"), 2, "{address}");
        }
    }

    #[test]
    fn bytes_that_are_no_answer_are_ignored() {
        for bytes in [&b""[..], &[0; 15], &[0xff; 16], &[0; 200], &[1; 4096]] {
            take(bytes, &mut |found| panic!("{found:?} in {bytes:?}"));
        }
    }
}
