//! PURE. What a keeper has noticed about the addresses that its program binds, in a fixed number of bytes.
//!
//! The parent says each kind once for all workers, since the programs of all slots are alike.
#![forbid(unsafe_code)]

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The length of a remark: its kind and two addresses.
pub(super) const LEN: usize = 1 + 2 * ADDRESS;

/// The length of an address: its family (4, 6, or 0 if there is none), its port and its IP address.
const ADDRESS: usize = 1 + 2 + 16;

/// What was noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// The program has got a socket to which more clients can connect than it has asked for.
    Wider = 1,
    /// It asks for IPv4, and the pool's socket is IPv6, whose addresses it would misread.
    IsIpv6,
    /// It accepts, and has bound others of the pool's addresses, not this one.
    Unclaimed,
    /// It listens on a socket of its own.
    Elsewhere,
    /// The address that it binds cannot be read.
    Hidden,
    /// One of its epoll instances already watches its socket, and would not watch the pool's.
    WatchedTooEarly,
    /// It binds the path of one of the pool's Unix sockets.
    Path,
}

const KINDS: [Kind; 7] =
    [Kind::Wider, Kind::IsIpv6, Kind::Unclaimed, Kind::Elsewhere, Kind::Hidden, Kind::WatchedTooEarly, Kind::Path];

/// The kind, the address that the program asks for, and that of the pool's. Its text follows the name of the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Remark {
    pub(crate) kind: Kind,
    pub(crate) asked: Option<SocketAddr>,
    pub(crate) own: Option<SocketAddr>,
}

impl Remark {
    pub(super) fn encode(self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[0] = self.kind as u8;
        for (address, bytes) in [self.asked, self.own].into_iter().zip(bytes[1..].chunks_exact_mut(ADDRESS)) {
            let Some(address) = address else { continue };
            bytes[1..3].copy_from_slice(&address.port().to_be_bytes());
            match address.ip() {
                IpAddr::V4(ip) => {
                    bytes[0] = 4;
                    bytes[3..7].copy_from_slice(&ip.octets());
                }
                IpAddr::V6(ip) => {
                    bytes[0] = 6;
                    bytes[3..].copy_from_slice(&ip.octets());
                }
            }
        }
        bytes
    }

    /// `None` if it means nothing.
    pub(super) fn decode(bytes: &[u8; LEN]) -> Option<Remark> {
        let kind = KINDS.into_iter().find(|kind| *kind as u8 == bytes[0])?;
        let (asked, own) = bytes[1..].split_at(ADDRESS);
        Some(Remark { kind, asked: address(asked)?, own: address(own)? })
    }
}

/// The inner value is `None` if there is no address, and the outer one if it means nothing.
fn address(bytes: &[u8]) -> Option<Option<SocketAddr>> {
    let (family, rest) = bytes.split_first()?;
    let (port, ip) = rest.split_first_chunk()?;
    let ip: IpAddr = match family {
        0 => return Some(None),
        4 => Ipv4Addr::from(*ip.first_chunk::<4>()?).into(),
        6 => Ipv6Addr::from(*ip.first_chunk::<16>()?).into(),
        _ => return None,
    };
    Some(Some(SocketAddr::new(ip, u16::from_be_bytes(*port))))
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |address: Option<SocketAddr>| address.map_or_else(|| "an address".to_owned(), |it| it.to_string());
        let (asked, own) = (shown(self.asked), shown(self.own));
        match self.kind {
            Kind::Wider => {
                write!(f, "binds {asked} and gets the pool's socket, {own}, to which more clients can connect")
            }
            Kind::IsIpv6 => write!(
                f,
                "binds {asked} and does not get the pool's socket, {own}: a program for IPv4 misreads IPv6 addresses; \
                 make the pool listen on {asked} instead, or also, if the program binds both"
            ),
            Kind::Unclaimed => write!(f, "does not bind {own}: connections there wait for ever; remove that --listen"),
            Kind::Elsewhere if self.own.is_none() => {
                write!(f, "listens on {asked}, which is not the pool's, so only one worker can; add --listen {asked}")
            }
            Kind::Elsewhere => write!(
                f,
                "listens on {asked}, which is not the pool's ({own}), so only one worker can; make the program listen \
                 on {own}, or add --listen {asked} if it needs both"
            ),
            Kind::Hidden => f.write_str(
                "binds an address that cannot be read, since its memory is hidden; make it take its socket from \
                 descriptor 3",
            ),
            Kind::WatchedTooEarly => write!(
                f,
                "watches a socket by epoll(7) before it binds it to {asked}, so it cannot get the pool's socket; make \
                 it take that from descriptor 3"
            ),
            Kind::Path => f.write_str(
                "binds the path of the pool's Unix socket, which is not given for that, since programs remove such a \
                 path when they close; make it take its socket from descriptor 3 on",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded_and_nothing_else() {
        for kind in KINDS {
            for (asked, own) in [("127.0.0.1:80", Some("0.0.0.0:81")), ("[2001:db8::5]:65535", None)] {
                let remark =
                    Remark { kind, asked: asked.parse().ok(), own: own.map(|own| own.parse().expect("an address")) };
                assert_eq!(Remark::decode(&remark.encode()), Some(remark));
                assert!(remark.to_string().lines().count() == 1);
            }
        }
        for (at, byte) in [(0, 0), (0, 8), (1, 5), (1 + ADDRESS, 1)] {
            let mut bytes = Remark { kind: Kind::Hidden, asked: None, own: None }.encode();
            bytes[at] = byte;
            assert_eq!(Remark::decode(&bytes), None, "{byte} at {at}");
        }
    }
}
