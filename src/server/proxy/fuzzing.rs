//! The fuzz target for proxies ([`crate::fuzzing`]).
#![allow(missing_docs, unreachable_pub)]

use super::{parse, Found, WORDS_MAX};

/// For any beginning of a connection: the earliest bytes decide, however they arrive, and nothing long is held.
pub fn proxy_header(input: &[u8]) {
    let whole = parse(input);
    let decided = (0..=input.len()).find(|end| parse(&input[..*end]) != Found::NeedMore);
    let Some(end) = decided else { return assert!(input.len() < WORDS_MAX, "{}", input.len()) };
    assert!(end <= WORDS_MAX, "{end}");
    let first = parse(&input[..end]);
    assert_eq!(first, whole);
    assert!((end..=input.len()).all(|end| parse(&input[..end]) == whole));
    if let Found::Header(header) = first {
        assert_eq!(header.len, end);
        assert!(header.skip <= usize::from(u16::MAX));
    }
}
