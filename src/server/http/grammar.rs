//! The characters in the parts of a head.

use memchr::memchr;

use super::{Limits, Reject};
use crate::sys::scan::Set;

/// The maximum length of a method, longer than any registered one.
pub(super) const METHOD_MAX: usize = 32;

/// The characters of tokens (RFC 9110 section 5.6.2).
pub(super) static TCHAR: Set =
    Set::of(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz");

/// `1*tchar` (RFC 9110 section 5.6.2).
pub(super) fn is_token(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| TCHAR.contains(*byte))
}

/// The characters of a target before a `?`: visible ASCII except that and `#`.
pub(super) static PATH: Set =
    Set::of(b"!\"$%&'()*+,-./0123456789:;<=>@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~");

/// The characters after it.
pub(super) static QUERY: Set =
    Set::of(b"!\"$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~");

/// Finds the first `?` of a target, or its end, and checks that the target is visible ASCII without a fragment. This is
/// wider than RFC 3986, which browsers violate in queries, and safe, since no such byte ends a target. After the `?`,
/// other UTF-8 may be allowed, which curl and others send as it was typed; no path depends on it.
pub(super) fn find_query(target: &[u8], limits: &Limits) -> Result<usize, Reject> {
    // One pass without a branch per byte, since few targets have a query or are invalid.
    match target.iter().fold(0, |seen, byte| seen | KIND[usize::from(*byte)]) {
        0 if !target.is_empty() => Ok(target.len()),
        MARK => Ok(memchr(b'?', target).unwrap_or(target.len())),
        seen if seen == MARK | HIGH && limits.utf8_query => {
            let mark = memchr(b'?', target).unwrap_or(target.len());
            match target[..mark].is_ascii() && std::str::from_utf8(target).is_ok() {
                true => Ok(mark),
                false => Err(Reject::Target),
            }
        }
        _ => Err(Reject::Target),
    }
}

/// The effect of each byte in a target: zero for one of a path.
static KIND: [u8; 256] = {
    let mut table = [WRONG; 256];
    let mut byte = b'!';
    while byte <= b'~' {
        table[byte as usize] = 0;
        byte += 1;
    }
    let mut byte = 0x80;
    while byte < table.len() {
        table[byte] = HIGH;
        byte += 1;
    }
    table[b'#' as usize] = WRONG;
    table[b'?' as usize] = MARK;
    table
};

const MARK: u8 = 1;
const WRONG: u8 = 2;
const HIGH: u8 = 4;
