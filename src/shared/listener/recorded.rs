//! Records the options of a new socket, and restores them later.
//!
//! The kernel has more than a hundred options, connections inherit most of them, and any process with a copy of a
//! socket may set them. So there is no list of options to restore: all readable options are recorded, and those that
//! differ later are set again.

use std::io;
use std::ops::RangeInclusive;
use std::os::fd::BorrowedFd;

use socket2::{Domain, SockRef, Type};

use crate::sys::options::{get, set};

/// By level and name, in ascending order.
#[derive(Clone, Debug, Default)]
pub(super) struct Options(Vec<(Name, Box<[u8]>)>);

/// A level and the number of an option.
type Name = (i32, i32);

/// The options of Linux 6.18. Those of later kernels are not read until somebody has checked that reading them has no
/// side effect.
const SOCKET: (i32, RangeInclusive<i32>) = (libc::SOL_SOCKET, 1..=84);
/// The numbers on architectures such as MIPS.
const SOCKET_ELSEWHERE: (i32, RangeInclusive<i32>) = (libc::SOL_SOCKET, 0x1001..=0x1030);
const IP: (i32, RangeInclusive<i32>) = (libc::IPPROTO_IP, 1..=52);
const IPV6: (i32, RangeInclusive<i32>) = (libc::IPPROTO_IPV6, 1..=78);
const TCP: (i32, RangeInclusive<i32>) = (libc::IPPROTO_TCP, 1..=46);
const UDP: (i32, RangeInclusive<i32>) = (libc::IPPROTO_UDP, 1..=104);

/// `SO_PEERPIDFD`, which is not yet in the headers of the C library.
const SO_PEERPIDFD: i32 = if cfg!(any(target_arch = "sparc", target_arch = "sparc64")) { 0x56 } else { 77 };

/// `SO_BUF_LOCK` (Linux 5.14): which buffers have a size that was set.
const SO_BUF_LOCK: i32 = if cfg!(any(target_arch = "sparc", target_arch = "sparc64")) { 0x51 } else { 72 };

/// Options that are not read.
const SKIPPED: [Name; 12] = [
    // Reading clears it.
    (libc::SOL_SOCKET, libc::SO_ERROR),
    // Filters are removed separately.
    (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER),
    // Reading opens a descriptor.
    (libc::SOL_SOCKET, SO_PEERPIDFD),
    // It changes by itself, and setting it fails for another reason than that it cannot be set.
    (libc::IPPROTO_TCP, libc::TCP_TIMESTAMP),
    // It is the machine's, unless the socket has its own. It has no effect without TCP_FASTOPEN.
    (libc::IPPROTO_TCP, libc::TCP_FASTOPEN_KEY),
    // `IP_PKTOPTIONS` and `IPV6_2292PKTOPTIONS` are messages made from other options.
    (libc::IPPROTO_IP, 9),
    (libc::IPPROTO_IPV6, 6),
    // Reading maps memory.
    (libc::IPPROTO_TCP, libc::TCP_ZEROCOPY_RECEIVE),
    // Options of ip6tables(8), which may load modules.
    (libc::IPPROTO_IPV6, 64),
    (libc::IPPROTO_IPV6, 65),
    (libc::IPPROTO_IPV6, 68),
    (libc::IPPROTO_IPV6, 69),
];

/// The number of passes over all options.
const ROUNDS: usize = 4;

impl Options {
    /// Records the options of a socket.
    pub(super) fn of(socket: BorrowedFd<'_>) -> Options {
        let known = levels(socket).into_iter().flat_map(|(level, names)| names.map(move |name| (level, name)));
        let known = known.filter(|option| !SKIPPED.contains(option));
        Options(known.filter_map(|option| Some((option, get(socket, option.0, option.1).ok()?))).collect())
    }

    /// Sets the options that differ.
    ///
    /// # Errors
    ///
    /// Names the first option that cannot be restored; all others are.
    pub(super) fn put_back(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        // Setting one option may change another, as with those of time stamps.
        for _ in 0..ROUNDS {
            let (mut differed, mut result) = (false, Ok(()));
            for ((level, name), was) in &self.0 {
                match self.put_back_one(socket, *level, *name, was) {
                    Ok(did_differ) => differed |= did_differ,
                    Err(error) => result = result.and(Err(error)),
                }
            }
            if result.is_err() || !differed {
                return result;
            }
        }
        Err(io::Error::other("the options that a worker has set change each other"))
    }

    /// Returns whether the option differed and is now restored.
    fn put_back_one(&self, socket: BorrowedFd<'_>, level: i32, name: i32, was: &[u8]) -> io::Result<bool> {
        let is_as_before = || get(socket, level, name).is_ok_and(|is| *is == *was);
        if is_as_before() {
            return Ok(false);
        }
        let failed = |why: &dyn std::fmt::Display| {
            io::Error::other(format!(
                "a worker has set option {name} of level {level}, which cannot be restored: {why}"
            ))
        };
        let is_buffer = level == libc::SOL_SOCKET && [libc::SO_RCVBUF, libc::SO_SNDBUF].contains(&name);
        if is_buffer && !self.0.iter().any(|(option, _)| *option == (libc::SOL_SOCKET, SO_BUF_LOCK)) {
            return Err(failed(&"the kernel would keep that size"));
        }
        let mut why = "it reads otherwise".to_owned();
        for value in ways_back(level, name, was) {
            match set(socket, level, name, &value) {
                // The option is read-only, so no worker has set it.
                Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => return Ok(false),
                Err(error) => why = error.to_string(),
                Ok(()) if is_as_before() => return Ok(true),
                Ok(()) => {}
            }
        }
        Err(failed(&why))
    }
}

fn levels(socket: BorrowedFd<'_>) -> Vec<(i32, RangeInclusive<i32>)> {
    let socket = SockRef::from(&socket);
    let (domain, kind) = (socket.domain().ok(), socket.r#type().ok());
    let is_ipv6 = domain == Some(Domain::IPV6);
    let is_ip = is_ipv6 || domain == Some(Domain::IPV4);
    let levels = [
        (SOCKET, true),
        (SOCKET_ELSEWHERE, libc::SOL_SOCKET != 1),
        (IP, is_ip),
        (IPV6, is_ipv6),
        (TCP, is_ip && kind == Some(Type::STREAM)),
        (UDP, is_ip && kind == Some(Type::DGRAM)),
    ];
    levels.into_iter().filter_map(|(level, applies)| applies.then_some(level)).collect()
}

/// The values to set so that an option reads as before, in the order in which to try them.
fn ways_back(level: i32, name: i32, was: &[u8]) -> Vec<Box<[u8]>> {
    let number = was.try_into().map(i32::from_ne_bytes);
    match (level, name, number) {
        // The kernel doubles the value that is set (socket(7)).
        (libc::SOL_SOCKET, libc::SO_RCVBUF | libc::SO_SNDBUF, Ok(number)) => vec![(number / 2).to_ne_bytes().into()],
        // The default reads as a number, but setting this number would be a limit.
        (libc::IPPROTO_TCP, libc::TCP_MAXSEG, Ok(_)) => vec![0_i32.to_ne_bytes().into(), was.into()],
        _ => vec![was.into()],
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixListener;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_socket_that_nobody_has_changed_is_as_it_was_and_loses_nothing() {
        let socket = UdpSocket::bind("[::1]:0").or_else(|_| UdpSocket::bind("127.0.0.1:0")).expect("a free port");
        let options = Options::of(socket.as_fd());
        assert!(options.0.len() > 50, "{} can be read", options.0.len());
        socket.send_to(b"x", socket.local_addr().expect("bound")).expect("it is there");
        options.put_back(socket.as_fd()).expect("nothing differs but what counts what is there");
        assert_eq!(socket.recv(&mut [0; 8]).expect("it is there"), 1);
    }

    #[test]
    fn a_udp_socket_and_a_unix_one_get_back_what_was_set() {
        let path = std::env::temp_dir().join(format!("forkpool-options-{}", std::process::id()));
        let unix = UnixListener::bind(&path).expect("a free name");
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        for socket in [unix.as_fd(), udp.as_fd()] {
            let options = Options::of(socket);
            let changed = SockRef::from(&socket);
            changed.set_recv_buffer_size(4096).expect("a socket");
            changed.set_read_timeout(Some(Duration::from_secs(7))).expect("a socket");
            let now = Options::of(socket);
            assert_ne!(now.0, options.0);
            options.put_back(socket).expect("all can be put back");
            assert_eq!(Options::of(socket).0, options.0);
        }
        std::fs::remove_file(path).expect("it is ours");
    }
}
