//! PURE. The PROXY protocol of HAProxy, versions 1 and 2 (doc/proxy-protocol.txt there): what a proxy of TCP
//! connections reports about its client, before the client's first byte.
//!
//! Its input: the first bytes of a connection, as many as there are. Its output: the client's address, and where the
//! client's own bytes begin. Only an incomplete header is held, which is short: what a header of version 2 has after
//! its addresses (TLV) is skipped as it arrives.
#![forbid(unsafe_code)]

#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The meaning of the first bytes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The beginning of a header.
    NeedMore,
    /// A header.
    Header(Header),
    /// No header, or an invalid one, and why.
    Invalid(&'static str),
}

/// A header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Its length in bytes.
    pub(crate) len: usize,
    /// How many bytes without useful information follow it.
    pub(crate) skip: usize,
    /// The client's address. `None` if the connection is the proxy's own, as for a health check, or the header does not
    /// say whose it is.
    pub(crate) source: Option<SocketAddr>,
}

/// The start of version 1, as text.
const WORDS: &[u8] = b"PROXY ";

/// The maximum length of a header of version 1, including its end.
const WORDS_MAX: usize = 107;

/// The start of version 2, as bytes.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The signature, version and command, family and protocol, and the length of the rest.
const FIXED: usize = 16;

const NONE: &str = "it does not begin with the PROXY protocol's header";
const MALFORMED: &str = "its header of the PROXY protocol is malformed";

/// Parses the first bytes of a connection.
pub(crate) fn parse(input: &[u8]) -> Found {
    let begins_with = |start: &[u8]| input.iter().zip(start).all(|(byte, expected)| byte == expected);
    if begins_with(SIGNATURE) {
        bytes(input)
    } else if begins_with(WORDS) {
        words(input)
    } else {
        Found::Invalid(NONE)
    }
}

/// Version 1: `PROXY TCP4 source destination port port` and a line end.
fn words(input: &[u8]) -> Found {
    let beginning = &input[..input.len().min(WORDS_MAX)];
    let Some(end) = beginning.windows(2).position(|pair| pair == b"\r\n") else {
        return if input.len() < WORDS_MAX { Found::NeedMore } else { Found::Invalid(MALFORMED) };
    };
    let Ok(line) = std::str::from_utf8(&input[WORDS.len()..end.max(WORDS.len())]) else {
        return Found::Invalid(MALFORMED);
    };
    let header = |source| Found::Header(Header { len: end + 2, skip: 0, source });
    let mut parts = line.split(' ');
    let is_v6 = match parts.next() {
        // What follows must be ignored.
        Some("UNKNOWN") => return header(None),
        Some("TCP4") => false,
        Some("TCP6") => true,
        _ => return Found::Invalid(MALFORMED),
    };
    let mut address = || {
        let text = parts.next()?;
        match is_v6 {
            false => text.parse().ok().map(IpAddr::V4),
            true => text.parse().ok().map(IpAddr::V6),
        }
    };
    let (source, destination) = (address(), address());
    let (port, other, more) = (parts.next().and_then(port), parts.next().and_then(port), parts.next());
    match (source, destination, port, other, more) {
        (Some(source), Some(_), Some(port), Some(_), None) => header(Some(SocketAddr::new(source, port))),
        _ => Found::Invalid(MALFORMED),
    }
}

/// Digits without leading zeros.
fn port(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain)
}

/// Version 2.
fn bytes(input: &[u8]) -> Found {
    let version_and_command = input.get(SIGNATURE.len());
    let is_of_client = match version_and_command {
        None => return Found::NeedMore,
        Some(0x20) => false,
        Some(0x21) => true,
        Some(_) => return Found::Invalid(MALFORMED),
    };
    let addresses = match input.get(SIGNATURE.len() + 1) {
        None => return Found::NeedMore,
        // The proxy's own connection: what follows must be ignored.
        Some(_) if !is_of_client => 0,
        Some(0x11) => 12,
        Some(0x21) => 36,
        // Unspecified, or without an address.
        Some(family) if family >> 4 <= 3 && family & 15 <= 2 => 0,
        Some(_) => return Found::Invalid(MALFORMED),
    };
    let Some(behind) = input.get(SIGNATURE.len() + 2..FIXED) else { return Found::NeedMore };
    let behind = usize::from(u16::from_be_bytes([behind[0], behind[1]]));
    let Some(skip) = behind.checked_sub(addresses) else { return Found::Invalid(MALFORMED) };
    let len = FIXED + addresses;
    let Some(said) = input.get(FIXED..len) else { return Found::NeedMore };
    let source = match said.len() {
        12 => said.first_chunk::<4>().map(|it| IpAddr::V4(Ipv4Addr::from(*it))).zip(said.get(8..10)),
        36 => said.first_chunk::<16>().map(|it| IpAddr::V6(Ipv6Addr::from(*it))).zip(said.get(32..34)),
        _ => None,
    };
    let source = source.map(|(address, port)| SocketAddr::new(address, u16::from_be_bytes([port[0], port[1]])));
    Found::Header(Header { len, skip, source })
}
