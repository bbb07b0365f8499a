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

/// Compares two names of the same length. Few fields have the length of another's name, so this is not inlined.
#[inline(never)]
fn is_same(name: &[u8], other: &[u8]) -> bool {
    name.eq_ignore_ascii_case(other)
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
