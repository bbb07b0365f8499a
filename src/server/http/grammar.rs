//! What the parts of a head may consist of.

use memchr::memchr;

use super::{Limits, Reject};
use crate::sys::scan::Set;

/// Longest method: more than any registered one has.
pub(super) const METHOD_MAX: usize = 32;

/// What tokens consist of (RFC 9110 section 5.6.2).
pub(super) static TCHAR: Set =
    Set::of(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz");

/// `1*tchar` (RFC 9110 section 5.6.2).
pub(super) fn is_token(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| TCHAR.contains(*byte))
}

/// What a target consists of before a `?`: visible ASCII without that and `#`.
pub(super) static PATH: Set =
    Set::of(b"!\"$%&'()*+,-./0123456789:;<=>@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~");

/// And behind it.
pub(super) static QUERY: Set =
    Set::of(b"!\"$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~");

/// Finds the first `?` of a target, or its end, and checks that it is visible ASCII without a fragment: wider than RFC
/// 3986, which browsers exceed in queries, and safe: no byte that ends a target. Behind the `?`, no path depends on what
/// there is, so other text in UTF-8, which curl and others send as it was typed, may be taken.
pub(super) fn find_query(target: &[u8], limits: &Limits) -> Result<usize, Reject> {
    // One pass without a branch per byte, as few targets have a query or are wrong.
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

/// What bytes do in a target: zero for one of a path.
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
