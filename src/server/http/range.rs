//! Range requests (RFC 9110 section 14).

use std::ops::Range;

/// The maximum number of ranges in a request. More are an attack, or from a client that should rather ask for
/// everything (section 14.2).
const RANGES_MAX: usize = 16;

/// What a Range field asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ranges {
    /// Everything: the field is malformed, excessive, or in another unit than bytes.
    All,
    /// No existing bytes: 416.
    Unsatisfiable,
    /// These bytes, in the requested order: 206.
    Some(Vec<Range<u64>>),
}

/// Parses a Range field for a representation of `len` bytes.
pub(crate) fn parse(field: &str, len: u64) -> Ranges {
    // An empty representation satisfies no range but a suffix: a client that asks in slices gets all of it (section
    // 14.1.2).
    if len == 0 {
        return Ranges::All;
    }
    let Some((unit, set)) = field.split_once('=') else { return Ranges::All };
    if !unit.eq_ignore_ascii_case("bytes") {
        return Ranges::All;
    }
    // A list may have empty elements (section 5.6.1.2).
    let specs = set.split(',').map(|spec| spec.trim_matches([' ', '\t'])).filter(|spec| !spec.is_empty());
    let mut specs = specs.peekable();
    if specs.peek().is_none() {
        return Ranges::All;
    }
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for (index, spec) in specs.enumerate() {
        match one(spec, len) {
            Some(range) if index < RANGES_MAX => ranges.extend(range),
            _ => return Ranges::All,
        }
    }
    // With overlapping ranges, a small request could cause a large response.
    let mut sorted = ranges.clone();
    sorted.sort_by_key(|range| range.start);
    if sorted.windows(2).any(|pair| pair[0].end > pair[1].start) {
        return Ranges::All;
    }
    if ranges.is_empty() {
        return Ranges::Unsatisfiable;
    }
    Ranges::Some(ranges)
}

/// Parses `first-last`, `first-` or `-suffix`. `None` if it is malformed, `Some(None)` if it is beyond the end.
fn one(spec: &str, len: u64) -> Option<Option<Range<u64>>> {
    let (first, last) = spec.split_once('-')?;
    if first.is_empty() {
        let suffix = number(last)?.min(len);
        return Some((suffix > 0).then(|| len - suffix..len));
    }
    let first = number(first)?;
    let end = match last {
        "" => len,
        last => {
            let last = number(last)?;
            if last < first {
                return None;
            }
            last.saturating_add(1).min(len)
        }
    };
    Some((first < len).then_some(first..end))
}

/// Digits. A number beyond 64 bits is larger than any file.
fn number(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        for (field, expected) in [
            ("bytes=0-0", [(0, 1)].as_slice()),
            ("bytes=0-", &[(0, 10)]),
            ("BYTES=5-100", &[(5, 10)]),
            ("bytes=-3", &[(7, 10)]),
            ("bytes=-100", &[(0, 10)]),
            ("bytes=0-1, 4-5 ,9-", &[(0, 2), (4, 6), (9, 10)]),
            ("bytes=5-6,0-1", &[(5, 7), (0, 2)]),
            ("bytes=0-1,50-60", &[(0, 2)]),
            ("bytes=,0-1, ,4-5,", &[(0, 2), (4, 6)]),
            ("bytes=0-18446744073709551616", &[(0, 10)]),
        ] {
            let expected = expected.iter().map(|(start, end)| *start..*end).collect();
            assert_eq!(parse(field, 10), Ranges::Some(expected), "{field}");
        }
        for field in ["bytes=10-", "bytes=-0", "bytes=10-12,20-", "bytes=18446744073709551616-"] {
            assert_eq!(parse(field, 10), Ranges::Unsatisfiable, "{field}");
        }
        for field in [
            "",
            "bytes",
            "lines=0-1",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=2-1",
            "bytes=, ,",
            "bytes=+1-2",
            "bytes=0-5,5-6",
            "bytes=0-,0-",
        ] {
            assert_eq!(parse(field, 10), Ranges::All, "{field}");
        }
        let many = (0..17).map(|n| format!("{n}-{n}")).collect::<Vec<_>>().join(",");
        assert_eq!(parse(&format!("bytes={many}"), 100), Ranges::All);
        for field in ["bytes=0-", "bytes=0-1023", "bytes=-1", "bytes=-0", "bytes=5-6,7-"] {
            assert_eq!(parse(field, 0), Ranges::All, "{field}");
        }
    }
}
