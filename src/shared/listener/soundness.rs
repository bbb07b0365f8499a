//! PURE. Whether a socket that workers have held can be passed on.
#![forbid(unsafe_code)]

use std::net::SocketAddr;

/// The kernel's facts about a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) kind: Kind,
    /// The local address of an IP socket.
    pub(super) address: Option<SocketAddr>,
    /// Whether it listens (`SO_ACCEPTCONN`).
    pub(super) listens: bool,
    /// Whether its reading side was shut down.
    pub(super) is_shut: bool,
    /// Whether it is connected, and so receives datagrams from one peer only.
    pub(super) is_connected: bool,
    /// Whether `SO_REUSEPORT` is set.
    pub(super) shares_port: bool,
    /// Whether `SO_BINDTODEVICE` is set.
    pub(super) is_bound_to_device: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Tcp,
    Udp,
    /// A stream socket.
    Unix,
    Other,
}

/// What a socket must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// A slot's own listening socket, in the SO_REUSEPORT group of its address.
    Tcp(SocketAddr),
    Udp(SocketAddr),
    /// A listening socket that all workers share.
    Shared,
}

/// Returns why a socket must not be passed on, if so.
pub(super) fn flaw(facts: &Facts, expected: Expected) -> Option<&'static str> {
    let (kinds, address) = match expected {
        Expected::Tcp(address) => (&[Kind::Tcp][..], Some(address)),
        Expected::Udp(address) => (&[Kind::Udp][..], Some(address)),
        Expected::Shared => (&[Kind::Tcp, Kind::Unix][..], None),
    };
    let is_own = expected != Expected::Shared;
    let flaws = [
        (!kinds.contains(&facts.kind), "it is another kind of socket"),
        (facts.is_shut, "it was shut down"),
        (!matches!(expected, Expected::Udp(_)) && !facts.listens, "it does not listen"),
        (is_own && facts.address != address, "it has another address"),
        (is_own && !facts.shares_port, "it does not share its port"),
        (is_own && facts.is_bound_to_device, "it is bound to one network interface"),
        (matches!(expected, Expected::Udp(_)) && facts.is_connected, "it is connected"),
    ];
    flaws.into_iter().find_map(|(applies, why)| applies.then_some(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_from_how_it_was_made_is_a_flaw() {
        let address = SocketAddr::from(([127, 0, 0, 1], 80));
        let tcp = Facts {
            kind: Kind::Tcp,
            address: Some(address),
            listens: true,
            is_shut: false,
            is_connected: false,
            shares_port: true,
            is_bound_to_device: false,
        };
        let udp = Facts { kind: Kind::Udp, listens: false, ..tcp };
        let unix = Facts { kind: Kind::Unix, address: None, shares_port: false, ..tcp };
        for (facts, expected) in [
            (tcp, Expected::Tcp(address)),
            (udp, Expected::Udp(address)),
            (unix, Expected::Shared),
            (Facts { shares_port: false, ..tcp }, Expected::Shared),
            (Facts { is_bound_to_device: true, ..tcp }, Expected::Shared),
        ] {
            assert_eq!(flaw(&facts, expected), None, "{facts:?} {expected:?}");
        }
        let other = Some(SocketAddr::from(([127, 0, 0, 1], 81)));
        for (facts, expected) in [
            (Facts { kind: Kind::Unix, ..tcp }, Expected::Tcp(address)),
            (udp, Expected::Tcp(address)),
            (Facts { listens: false, ..tcp }, Expected::Tcp(address)),
            (Facts { is_shut: true, ..tcp }, Expected::Tcp(address)),
            (Facts { address: other, ..tcp }, Expected::Tcp(address)),
            (Facts { address: None, ..tcp }, Expected::Tcp(address)),
            (Facts { shares_port: false, ..tcp }, Expected::Tcp(address)),
            (Facts { is_bound_to_device: true, ..tcp }, Expected::Tcp(address)),
            (tcp, Expected::Udp(address)),
            (Facts { is_connected: true, ..udp }, Expected::Udp(address)),
            (Facts { is_shut: true, ..udp }, Expected::Udp(address)),
            (udp, Expected::Shared),
            (Facts { kind: Kind::Other, ..unix }, Expected::Shared),
            (Facts { listens: false, ..unix }, Expected::Shared),
            (Facts { is_shut: true, ..unix }, Expected::Shared),
        ] {
            assert!(flaw(&facts, expected).is_some(), "{facts:?} {expected:?}");
        }
    }
}
