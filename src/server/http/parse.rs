//! Parses a complete and well-formed head in one pass over its lines, in wide steps.

use memchr::memchr;

use super::field_summary::FieldSummary;
use super::grammar::{find_query, PATH, QUERY, TCHAR};
use super::headers::Field;
use super::message::Head;
use super::request::Version;
use super::rules::{judge, HeadStorage, Lines};
use super::{Limits, Reject};
use crate::sys::scan::{self, Cursor, Steps, Work};

/// Parses the head at the beginning of `input`, if it is complete and well-formed; also returns its length. `None` for
/// any other.
#[inline]
pub(super) fn parse_whole<'a>(
    input: &'a [u8],
    storage: &'a mut HeadStorage<'a>,
    limits: &Limits,
) -> Option<(usize, Result<Head<'a>, Reject>)> {
    scan::run(Parse { input, storage, limits })
}

struct Parse<'a, 'l> {
    input: &'a [u8],
    storage: &'a mut HeadStorage<'a>,
    limits: &'l Limits,
}

impl<'a> Work for Parse<'a, '_> {
    type Output = Option<(usize, Result<Head<'a>, Reject>)>;

    #[inline(always)]
    fn run<S: Steps>(self, steps: S) -> Self::Output {
        let Parse { input, storage, limits } = self;
        let HeadStorage { fields, request: place } = storage;
        let (mut cursor, mut summary) = (Cursor::new(input, steps), FieldSummary::default());
        // Most are GET, whose end is known.
        let method = if cursor.strip(b"GET ") {
            "GET"
        } else {
            let method = method(cursor.rest())?;
            cursor.skip(method.len() + 1);
            method
        };
        let (target, query_mark) = target(&mut cursor, limits)?;
        let version = version(&mut cursor)?;
        let mut filling = fields.fill(limits.fields);
        while let Some(name) = cursor.take(&TCHAR, b':') {
            let behind = cursor.rest();
            let value = without_blanks(cursor.take_line()?);
            summary.learn(name, value, behind, version);
            if !filling.push(Field { name, value }) {
                return None;
            }
        }
        drop(filling);
        summary.check_host(&cursor);
        let is_complete = cursor.strip(b"\r\n");
        let len = input.len() - cursor.rest().len();
        if !is_complete || len > limits.head {
            return None;
        }
        let lines = Lines { method, target, query_mark, version, fields: fields.as_slice() };
        Some((len, judge(lines, &summary, place, limits)))
    }
}

/// A token, followed by a space.
#[inline(never)]
fn method(bytes: &[u8]) -> Option<&str> {
    let len = bytes.iter().position(|byte| !TCHAR.contains(*byte)).filter(|len| *len > 0 && bytes[*len] == b' ')?;
    std::str::from_utf8(&bytes[..len]).ok()
}

/// Takes a target and the space after it; also returns the position of its first `?`, or its end.
#[inline(always)]
fn target<'a, S: Steps>(cursor: &mut Cursor<'a, S>, limits: &Limits) -> Option<(&'a str, usize)> {
    match cursor.take_parts(&PATH, &QUERY) {
        Some(("", _)) => None,
        None => {
            let (target, query_mark) = odd_target(cursor.rest(), limits)?;
            cursor.skip(target.len() + 1);
            Some((target, query_mark))
        }
        target => target,
    }
}

/// The same for a target that is not all visible ASCII, or is invalid.
#[cold]
#[inline(never)]
fn odd_target<'a>(rest: &'a [u8], limits: &Limits) -> Option<(&'a str, usize)> {
    let target = &rest[..memchr(b' ', rest)?];
    let query_mark = find_query(target, limits).ok()?;
    Some((std::str::from_utf8(target).ok()?, query_mark))
}

#[inline(always)]
fn version<S: Steps>(cursor: &mut Cursor<'_, S>) -> Option<Version> {
    if cursor.strip(b"HTTP/1.1\r\n") {
        return Some(Version::Http11);
    }
    cursor.strip(b"HTTP/1.0\r\n").then_some(Version::Http10)
}

/// A value without surrounding white space. The space after the colon is already removed.
#[inline(always)]
fn without_blanks(value: &[u8]) -> &[u8] {
    // The only control characters in it are tabs.
    match value {
        [..=b' ', ..] | [.., ..=b' '] => trim(value),
        _ => value,
    }
}

#[cold]
#[inline(never)]
fn trim(value: &[u8]) -> &[u8] {
    value.trim_ascii()
}
