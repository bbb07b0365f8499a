//! The header fields of a request, in order.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::FIELDS_MAX;
use crate::sys::array::Array;

/// A field line: its name, and its value without surrounding white space.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field<'a> {
    pub(super) name: &'a str,
    pub(super) value: &'a [u8],
}

/// The fields of a head.
pub(super) type Fields<'a> = Array<Field<'a>, FIELDS_MAX>;

/// The header fields of a request: names and values, in the order sent. Returned by
/// [`Request::headers`](crate::Request::headers).
#[derive(Clone, Debug)]
pub struct Headers<'a>(Source<'a>);

#[derive(Clone, Debug)]
enum Source<'a> {
    Parsed(std::slice::Iter<'a, Field<'a>>),
    /// As positions in the text of a head.
    Known {
        text: &'a str,
        places: std::slice::Iter<'a, (Range<usize>, Range<usize>)>,
    },
}

impl<'a> Headers<'a> {
    pub(super) fn parsed(fields: &'a [Field<'a>]) -> Headers<'a> {
        Headers(Source::Parsed(fields.iter()))
    }

    /// The value of the first field with this name. Without the steps of the iterator, which cost five times as much.
    #[inline(always)]
    pub(super) fn value_of(&self, name: &str) -> Option<&'a [u8]> {
        match &self.0 {
            Source::Parsed(fields) => {
                for field in fields.as_slice() {
                    if field.name.len() == name.len() && is_same(field.name.as_bytes(), name.as_bytes()) {
                        return Some(field.value);
                    }
                }
            }
            Source::Known { text, places } => {
                // As bytes: to slice text takes a check that no character is cut.
                let text = text.as_bytes();
                for (field, value) in places.as_slice() {
                    let len = field.end.wrapping_sub(field.start);
                    if len == name.len() && is_same(&text[field.clone()], name.as_bytes()) {
                        return Some(&text[value.clone()]);
                    }
                }
            }
        }
        None
    }

    pub(super) fn known(text: &'a str, places: &'a [(Range<usize>, Range<usize>)]) -> Headers<'a> {
        Headers(Source::Known { text, places: places.iter() })
    }
}

/// Whether two names of the same length are the same but for the case of letters. Compares eight bytes at once, some
/// of them twice, since the standard library takes 16 instructions for each byte. Few names have the length of another
/// one, so this is not inlined.
#[inline(never)]
fn is_same(name: &[u8], other: &[u8]) -> bool {
    if let (Some(last), Some(other_last)) = (name.last_chunk(), other.last_chunk()) {
        let mut found = difference(u64::from_ne_bytes(*last), u64::from_ne_bytes(*other_last));
        for (word, other_word) in name.chunks_exact(WORD).zip(other.chunks_exact(WORD)) {
            let words = [word, other_word].map(|word| u64::from_ne_bytes(word.try_into().expect("a word")));
            found |= difference(words[0], words[1]);
        }
        return found == 0 && name.len() == other.len();
    }
    let halves = |name: &[u8]| Some((*name.first_chunk()?, *name.last_chunk()?));
    match (halves(name), halves(other)) {
        (Some((first, last)), Some((other_first, other_last))) => {
            let word = |first, last| u64::from(u32::from_ne_bytes(first)) << 32 | u64::from(u32::from_ne_bytes(last));
            difference(word(first, last), word(other_first, other_last)) == 0 && name.len() == other.len()
        }
        _ => name.eq_ignore_ascii_case(other),
    }
}

const WORD: usize = size_of::<u64>();

/// The bits in which two words differ other than by the case of letters.
#[inline(always)]
fn difference(word: u64, other: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const CASE: u64 = ONES * 0x20;
    let lower = (word | CASE) & (ONES * 0x7f);
    // Each sets the highest bit of the bytes that are not below `a`, and above `z`.
    let (from_a, above_z) = (lower + ONES * (0x80 - b'a' as u64), lower + ONES * (0x7f - b'z' as u64));
    let letters = from_a & !above_z & !word & (ONES * 0x80);
    // The highest bit of a byte, moved to that of its case.
    (word ^ other) & !(letters >> 2)
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Source::Parsed(fields) => fields.next().map(|field| (field.name, field.value)),
            Source::Known { text, places } => {
                places.next().map(|(name, value)| (&text[name.clone()], &text.as_bytes()[value.clone()]))
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match &self.0 {
            Source::Parsed(fields) => fields.size_hint(),
            Source::Known { places, .. } => places.size_hint(),
        }
    }
}

impl DoubleEndedIterator for Headers<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Source::Parsed(fields) => fields.next_back().map(|field| (field.name, field.value)),
            Source::Known { text, places } => {
                places.next_back().map(|(name, value)| (&text[name.clone()], &text.as_bytes()[value.clone()]))
            }
        }
    }
}

impl ExactSizeIterator for Headers<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_but_for_the_case_of_letters_wherever_they_differ() {
        for (byte, other) in (0..=u8::MAX).flat_map(|byte| (0..=u8::MAX).map(move |other| (byte, other))) {
            for len in [1, 3, 4, 7, 8, 9, 17] {
                for place in [0, len / 2, len - 1] {
                    let (mut names, mixed) = ([[b'a'; 17], [b'a'; 17]], [b'A'; 17]);
                    (names[0][place], names[1][place]) = (byte, other);
                    let is_so = byte.eq_ignore_ascii_case(&other);
                    assert_eq!(
                        is_same(&names[0][..len], &names[1][..len]),
                        is_so,
                        "{byte} {other} at {place} of {len}"
                    );
                    names[1] = mixed;
                    names[1][place] = other;
                    assert_eq!(
                        is_same(&names[0][..len], &names[1][..len]),
                        is_so,
                        "{byte} {other} at {place} of {len}"
                    );
                }
            }
        }
        assert!(!is_same(b"a", b"ab") && !is_same(b"abcde", b"abcdbcde") && !is_same(&[b'a'; 9], &[b'a'; 8]));
    }
}
