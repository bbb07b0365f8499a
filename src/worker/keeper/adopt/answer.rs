//! PURE. What a program gets that binds an address or listens: facts in, replies out.
//!
//! ```text
//!   bind(2) of an address ─► one of the pool's sockets serves it? ─► of TCP, and fit for its family? ─► Give
//!                                       │ no                                   │ no
//!                                       └──────────────► GoOn ◄────────────────┘
//!   listen(2) on a socket ─► it is the pool's, and listens? ─► Done, else GoOn
//! ```
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// The kernel does it.
    GoOn,
    /// It succeeds, and nothing happens.
    Done,
    /// The program's socket becomes a copy of this one of the pool's.
    Give(usize),
}

/// What people are told about a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Note {
    /// The program binds this address, and gets the pool's socket for it.
    Given { asked: SocketAddr, given: SocketAddr },
    /// The same, and clients can connect whom it would not have let.
    Wider { asked: SocketAddr, given: SocketAddr },
    /// It asks for IPv4, and the pool's socket is one of IPv6, whose addresses it would misread.
    IsIpv6 { asked: SocketAddr, given: SocketAddr },
    /// It listens on a socket of its own.
    Elsewhere { at: SocketAddr },
    /// What it binds cannot be read.
    Hidden,
    /// An epoll instance of its own watches its socket already, and would not watch the pool's.
    WatchedTooEarly { asked: SocketAddr },
}

/// What is known of the socket of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// TCP, or a protocol that looks like it.
    pub(super) is_tcp: bool,
    pub(super) inode: u64,
    /// The program has an epoll instance for it.
    pub(super) is_watched: bool,
}

/// The most sockets that are remembered until they listen.
const BOUND_MAX: usize = 8;

/// The calls of one program and of all that it has started.
#[derive(Debug)]
pub(super) struct Answers {
    offered: Vec<SocketAddr>,
    /// Sockets of TCP that it has bound elsewhere, by their inodes.
    bound: Vec<(u64, SocketAddr)>,
    told: Vec<Note>,
}

impl Answers {
    /// `offered` are the addresses of the pool's sockets.
    pub(super) fn new(offered: Vec<SocketAddr>) -> Answers {
        Answers { offered, bound: Vec::new(), told: Vec::new() }
    }

    pub(super) fn bind(&mut self, asked: SocketAddr, facts: Facts) -> (Reply, Option<Note>) {
        if !facts.is_tcp || asked.port() == 0 {
            return (Reply::GoOn, None);
        }
        let Some((index, fits)) = choose(asked, &self.offered) else {
            self.bound.retain(|(inode, _)| *inode != facts.inode);
            self.bound.truncate(BOUND_MAX - 1);
            self.bound.insert(0, (facts.inode, asked));
            return (Reply::GoOn, None);
        };
        let given = self.offered[index];
        match fits {
            Fit::Misread => (Reply::GoOn, self.tell(Note::IsIpv6 { asked, given })),
            // Better that it fails at once than that it waits for ever.
            _ if facts.is_watched => (Reply::GoOn, self.tell(Note::WatchedTooEarly { asked })),
            Fit::Same => (Reply::Give(index), self.tell(Note::Given { asked, given })),
            Fit::Wider => (Reply::Give(index), self.tell(Note::Wider { asked, given })),
        }
    }

    /// `is_pools` if it is one of the pool's sockets, which listens.
    pub(super) fn listen(&mut self, inode: u64, is_pools: bool) -> (Reply, Option<Note>) {
        if is_pools {
            // With its own number it would shorten the queue that it shares.
            return (Reply::Done, None);
        }
        let at = self.bound.iter().find(|(bound, _)| *bound == inode).map(|(_, at)| *at);
        (Reply::GoOn, at.and_then(|at| self.tell(Note::Elsewhere { at })))
    }

    /// What it binds or listens on cannot be looked at.
    pub(super) fn hidden(&mut self) -> (Reply, Option<Note>) {
        (Reply::GoOn, self.tell(Note::Hidden))
    }

    /// Each kind is told once.
    fn tell(&mut self, note: Note) -> Option<Note> {
        let kind = std::mem::discriminant(&note);
        let is_new = self.told.iter().all(|told| std::mem::discriminant(told) != kind);
        is_new.then(|| self.told.push(note)).map(|()| note)
    }
}

/// How well a socket of the pool's is what the program asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    Misread,
    Wider,
    Same,
}

/// The socket that serves an address best.
fn choose(asked: SocketAddr, offered: &[SocketAddr]) -> Option<(usize, Fit)> {
    let fits = offered.iter().enumerate().filter_map(|(index, offered)| {
        let fit = fit(asked, *offered)?;
        let (has_family, is_it) = (asked.is_ipv4() == offered.is_ipv4(), asked.ip() == offered.ip());
        // The first of the best.
        Some((fit != Fit::Misread, is_it, has_family, fit, std::cmp::Reverse(index)))
    });
    fits.max().map(|(_, _, _, fit, std::cmp::Reverse(index))| (index, fit))
}

fn fit(asked: SocketAddr, offered: SocketAddr) -> Option<Fit> {
    if asked.port() != offered.port() {
        return None;
    }
    let (ip, own) = (asked.ip().to_canonical(), offered.ip().to_canonical());
    let fit = match () {
        () if ip == own => Fit::Same,
        // Less than it has asked for, as whoever started the pool has said.
        () if ip.is_unspecified() => Fit::Same,
        () if ip.is_loopback() && own.is_loopback() => Fit::Same,
        () if own.is_unspecified() && is_within(ip, offered.ip()) => Fit::Wider,
        () => return None,
    };
    // A program of IPv4 has no room for an address of IPv6, and that of IPv6 knows both.
    Some(if asked.is_ipv4() && offered.is_ipv6() { Fit::Misread } else { fit })
}

/// Whether a wildcard stands for an address: that of IPv4 for those of IPv4, and for this machine itself.
fn is_within(ip: IpAddr, wildcard: IpAddr) -> bool {
    wildcard.is_ipv6() || ip.is_ipv4() || ip.is_loopback()
}

/// What O_NONBLOCK of a socket of the pool's becomes, which belongs to all who have it: None if it stays. `wants` is that
/// of the program's own socket; `is_shared` if another program may accept from the pool's, which a socket that blocks
/// would hold up.
pub(super) fn nonblocking(wants: bool, is_shared: bool) -> Option<bool> {
    match (wants, is_shared) {
        (true, _) => Some(true),
        (false, true) => None,
        (false, false) => Some(false),
    }
}

/// The flags of a descriptor: O_NONBLOCK, and whether execve(2) closes it, by its `/proc/PID/fdinfo/FD`.
pub(super) fn flags(fdinfo: &str) -> Option<(bool, bool)> {
    let flags = fdinfo.lines().find_map(|line| line.strip_prefix("flags:"))?;
    let flags = u32::from_str_radix(flags.trim(), 8).ok()?;
    Some((flags & 0o4000 != 0, flags & 0o200_0000 != 0))
}

/// Whether connections come to sockets of a protocol as they do to TCP's.
pub(super) fn is_tcp(protocol: &str) -> bool {
    matches!(protocol, "TCP" | "TCPv6" | "MPTCP" | "MPTCPv6")
}

/// The most bytes of an address that matter (`struct sockaddr_in6`).
pub(super) const ADDRESS_MAX: usize = 28;

/// Reads a `struct sockaddr_in` or `sockaddr_in6`; None for any other, and where something is missing.
pub(super) fn address(bytes: &[u8]) -> Option<SocketAddr> {
    let (family, rest) = bytes.split_first_chunk()?;
    let (port, rest) = rest.split_first_chunk()?;
    let port = u16::from_be_bytes(*port);
    let ip: IpAddr = match u16::from_ne_bytes(*family) {
        2 => Ipv4Addr::from(*rest.first_chunk::<4>()?).into(),
        10 => Ipv6Addr::from(*rest.get(4..)?.first_chunk::<16>()?).into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests;
