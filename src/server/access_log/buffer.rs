//! PURE. Text that is appended piece by piece.
//!
//! A line of the log has a dozen short pieces. Appending one to a `Vec` costs some fifty instructions, most of them for
//! the call of memcpy(3). So a [`Short`] text is copied as a whole, with whatever lies behind it, to a [`Space`] that
//! is known to be large enough, which costs ten.
#![forbid(unsafe_code)]

/// The maximum length of a short text.
pub(super) const SHORT_MAX: usize = 16;

/// A short text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Short {
    bytes: [u8; SHORT_MAX],
    len: u8,
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
        Short { bytes, len: text.len() as u8 }
    }

    pub(super) fn len(&self) -> usize {
        self.len.into()
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

    /// Removes the first `count` bytes.
    pub(super) fn drop_first(&mut self, count: usize) {
        self.bytes.copy_within(count..self.len, 0);
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

    /// Appends what `write` writes to a space of at least this many bytes.
    #[inline]
    pub(super) fn append_with(&mut self, most: usize, write: impl FnOnce(&mut Space<'_>)) {
        self.reserve(most);
        let mut space = Space(&mut self.bytes[self.len..]);
        let free = space.0.len();
        write(&mut space);
        self.len += free - space.0.len();
    }

    #[inline]
    pub(super) fn append(&mut self, text: &[u8]) {
        self.append_with(text.len(), |space| space.append(text));
    }

    #[inline]
    pub(super) fn append_short(&mut self, text: &Short) {
        self.append_with(0, |space| space.append_short(text));
    }

    #[inline]
    pub(super) fn push(&mut self, byte: u8) {
        self.append_with(1, |space| space.append(&[byte]));
    }
}

/// Space for text. A piece that does not fit is left out, so make it large enough.
#[derive(Debug)]
pub(super) struct Space<'b>(&'b mut [u8]);

impl Space<'_> {
    #[inline]
    pub(super) fn append(&mut self, text: &[u8]) {
        if text.len() <= self.0.len() {
            let (space, rest) = std::mem::take(&mut self.0).split_at_mut(text.len());
            space.copy_from_slice(text);
            self.0 = rest;
        }
    }

    #[inline]
    pub(super) fn append_short(&mut self, text: &Short) {
        if let Some(first) = self.0.first_chunk_mut() {
            *first = text.bytes;
            // It is never more, as the compiler should know.
            let len = usize::from(text.len).min(SHORT_MAX);
            self.0 = &mut std::mem::take(&mut self.0)[len..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_any_length_follow_each_other() {
        let (mut buffer, mut expected) = (Buffer::default(), Vec::new());
        let text = b"0123456789abcdefghijklmnopqrstuvwxyz";
        for round in 0..200 {
            let piece = &text[round % 20..][..round % SHORT_MAX + 1];
            match round % 3 {
                0 => buffer.append(piece),
                1 => buffer.append_short(&Short::of(piece)),
                _ => piece.iter().for_each(|byte| buffer.push(*byte)),
            }
            expected.extend_from_slice(piece);
            assert_eq!(buffer.as_slice(), expected);
        }
        buffer.drop_first(100);
        assert_eq!((buffer.as_slice(), buffer.len()), (&expected[100..], expected.len() - 100));
        buffer.clear();
        assert!(buffer.is_empty());
        buffer.append(b"a");
        assert_eq!(buffer.as_slice(), b"a");
    }
}
