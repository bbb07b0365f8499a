//! PURE. The client of a proxy: the field Forwarded (RFC 7239), and the older X-Forwarded-For, -Proto and -Host.
//!
//! Each proxy adds the address of its own client at the end. So only the addresses that trusted proxies have added are
//! reliable: from the end, up to the first address that is not one of theirs. The client may have invented those before
//! it.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::headers::Headers;
use super::host;
use crate::shared::config::{ForwardedHeader, Proxies};

/// Which proxies may name their clients, and in which field.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TrustedProxies<'a> {
    pub(crate) proxies: &'a Proxies,
    pub(crate) header: ForwardedHeader,
}

/// What is known about the client behind proxies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Origin<'a> {
    /// `None` on a Unix socket without further information.
    pub(crate) address: Option<IpAddr>,
    pub(crate) is_https: bool,
    /// The host that the client asked, valid and not empty, if a proxy names it.
    pub(crate) host: Option<&'a str>,
}

/// The maximum number of addresses to examine. A chain of proxies is short, and a longer one is an attack.
const HOPS_MAX: usize = 32;

/// Finds the client for which `peer` makes the request.
pub(super) fn origin<'a>(peer: Option<SocketAddr>, fields: &Headers<'a>, trust: TrustedProxies<'_>) -> Origin<'a> {
    let mut address = peer.map(|peer| peer.ip().to_canonical());
    if !trust.proxies.trust(address) {
        return Origin { address, ..Origin::default() };
    }
    let named = |name: &'static str| {
        let values = fields.clone().filter(move |(field, _)| field.eq_ignore_ascii_case(name));
        values.map(|(_, value)| value)
    };
    let is_standard = match trust.header {
        ForwardedHeader::Forwarded => true,
        ForwardedHeader::XForwardedFor => false,
        ForwardedHeader::Auto => named("x-forwarded-for").next().is_none() && named("forwarded").next().is_some(),
    };
    if is_standard {
        let mut origin = Origin { address, ..Origin::default() };
        for element in from_the_end(named("forwarded")).take(HOPS_MAX) {
            let element = Element::parse(element);
            let Some(client) = element.client else { break };
            // What was said about an earlier hop does not apply to this one.
            origin = Origin { address: Some(client), is_https: element.is_https, host: element.host };
            if !trust.proxies.trust(Some(client)) {
                break;
            }
        }
        return origin;
    }
    let mut hops = 0;
    for client in from_the_end(named("x-forwarded-for")).take(HOPS_MAX).map_while(node) {
        (address, hops) = (Some(client), hops + 1);
        if !trust.proxies.trust(Some(client)) {
            break;
        }
    }
    // Either each proxy adds to these as well, or only the first one sets them.
    let proto = value_at(|| from_the_end(named("x-forwarded-proto")), hops);
    let host = value_at(|| from_the_end(named("x-forwarded-host")), hops);
    Origin { address, is_https: proto.is_some_and(is_https), host: host.and_then(valid_host) }
}

/// The value at the same place from the end as the client's address, or else the first one.
fn value_at<'a, I: Iterator<Item = &'a [u8]>>(values: impl Fn() -> I, hops: usize) -> Option<&'a [u8]> {
    values().take(hops.max(1)).last()
}

/// The elements of a list field (RFC 9110 section 5.6.1), last first.
fn from_the_end<'a>(values: impl DoubleEndedIterator<Item = &'a [u8]>) -> impl Iterator<Item = &'a [u8]> {
    values.rev().flat_map(|line| Elements(Some(line))).filter(|element| !element.is_empty())
}

/// The elements of one line of a list, last first. Commas in quotes do not separate. Quotes are matched from the end,
/// too, so an unclosed quote of the client does not reach what a proxy has appended.
struct Elements<'a>(Option<&'a [u8]>);

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let line = self.0?;
        let mut is_quoted = false;
        let comma = line.iter().enumerate().rposition(|(index, byte)| match byte {
            b'"' => {
                // An escaped quote within quotes is not a quote.
                is_quoted = !is_quoted || index > 0 && line[index - 1] == b'\\';
                false
            }
            byte => *byte == b',' && !is_quoted,
        });
        let (before, element) = match comma {
            Some(comma) => (Some(&line[..comma]), &line[comma + 1..]),
            None => (None, line),
        };
        self.0 = before;
        Some(element.trim_ascii())
    }
}

/// An element of Forwarded.
#[derive(Default)]
struct Element<'a> {
    client: Option<IpAddr>,
    is_https: bool,
    host: Option<&'a str>,
}

impl<'a> Element<'a> {
    /// Parses it; without a client if anything is malformed.
    fn parse(text: &'a [u8]) -> Element<'a> {
        let (mut element, mut rest) = (Element::default(), text);
        loop {
            let Some((name, value, behind)) = pair(rest) else { return Element::default() };
            match name {
                // If it occurs twice, it is not clear which one is meant.
                name if name.eq_ignore_ascii_case(b"for") && element.client.is_none() => match node(value) {
                    Some(client) => element.client = Some(client),
                    None => return Element::default(),
                },
                name if name.eq_ignore_ascii_case(b"for") => return Element::default(),
                name if name.eq_ignore_ascii_case(b"proto") => element.is_https = is_https(value),
                name if name.eq_ignore_ascii_case(b"host") => element.host = valid_host(value),
                _ => {}
            }
            match behind.trim_ascii_start() {
                [] => return element,
                [b';', behind @ ..] => rest = behind.trim_ascii_start(),
                _ => return Element::default(),
            }
        }
    }
}

/// A name, its value without quotes, and the rest.
fn pair(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let equals = text.iter().position(|byte| *byte == b'=')?;
    let (name, value) = (&text[..equals], &text[equals + 1..]);
    match value.strip_prefix(b"\"") {
        Some(quoted) => {
            let end = quoted.iter().position(|byte| *byte == b'"')?;
            // Nothing that is read here needs escapes.
            (!quoted[..end].contains(&b'\\')).then_some((name, &quoted[..end], &quoted[end + 1..]))
        }
        None => {
            let end = value.iter().position(|byte| *byte == b';').unwrap_or(value.len());
            let (value, behind) = value.split_at(end);
            (!value.contains(&b'"')).then_some((name, value.trim_ascii_end(), behind))
        }
    }
}

/// An address, perhaps with a port (RFC 7239 section 6). IPv6 without brackets has no port, as in X-Forwarded-For.
/// Unknown and obfuscated identifiers are no addresses.
fn node(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let address = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            if !port.is_empty() && !is_port(port.strip_prefix(':')?) {
                return None;
            }
            IpAddr::V6(address.parse::<Ipv6Addr>().ok()?)
        }
        None => match text.split_once(':') {
            Some((address, port)) if !port.contains(':') => {
                if !is_port(port) {
                    return None;
                }
                IpAddr::V4(address.parse::<Ipv4Addr>().ok()?)
            }
            _ => text.parse::<IpAddr>().ok()?,
        },
    };
    Some(address.to_canonical())
}

/// Digits, or a name in their place.
fn is_port(text: &str) -> bool {
    let name = text.strip_prefix('_');
    match name {
        Some(name) => !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)),
        None => (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

fn is_https(scheme: &[u8]) -> bool {
    [&b"https"[..], b"wss"].iter().any(|secure| scheme.eq_ignore_ascii_case(secure))
}

fn valid_host(host: &[u8]) -> Option<&str> {
    (!host.is_empty() && host::is_valid(host)).then(|| std::str::from_utf8(host).ok()).flatten()
}

#[cfg(test)]
#[path = "forwarded_tests.rs"]
mod tests;
