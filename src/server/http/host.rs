//! The authority of a request: `uri-host [ ":" port ]` (RFC 9110 section 4.2, RFC 3986 section 3.2.2).

use crate::sys::scan::{Cursor, Set, Steps};

/// The characters of a name besides percent-encoded bytes: unreserved / sub-delims.
static NAME: Set = Set::of(b"-._~!$&'()*+,;=0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz");

static DIGIT: Set = Set::of(b"0123456789");

/// As [`is_valid`], in wide steps for the hosts of nearly all requests. `behind` was the rest at `cursor` before the
/// host.
#[inline(always)]
pub(super) fn is_valid_at<S: Steps>(host: &[u8], behind: &[u8], cursor: &Cursor<'_, S>) -> bool {
    let name = cursor.count(behind, &NAME);
    match (host.get(name..), behind.get(name + 1..)) {
        (Some([]), _) => true,
        // Nearly all ports have less than five digits.
        (Some([b':', port @ ..]), Some(behind)) if name > 0 && port.len() < 5 => {
            cursor.count(behind, &DIGIT) == port.len()
        }
        _ => is_valid(host),
    }
}

/// Whether `host` is allowed in a Host field. An empty one is, in HTTP/1.0. A port alone is not, as in a URI (RFC 9110
/// section 4.2.1).
#[cold]
pub(super) fn is_valid(host: &[u8]) -> bool {
    if host.starts_with(b":") {
        return false;
    }
    let port = match host.strip_prefix(b"[") {
        None => match skip_name(host) {
            Some(port) => port,
            None => return false,
        },
        Some(literal) => {
            let Some(end) = literal.iter().position(|byte| *byte == b']') else { return false };
            if !is_ip_literal(&literal[..end]) {
                return false;
            }
            &literal[end + 1..]
        }
    };
    match port.strip_prefix(b":") {
        None => port.is_empty(),
        Some(digits) => is_port(digits),
    }
}

/// The digits of a valid port, or none (RFC 3986 section 3.2.3).
fn is_port(digits: &[u8]) -> bool {
    let is_number = || std::str::from_utf8(digits).is_ok_and(|digits| digits.parse::<u16>().is_ok());
    digits.is_empty() || digits.iter().all(u8::is_ascii_digit) && is_number()
}

/// Skips a `reg-name`, of which an IPv4 address is a special case.
fn skip_name(host: &[u8]) -> Option<&[u8]> {
    let mut rest = host;
    loop {
        let end = rest.iter().position(|byte| !NAME.contains(*byte)).unwrap_or(rest.len());
        rest = match &rest[end..] {
            [b'%', a, b, after @ ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => after,
            port @ ([] | [b':', ..]) => return Some(port),
            _ => return None,
        };
    }
}

/// An IPv6 address, or `IPvFuture`.
fn is_ip_literal(literal: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(literal) else { return false };
    if let Some(future) = text.strip_prefix(['v', 'V']) {
        let Some((version, address)) = future.split_once('.') else { return false };
        let valid = |byte: u8| NAME.contains(byte) || byte == b':';
        return !version.is_empty()
            && version.bytes().all(|byte| byte.is_ascii_hexdigit())
            && !address.is_empty()
            && address.bytes().all(valid);
    }
    text.parse::<std::net::Ipv6Addr>().is_ok()
}
