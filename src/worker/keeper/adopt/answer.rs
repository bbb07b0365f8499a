//! PURE. What happens when a program binds an address or listens: facts in, replies out.
//!
//! ```text
//!   bind(2) of an address ─► one of the pool's sockets serves it? ─► of TCP, and fit for its family? ─► Give
//!                                       │ no                                   │ no
//!                                       └──────────────► GoOn ◄────────────────┘
//!   listen(2) on a socket ─► it is the pool's, and listens? ─► Done, else GoOn
//! ```
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// The kernel carries it out.
    GoOn,
    /// It succeeds without any effect.
    Done,
    /// The program's socket is replaced by a copy of this one of the pool's.
    Give(usize),
}

/// What to report about a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// The program binds this address, and gets the pool's socket for it.
    Given { asked: SocketAddr, given: SocketAddr },
    /// The same, and clients can connect that the program would have excluded.
    Wider { asked: SocketAddr, given: SocketAddr },
    /// It asks for IPv4, and the pool's socket is IPv6, whose addresses it would misread.
    IsIpv6 { asked: SocketAddr, given: SocketAddr },
    /// It accepts, and has bound none of the pool's addresses.
    ByNumber,
    /// It accepts, and has bound others of the pool's addresses, not this one.
    Unclaimed { at: SocketAddr },
    /// It listens on a socket of its own. `own` is an address of the pool's.
    Elsewhere { at: SocketAddr, own: Option<SocketAddr> },
    /// The address that it binds cannot be read.
    Hidden,
    /// One of its epoll instances already watches its socket, and would not watch the pool's.
    WatchedTooEarly { asked: SocketAddr },
    /// It binds the path of one of the pool's Unix sockets.
    Path,
}

/// Facts about the socket of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SocketFacts {
    /// Whether it is TCP, or a protocol that behaves like it.
    pub(super) is_tcp: bool,
    pub(super) inode: u64,
    /// Which of the pool's sockets programs inherit at its number.
    pub(super) inherits: Option<usize>,
    /// Whether the program watches it with epoll.
    pub(super) is_watched: bool,
}

/// The maximum number of bound sockets that are remembered until they listen.
const BOUND_MAX: usize = 8;

/// The calls of a program and of all processes that it has started.
#[derive(Debug)]
pub(super) struct Answers {
    offered: Vec<SocketAddr>,
    given: Vec<Given>,
    /// TCP sockets that it has bound elsewhere, or has tried to bind.
    bound: Vec<Bound>,
    /// What was reported already.
    reported: Vec<Finding>,
}

/// A TCP socket that is not the pool's.
#[derive(Clone, Copy, Debug)]
struct Bound {
    inode: u64,
    at: SocketAddr,
    listens: bool,
}

/// Whether the program has bound an address, and so was given its socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Given {
    #[default]
    No,
    /// Only at descriptors of its own, besides the one that it has inherited.
    Besides,
    /// At the descriptor by which it had inherited the socket.
    InPlace,
}

impl Answers {
    /// `offered` are the addresses of the pool's sockets.
    pub(super) fn new(offered: Vec<SocketAddr>) -> Answers {
        Answers { given: vec![Given::No; offered.len()], offered, bound: Vec::new(), reported: Vec::new() }
    }

    pub(super) fn bind(&mut self, asked: SocketAddr, facts: SocketFacts) -> (Reply, Option<Finding>) {
        if !facts.is_tcp || asked.port() == 0 {
            return (Reply::GoOn, None);
        }
        let Some((index, fits)) = choose(asked, &self.offered) else {
            self.bound.retain(|bound| bound.inode != facts.inode);
            self.bound.truncate(BOUND_MAX - 1);
            self.bound.insert(0, Bound { inode: facts.inode, at: asked, listens: false });
            return (Reply::GoOn, None);
        };
        let given = self.offered[index];
        match fits {
            Fit::Misread => (Reply::GoOn, self.tell(Finding::IsIpv6 { asked, given })),
            // It is better to fail at once than to wait for ever.
            _ if facts.is_watched => (Reply::GoOn, self.tell(Finding::WatchedTooEarly { asked })),
            Fit::Same => (self.give(index, facts.inherits), self.tell(Finding::Given { asked, given })),
            Fit::Wider => (self.give(index, facts.inherits), self.tell(Finding::Wider { asked, given })),
        }
    }

    fn give(&mut self, index: usize, inherits: Option<usize>) -> Reply {
        let given = if inherits == Some(index) { Given::InPlace } else { Given::Besides };
        self.given[index] = self.given[index].max(given);
        Reply::Give(index)
    }

    /// Whether it does not use the descriptor by which it has inherited a socket.
    pub(super) fn is_unused(&self, index: usize) -> bool {
        self.given.get(index) == Some(&Given::Besides)
    }

    /// The program waits for connections.
    pub(super) fn ready(&mut self) -> Option<Finding> {
        let at = self.unclaimed()?;
        if self.given.iter().any(|given| *given != Given::No) {
            return self.tell(Finding::Unclaimed { at });
        }
        self.tell(Finding::ByNumber)
    }

    /// `is_pools` says that it is one of the pool's sockets, which listens.
    pub(super) fn listen(&mut self, inode: u64, is_pools: bool) -> (Reply, Option<Finding>) {
        if is_pools {
            // The program's backlog would shorten the queue that it shares.
            return (Reply::Done, None);
        }
        let bound = self.bound.iter_mut().find(|bound| bound.inode == inode);
        let at = bound.map(|bound| {
            bound.listens = true;
            bound.at
        });
        let own = self.unclaimed().or_else(|| self.offered.first().copied());
        (Reply::GoOn, at.and_then(|at| self.tell(Finding::Elsewhere { at, own })))
    }

    /// The first of the pool's addresses that it has not bound.
    fn unclaimed(&self) -> Option<SocketAddr> {
        let index = self.given.iter().position(|given| *given == Given::No)?;
        self.offered.get(index).copied()
    }

    /// The address elsewhere that it has bound last, and whether it listens there. If not, it may have failed to bind
    /// it.
    pub(super) fn elsewhere(&self) -> Option<(SocketAddr, bool)> {
        self.bound.first().map(|bound| (bound.at, bound.listens))
    }

    /// The address or the socket cannot be inspected.
    pub(super) fn hidden(&mut self) -> (Reply, Option<Finding>) {
        (Reply::GoOn, self.tell(Finding::Hidden))
    }

    /// It binds the path of one of the pool's Unix sockets, which it would remove when it closes.
    pub(super) fn path(&mut self) -> (Reply, Option<Finding>) {
        (Reply::GoOn, self.tell(Finding::Path))
    }

    /// Reports each kind once.
    fn tell(&mut self, note: Finding) -> Option<Finding> {
        let kind = std::mem::discriminant(&note);
        let is_new = self.reported.iter().all(|earlier| std::mem::discriminant(earlier) != kind);
        is_new.then(|| self.reported.push(note)).map(|()| note)
    }
}

/// How well one of the pool's sockets fits what the program asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    Misread,
    Wider,
    Same,
}

/// The socket that fits an address best.
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
        // Fewer clients than it has asked for, as configured for the pool.
        () if ip.is_unspecified() => Fit::Same,
        () if ip.is_loopback() && own.is_loopback() => Fit::Same,
        () if own.is_unspecified() && is_within(ip, offered.ip()) => Fit::Wider,
        () => return None,
    };
    // An IPv4 program has no space for an IPv6 address; an IPv6 program understands both.
    Some(if asked.is_ipv4() && offered.is_ipv6() { Fit::Misread } else { fit })
}

/// Whether a wildcard covers an address: that of IPv4 covers IPv4 addresses, and the loopback address.
fn is_within(ip: IpAddr, wildcard: IpAddr) -> bool {
    wildcard.is_ipv6() || ip.is_ipv4() || ip.is_loopback()
}

/// The new value of O_NONBLOCK on one of the pool's sockets, which all its holders share; `None` to keep it. `wants` is
/// the value on the program's own socket. `is_shared` says that another program may accept from the pool's socket,
/// which a blocking socket would hold up.
pub(super) fn nonblocking(wants: bool, is_shared: bool) -> Option<bool> {
    match (wants, is_shared) {
        (true, _) => Some(true),
        (false, true) => None,
        (false, false) => Some(false),
    }
}

/// The flags of a descriptor by its `/proc/PID/fdinfo/FD`: O_NONBLOCK, and whether execve(2) closes it.
pub(super) fn flags(fdinfo: &str) -> Option<(bool, bool)> {
    let flags = fdinfo.lines().find_map(|line| line.strip_prefix("flags:"))?;
    let flags = u32::from_str_radix(flags.trim(), 8).ok()?;
    Some((flags & 0o4000 != 0, flags & 0o200_0000 != 0))
}

/// Whether sockets of a protocol get connections as TCP sockets do.
pub(super) fn is_tcp(protocol: &str) -> bool {
    matches!(protocol, "TCP" | "TCPv6" | "MPTCP" | "MPTCPv6")
}

/// The maximum number of relevant bytes of an address (`struct sockaddr_un`).
pub(super) const ADDRESS_MAX: usize = 110;

/// Parses a `struct sockaddr_un` with a path; `None` for any other.
pub(super) fn path(bytes: &[u8]) -> Option<&[u8]> {
    let (family, rest) = bytes.split_first_chunk()?;
    let path = rest.split(|byte| *byte == 0).next()?;
    (u16::from_ne_bytes(*family) == 1 && !path.is_empty()).then_some(path)
}

/// Parses a `struct sockaddr_in` or `sockaddr_in6`; `None` for any other or an incomplete one.
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
