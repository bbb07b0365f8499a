//! PURE. The proxies that may name the client of a request.
#![forbid(unsafe_code)]

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use super::values::list;

/// Networks of proxies, and whether the peers on Unix sockets are proxies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Proxies {
    networks: Vec<Network>,
    unix: bool,
}

/// The addresses that share a prefix (RFC 4632).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    /// IPv4 addresses are mapped to IPv6.
    first: Ipv6Addr,
    prefix: u32,
}

/// The length of the prefix that marks a mapped IPv4 address.
const MAPPED: u32 = 96;

impl Proxies {
    /// Parses a list of networks, addresses, and the word `unix`.
    pub(super) fn parse(text: &str) -> Result<Proxies, String> {
        let mut proxies = Proxies::default();
        for item in list(text) {
            match item {
                "unix" => proxies.unix = true,
                item => proxies.networks.push(Network::parse(item)?),
            }
        }
        Ok(proxies)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.networks.is_empty() && !self.unix
    }

    /// Whether this peer is a trusted proxy. A peer on a Unix socket has no address.
    pub(crate) fn trust(&self, peer: Option<IpAddr>) -> bool {
        peer.map_or(self.unix, |address| self.networks.iter().any(|network| network.has(address)))
    }
}

impl fmt::Display for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let networks = self.networks.iter().map(Network::to_string);
        let items: Vec<String> = networks.chain(self.unix.then(|| "unix".to_owned())).collect();
        f.write_str(&items.join(","))
    }
}

impl Network {
    fn parse(text: &str) -> Result<Network, String> {
        let problem = || format!("{text} must be a network as in 10.0.0.0/8 or fd00::/8, an address, or unix");
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| problem())?;
        let (first, bits) = match address {
            IpAddr::V4(address) => (address.to_ipv6_mapped(), 32),
            IpAddr::V6(address) => (address, 128),
        };
        let is_number = |digits: &&str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let prefix = match prefix {
            None => bits,
            Some(digits) => {
                let prefix = Some(digits).filter(is_number).and_then(|digits| digits.parse::<u32>().ok());
                prefix.filter(|prefix| *prefix <= bits).ok_or_else(problem)?
            }
        };
        let network = Network { first, prefix: 128 - bits + prefix };
        let masked = Ipv6Addr::from(u128::from(first) & network.mask());
        if masked != first {
            let meant = Network { first: masked, ..network };
            return Err(format!("{text} has bits set after its prefix; write {meant}"));
        }
        Ok(network)
    }

    fn mask(&self) -> u128 {
        u128::MAX.checked_shl(128 - self.prefix).unwrap_or(0)
    }

    fn has(&self, address: IpAddr) -> bool {
        let address = match address {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        u128::from(address) & self.mask() == u128::from(self.first)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first.to_ipv4_mapped().filter(|_| self.prefix >= MAPPED) {
            Some(address) => write!(f, "{address}/{}", self.prefix - MAPPED),
            None => write!(f, "{}/{}", self.first, self.prefix),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_the_addresses_that_begin_with_its_bits() {
        for (list, address, is_trusted) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("10.0.0.0/8", "::10.1.2.3", false),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.6", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "203.0.113.9", true),
            ("fd00::/8", "fdff::1", true),
            ("fd00::/8", "fe80::1", false),
            ("2001:db8::1", "2001:db8::1", true),
            ("::ffff:10.0.0.0/104", "10.9.9.9", true),
            ("192.0.2.0/31 fd00::/8", "fd00::1", true),
            ("unix", "127.0.0.1", false),
        ] {
            let proxies = Proxies::parse(list).expect(list);
            assert_eq!(proxies.trust(Some(address.parse().expect(address))), is_trusted, "{list} {address}");
        }
        for (list, is_trusted) in [("unix", true), ("unix,10.0.0.0/8", true), ("0.0.0.0/0,::/0", false), ("", false)] {
            assert_eq!(Proxies::parse(list).expect(list).trust(None), is_trusted, "{list}");
        }
    }

    #[test]
    fn a_list_is_shown_as_it_is_read() {
        for (text, shown) in [
            ("", ""),
            ("unix 10.0.0.0/8", "10.0.0.0/8,unix"),
            ("127.0.0.1,::1", "127.0.0.1/32,::1/128"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("0.0.0.0/0,::/0", "0.0.0.0/0,::/0"),
        ] {
            let proxies = Proxies::parse(text).expect(text);
            assert_eq!(proxies.to_string(), shown);
            assert_eq!(Proxies::parse(shown), Ok(proxies.clone()));
            assert_eq!(proxies.is_empty(), shown.is_empty());
        }
    }

    #[test]
    fn what_is_no_network_is_refused_and_said_how_to_write() {
        for (text, problem) in [
            ("10.0.0.0/33", "10.0.0.0/33 must be a network"),
            ("::/129", "::/129 must be"),
            ("10.0.0.0/", "must be"),
            ("10.0.0.0/+8", "must be"),
            ("10.0.0.0/8/8", "must be"),
            ("10.0.0/8", "must be"),
            ("proxy.example", "proxy.example must be a network as in 10.0.0.0/8 or fd00::/8, an address, or unix"),
            ("Unix", "must be"),
            ("127.0.0.1:80", "must be"),
            ("10.0.0.1/8", "10.0.0.1/8 has bits set after its prefix; write 10.0.0.0/8"),
            ("fd00::1/8", "write fd00::/8"),
        ] {
            let found = Proxies::parse(text).expect_err(text);
            assert!(found.contains(problem), "{text}: {found}");
        }
    }
}
