//! The head of a request: where it ends, what it contains, and how the body after it is framed.
//!
//! A head that arrives whole and is valid takes the fast path: one pass over its lines ([`parse_whole`]). Every other
//! head is checked line by line ([`lines`]).

use memchr::memchr;

use super::message::Head;
use super::parse::parse_whole;
use super::rules::HeadStorage;
use super::{lines, Limits, Reject};

/// Parses a complete head whose lines end in CRLF.
pub(super) fn parse<'a>(head: &'a [u8], storage: &'a mut HeadStorage<'a>, limits: &Limits) -> Result<Head<'a>, Reject> {
    match parse_whole(head, storage, limits) {
        Some((len, parsed)) if len == head.len() => parsed,
        _ => Err(lines::first_broken_rule(head, limits)),
    }
}

/// The minor version of a head whose first line says HTTP/1.2 or later, which must be read as HTTP/1.1 (RFC 9110
/// section 2.5). Returns the position of the digit.
pub(super) fn later_minor_version(head: &[u8]) -> Option<usize> {
    let end = memchr(b'\n', head)?;
    let version = head.get(end.checked_sub(9)?..end - 1)?;
    (version.starts_with(b"HTTP/1.") && matches!(version[7], b'2'..=b'9')).then_some(end - 2)
}
