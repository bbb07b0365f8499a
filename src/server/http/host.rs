//! The authority of a request: `uri-host [ ":" port ]` (RFC 9110 section 4.2, RFC 3986 section 3.2.2).

/// Whether `host` may stand in a Host field. An empty one may, in HTTP/1.0; one that is but a port may not, as in a URI
/// (RFC 9110 section 4.2.1).
pub(super) fn is_valid(host: &[u8]) -> bool {
    // One pass without a branch per byte tells the hosts of nearly all requests from those that need a closer look.
    match host.iter().fold(0, |sum: usize, byte| sum + usize::from(WEIGHT[usize::from(*byte)])) {
        0 => true,
        1 => {
            let digits = host.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
            let colon = host.len() - digits - 1;
            host[colon] == b':' && colon > 0 && is_port(&host[colon + 1..])
        }
        _ => is_valid_closely(host),
    }
}

/// Digits of a number that is a port's, or none (RFC 3986 section 3.2.3).
fn is_port(digits: &[u8]) -> bool {
    // Nearly all have less than five.
    digits.iter().all(u8::is_ascii_digit)
        && (digits.len() < 5 || std::str::from_utf8(digits).is_ok_and(|digits| digits.parse::<u16>().is_ok()))
}

/// Zero for what is in a name, one for a colon, two for all else.
static WEIGHT: [u8; 256] = {
    let mut table = [2; 256];
    let mut byte = 0;
    while byte < table.len() {
        if IN_NAME[byte] {
            table[byte] = 0;
        }
        byte += 1;
    }
    table[b':' as usize] = 1;
    table
};

#[cold]
fn is_valid_closely(host: &[u8]) -> bool {
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

/// Skips a `reg-name`, of which an IPv4 address is a special case.
fn skip_name(host: &[u8]) -> Option<&[u8]> {
    let mut rest = host;
    loop {
        let end = rest.iter().position(|byte| !IN_NAME[usize::from(*byte)]).unwrap_or(rest.len());
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
        let valid = |byte: u8| IN_NAME[usize::from(byte)] || byte == b':';
        return !version.is_empty()
            && version.bytes().all(|byte| byte.is_ascii_hexdigit())
            && !address.is_empty()
            && address.bytes().all(valid);
    }
    text.parse::<std::net::Ipv6Addr>().is_ok()
}

/// unreserved / sub-delims
static IN_NAME: [bool; 256] = {
    let mut table = [false; 256];
    let allowed = b"-._~!$&'()*+,;=0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut index = 0;
    while index < allowed.len() {
        table[allowed[index] as usize] = true;
        index += 1;
    }
    table
};
