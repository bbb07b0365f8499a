//! PURE. Text that is appended piece by piece.
//!
//! A line of the log has a dozen short pieces. Appending one to a `Vec` costs some fifty instructions, most of them for
//! the call of memcpy(3). So a [`Short`] text is copied as a whole, with whatever lies behind it, which costs ten.
#![forbid(unsafe_code)]

use std::mem;
use std::ops::Range;

/// The maximum length of a short text.
pub(super) const SHORT_MAX: usize = 16;

/// A short text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Short {
    bytes: [u8; SHORT_MAX],
    len: usize,
}

impl Short {
    /// # Panics
    ///
    /// If the text is longer than [`SHORT_MAX`].
    pub(super) const fn of(text: &[u8]) -> Short {
        let (mut bytes, mut index) = ([0; SHORT_MAX], 0);
        while index < text.len() {
            bytes[index] = text[index];
            index += 1;
        }
        Short { bytes, len: text.len() }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Bytes, and space behind them for a short text.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    /// The first `len` count. Whole words.
    bytes: Vec<u8>,
    len: usize,
}

impl Buffer {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes allocated.
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    #[inline]
    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// The bytes, and what fills their last word.
    #[inline]
    pub(super) fn as_words(&self) -> &[u8] {
        &self.bytes[..self.len.next_multiple_of(size_of::<u64>())]
    }

    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    /// Removes the first `count` bytes. What the [space](Buffer::space) was filled with, `filled` bytes, stays there.
    pub(super) fn drop_first(&mut self, count: usize, filled: usize) {
        self.bytes.copy_within(count..self.len + filled, 0);
        self.len -= count;
    }

    /// Makes space for this many more bytes.
    #[inline]
    pub(super) fn reserve(&mut self, more: usize) {
        if self.bytes.len() - self.len < more + SHORT_MAX {
            self.grow(more + SHORT_MAX);
        }
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, more: usize) {
        self.bytes.resize((self.len + more).max(2 * self.bytes.len()).next_multiple_of(size_of::<u64>()), 0);
    }

    #[inline]
    pub(super) fn append(&mut self, text: &[u8]) {
        match self.bytes.get_mut(self.len..).and_then(|room| room.get_mut(..text.len())) {
            Some(room) => {
                copy(text, room);
                self.len += text.len();
            }
            None => self.append_long(text),
        }
    }

    #[inline]
    pub(super) fn append_short(&mut self, text: &Short) {
        match self.bytes.get_mut(self.len..).and_then(<[u8]>::first_chunk_mut) {
            Some(room) => {
                *room = text.bytes;
                self.len += text.len;
            }
            None => self.append_long(&text.bytes[..text.len]),
        }
    }

    #[cold]
    #[inline(never)]
    fn append_long(&mut self, text: &[u8]) {
        self.grow(text.len() + SHORT_MAX);
        self.append(text);
    }

    #[inline]
    pub(super) fn push(&mut self, byte: u8) {
        match self.bytes.get_mut(self.len) {
            Some(room) => {
                *room = byte;
                self.len += 1;
            }
            None => self.append_long(&[byte]),
        }
    }

    /// Leaves a hole of this many bytes.
    #[inline]
    pub(super) fn leave(&mut self, count: usize) {
        self.reserve(count);
        self.len += count;
    }

    /// Writes a text into a hole that was left at this place.
    #[inline]
    pub(super) fn fill(&mut self, place: usize, text: &[u8]) {
        if let Some(hole) = self.bytes.get_mut(place..).and_then(|hole| hole.get_mut(..text.len())) {
            hole.copy_from_slice(text);
        }
    }

    /// The space behind the bytes and `filled` further ones, up to a length of `end`, as far as it is allocated.
    #[inline(always)]
    pub(super) fn space(&mut self, filled: usize, end: usize) -> Space<'_> {
        Space(self.bytes.get_mut(self.len + filled..end).unwrap_or_default())
    }

    /// The first `filled` bytes of the [space](Buffer::space).
    pub(super) fn in_space(&self, filled: usize) -> &[u8] {
        &self.bytes[self.len..][..filled]
    }

    /// Makes the first `filled` bytes of the [space](Buffer::space) part of the buffer.
    #[inline(always)]
    pub(super) fn add_filled(&mut self, filled: usize) {
        self.len = (self.len + filled).min(self.bytes.len());
    }

    #[inline]
    pub(super) fn part(&self, part: Range<usize>) -> &[u8] {
        &self.bytes[part]
    }
}

/// Space of a fixed size, to be filled piece by piece. That takes fewer instructions than to append the pieces to a
/// [`Buffer`], which may have to grow for each. The space that is left is of no use once a piece did not fit.
pub(super) struct Space<'b>(&'b mut [u8]);

impl Space<'_> {
    #[inline(always)]
    pub(super) fn left(&self) -> usize {
        self.0.len()
    }

    #[inline(always)]
    pub(super) fn append(&mut self, text: &[u8]) -> Option<()> {
        let (place, rest) = mem::take(&mut self.0).split_at_mut_checked(text.len())?;
        copy(text, place);
        self.0 = rest;
        Some(())
    }

    #[inline(always)]
    pub(super) fn append_short(&mut self, text: &Short) -> Option<()> {
        let rest = mem::take(&mut self.0);
        *rest.first_chunk_mut()? = text.bytes;
        self.0 = rest.get_mut(text.len..)?;
        Some(())
    }
}

/// Copies a text to a room of its length: a short one as two pieces that overlap, instead of by memcpy(3).
#[inline(always)]
fn copy(text: &[u8], room: &mut [u8]) {
    match text.len() {
        8..=16 => copy_ends::<8>(text, room),
        17..=32 => copy_ends::<16>(text, room),
        33..=64 => copy_ends::<32>(text, room),
        65..=128 => copy_ends::<64>(text, room),
        _ => room.copy_from_slice(text),
    }
}

/// Copies the first `N` bytes and the last ones.
#[inline(always)]
fn copy_ends<const N: usize>(text: &[u8], room: &mut [u8]) {
    if let (Some(first), Some(room)) = (text.first_chunk::<N>(), room.first_chunk_mut()) {
        *room = *first;
    }
    if let (Some(last), Some(room)) = (text.last_chunk::<N>(), room.last_chunk_mut()) {
        *room = *last;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_all_lengths_are_appended_whole() {
        let (text, mut buffer, mut expected) =
            ([b'a', b'b', b'c', b'd', b'e'].repeat(40), Buffer::default(), Vec::new());
        for len in 0..=text.len() {
            buffer.append(&text[..len]);
            expected.extend_from_slice(&text[..len]);
            buffer.append_short(&Short::of(&text[..len % 17]));
            expected.extend_from_slice(&text[..len % 17]);
            buffer.push(b'\n');
            expected.push(b'\n');
        }
        assert!(buffer.as_slice() == expected);
        buffer.leave(3);
        buffer.fill(expected.len(), b"xyz");
        buffer.append(b"!");
        assert_eq!(buffer.part(expected.len()..buffer.len()), b"xyz!");
        buffer.reserve(4);
        let end = buffer.len() + 4;
        assert!(buffer.space(0, end).append(b"12345").is_none() && buffer.space(4, end).append(b"1").is_none());
        assert!(buffer.space(0, end).append(b"12").is_some() && buffer.space(2, end).append(b"34").is_some());
        buffer.drop_first(expected.len(), 4);
        assert_eq!((buffer.as_slice(), buffer.in_space(4)), (&b"xyz!"[..], &b"1234"[..]));
        buffer.add_filled(2);
        assert_eq!(buffer.as_slice(), b"xyz!12");
    }
}
