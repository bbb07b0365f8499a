//! PURE. What goes along with a connection that is passed to another process.
//!
//! ```text
//!   version   1 byte    1
//!   flags     1 byte
//!   requests  4 bytes   how many the connection has had
//!   waited    4 bytes   for how long it has waited for a request, or for the rest of its head, in milliseconds
//!   source    0, 6 or 18 bytes: address and port of the client, as told by a proxy (flags)
//!   unread    the rest: what the client has sent of its next request
//! ```
//!
//! Numbers are little-endian. What the kernel knows, such as the peer's address, is not in it. A record of another
//! version, with another flag or of another length is not read at all, so a change needs a new version; the two pools
//! of an upgrade may be different programs.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// The version that this program writes and reads.
const VERSION: u8 = 1;

const IS_NEW: u8 = 1;
const AWAITS_HEADER: u8 = 2;
const SOURCE_V4: u8 = 4;
const SOURCE_V6: u8 = 8;
const FLAGS: u8 = IS_NEW | AWAITS_HEADER | SOURCE_V4 | SOURCE_V6;

const FIXED: usize = 10;

/// The maximum length of the unread bytes. A connection with more is not passed on.
pub(crate) const UNREAD_MAX: usize = 64 * 1024;

/// The maximum length of a record.
pub(crate) const RECORD_MAX: usize = FIXED + 18 + UNREAD_MAX;

/// What is known of a connection besides its socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    /// Whether it has not had a complete request yet, so that its first head must come in time.
    pub(crate) is_new: bool,
    /// Whether the header of the PROXY protocol, which comes first, is not complete yet.
    pub(crate) awaits_header: bool,
    pub(crate) requests: u32,
    /// For how long it has waited.
    pub(crate) waited: Duration,
    /// The client, as told by the header of the PROXY protocol.
    pub(crate) source: Option<SocketAddr>,
    /// What the client has sent of its next request, or of the header.
    pub(crate) unread: &'a [u8],
}

impl<'a> Record<'a> {
    /// Writes it to `bytes`, which it clears first. `false` if it has too many unread bytes.
    pub(crate) fn encode(&self, bytes: &mut Vec<u8>) -> bool {
        bytes.clear();
        if self.unread.len() > UNREAD_MAX {
            return false;
        }
        let source = match self.source {
            None => 0,
            Some(SocketAddr::V4(_)) => SOURCE_V4,
            Some(SocketAddr::V6(_)) => SOURCE_V6,
        };
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        bytes.extend([VERSION, flag(self.is_new, IS_NEW) | flag(self.awaits_header, AWAITS_HEADER) | source]);
        bytes.extend(self.requests.to_le_bytes());
        bytes.extend(u32::try_from(self.waited.as_millis()).unwrap_or(u32::MAX).to_le_bytes());
        match self.source.map(|source| (source.ip(), source.port())) {
            None => {}
            Some((IpAddr::V4(address), port)) => {
                bytes.extend(address.octets());
                bytes.extend(port.to_le_bytes());
            }
            Some((IpAddr::V6(address), port)) => {
                bytes.extend(address.octets());
                bytes.extend(port.to_le_bytes());
            }
        }
        bytes.extend_from_slice(self.unread);
        true
    }

    /// `None` if it is malformed or of another version.
    pub(crate) fn decode(bytes: &'a [u8]) -> Option<Record<'a>> {
        let ([VERSION, flags, r0, r1, r2, r3, w0, w1, w2, w3], rest) = bytes.split_first_chunk::<FIXED>()? else {
            return None;
        };
        if flags & !FLAGS != 0 || flags & (SOURCE_V4 | SOURCE_V6) == SOURCE_V4 | SOURCE_V6 {
            return None;
        }
        let (source, unread) = match flags & (SOURCE_V4 | SOURCE_V6) {
            SOURCE_V4 => {
                let (address, rest) = rest.split_first_chunk::<4>()?;
                let (port, rest) = rest.split_first_chunk::<2>()?;
                (Some((Ipv4Addr::from(*address), u16::from_le_bytes(*port)).into()), rest)
            }
            SOURCE_V6 => {
                let (address, rest) = rest.split_first_chunk::<16>()?;
                let (port, rest) = rest.split_first_chunk::<2>()?;
                (Some((Ipv6Addr::from(*address), u16::from_le_bytes(*port)).into()), rest)
            }
            _ => (None, rest),
        };
        (unread.len() <= UNREAD_MAX).then(|| Record {
            is_new: flags & IS_NEW != 0,
            awaits_header: flags & AWAITS_HEADER != 0,
            requests: u32::from_le_bytes([*r0, *r1, *r2, *r3]),
            waited: Duration::from_millis(u32::from_le_bytes([*w0, *w1, *w2, *w3]).into()),
            source,
            unread,
        })
    }
}

/// The entry point of a fuzzer ([`crate::fuzzing`]).
#[cfg(any(fuzzing, test))]
#[allow(missing_docs, unreachable_pub)]
pub fn fuzz(bytes: &[u8]) {
    let Some(record) = Record::decode(bytes) else { return };
    let mut again = Vec::new();
    assert!(record.encode(&mut again), "what was read can be written");
    assert_eq!(again, bytes, "nothing is read that is not written: {record:?}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::random::random_below;

    #[test]
    fn what_is_written_is_read() {
        let mut draw = random_below(7);
        let (mut bytes, unread) = (Vec::new(), vec![b'x'; UNREAD_MAX]);
        for _ in 0..2000 {
            let source = match draw(3) {
                0 => None,
                1 => Some(SocketAddr::from((Ipv4Addr::from(draw(1 << 31) as u32), draw(65_536) as u16))),
                _ => Some(SocketAddr::from((Ipv6Addr::from(u128::from(draw(1 << 31)) << 90), draw(65_536) as u16))),
            };
            let record = Record {
                is_new: draw(2) == 0,
                awaits_header: draw(2) == 0,
                requests: draw(1 << 31) as u32,
                waited: Duration::from_millis(draw(1 << 31)),
                source,
                unread: &unread[..draw(UNREAD_MAX as u64 + 1) as usize],
            };
            assert!(record.encode(&mut bytes) && bytes.len() <= RECORD_MAX);
            assert_eq!(Record::decode(&bytes), Some(record));
        }
    }

    #[test]
    fn what_no_sender_writes_is_not_read() {
        let mut bytes = Vec::new();
        let record = Record { source: Some(([192, 0, 2, 1], 80).into()), ..Record::default() };
        assert!(record.encode(&mut bytes));
        for len in 0..bytes.len() {
            assert_eq!(Record::decode(&bytes[..len]), None, "half a record: {len}");
        }
        for (at, value) in [(0, 0), (0, 2), (1, 16), (1, SOURCE_V4 | SOURCE_V6), (1, 0x80)] {
            let mut damaged = bytes.clone();
            damaged[at] = value;
            assert_eq!(Record::decode(&damaged), None, "{at}: {value}");
        }
        let unread = vec![0; UNREAD_MAX + 1];
        assert!(!Record { unread: &unread, ..Record::default() }.encode(&mut bytes));
    }
}
