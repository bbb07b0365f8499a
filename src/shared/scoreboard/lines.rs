//! Access log lines that a worker has not written yet, in memory that outlives the worker. If a worker is killed, the
//! parent writes the lines that it had collected.
//!
//! Each process has some pages that it shares with the parent alone. The first word is the number of bytes; the lines
//! follow. The parent does not trust the contents: it copies at most as much as there is room for, and [`whole_lines`]
//! turns that into plain text.

use std::ffi::CStr;
use std::io;
use std::num::NonZeroUsize;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::sys::shared::{self, page_words, Page, Writable};

const NAME: &CStr = c"forkpool-lines";

const WORD: usize = size_of::<u64>();

/// The words of each process, unless pages are larger.
const WORDS: usize = 64 * 1024 / WORD;

/// The most bytes of lines that a process can leave.
pub(crate) const LINES_MAX: usize = (WORDS - 1) * WORD;

/// The lines of all processes, in the parent.
#[derive(Debug)]
pub(super) struct ParentLines(Writable);

/// The lines of this process.
#[derive(Clone, Debug)]
pub(crate) struct LinesPage(Page);

fn pages() -> usize {
    WORDS.div_ceil(page_words())
}

impl ParentLines {
    /// Allocates the lines of this many rows. Rows without lines use no memory.
    pub(super) fn new(rows: usize) -> io::Result<ParentLines> {
        let words = rows.checked_mul(pages() * page_words()).and_then(NonZeroUsize::new);
        // No process may read another one's lines, which name its clients. So the second mapping is dropped at once.
        let (words, _) = shared::words(NAME, words.ok_or(io::ErrorKind::OutOfMemory)?)?;
        Ok(ParentLines(words))
    }

    /// Lets the next child inherit the pages of this row.
    pub(super) fn lend(&self, row: usize) -> io::Result<LinesPage> {
        self.0.lend(row * pages(), pages()).map(LinesPage)
    }

    pub(super) fn take_back(&self, row: usize) -> io::Result<()> {
        self.0.take_back(row * pages(), pages())
    }

    /// Takes the lines that the process in this row has left.
    pub(super) fn take(&self, row: usize) -> Vec<u8> {
        let start = row.saturating_mul(pages() * page_words());
        let Some((len, words)) = self.0.words().get(start..).and_then(<[AtomicU64]>::split_first) else {
            return Vec::new();
        };
        let len = usize::try_from(len.swap(0, Acquire)).unwrap_or(usize::MAX).min(LINES_MAX);
        let mut bytes = Vec::with_capacity(len.next_multiple_of(WORD));
        for word in words.iter().take(len.div_ceil(WORD)) {
            bytes.extend_from_slice(&word.load(Relaxed).to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }
}

impl LinesPage {
    /// Stores the lines: the first `len` of these bytes, which are whole words. Those after byte `from` are new.
    #[inline]
    pub(crate) fn store(&self, bytes: &[u8], len: usize, from: usize) {
        let Some((count, words)) = self.0.words().split_first() else { return };
        let first = from / WORD;
        if let (Some(words), Some(bytes)) = (words.get(first..), bytes.get(first * WORD..)) {
            store_words(words, bytes);
        }
        count.store(len.min(LINES_MAX) as u64, Release);
    }

    pub(super) fn fix(&self) -> io::Result<()> {
        self.0.fix()
    }
}

/// Stores whole words, as far as there are. Most lines take two steps, of which the second one begins with words that
/// are stored already.
#[inline(always)]
fn store_words(words: &[AtomicU64], bytes: &[u8]) {
    let count = words.len().min(bytes.len() / WORD);
    let (words, bytes) = (&words[..count], &bytes[..count * WORD]);
    let (Some(last), Some(last_bytes)) = (words.last_chunk(), bytes.last_chunk()) else {
        return words.iter().zip(bytes.chunks_exact(WORD)).for_each(|(word, bytes)| store_word(word, bytes));
    };
    for (words, bytes) in words.chunks_exact(STEP).zip(bytes.chunks_exact(STEP * WORD)) {
        store_step(words.try_into().expect("a step"), bytes.try_into().expect("a step"));
    }
    store_step(last, last_bytes);
}

/// How many words are stored in one step.
const STEP: usize = 8;

#[inline(always)]
fn store_step(words: &[AtomicU64; STEP], bytes: &[u8; STEP * WORD]) {
    words.iter().zip(bytes.chunks_exact(WORD)).for_each(|(word, bytes)| store_word(word, bytes));
}

#[inline(always)]
fn store_word(word: &AtomicU64, bytes: &[u8]) {
    word.store(u64::from_le_bytes(bytes.try_into().expect("a word")), Relaxed);
}

/// Returns the whole lines among the bytes that a process has left, as plain text. The bytes may be anything.
pub(crate) fn whole_lines(bytes: &[u8]) -> Vec<u8> {
    let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    let mut lines = String::with_capacity(end);
    for chunk in bytes[..end].utf8_chunks() {
        lines.extend(chunk.valid().chars().map(|c| if c.is_control() && c != '\n' { '?' } else { c }));
        lines.extend(chunk.invalid().iter().map(|_| '?'));
    }
    lines.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stores these lines, of which those after byte `from` are new.
    fn store(page: &LinesPage, lines: &[u8], from: usize) {
        let mut bytes = lines.to_vec();
        bytes.resize(lines.len().next_multiple_of(WORD), b'?');
        page.store(&bytes, lines.len(), from);
    }

    #[test]
    fn what_a_process_leaves_is_taken_once() {
        let lines = ParentLines::new(3).expect("memory");
        let pages: Vec<_> = (0..3).map(|row| lines.lend(row).expect("pages")).collect();
        let mut text = b"first\n".to_vec();
        store(&pages[1], &text, 0);
        let before = text.len();
        text.extend_from_slice(b"second, which is longer\n");
        store(&pages[1], &text, before);
        assert_eq!((lines.take(0), lines.take(1)), (Vec::new(), text));
        assert_eq!(lines.take(1), b"");
        // Lines that were written are no longer left.
        store(&pages[2], b"a\nb\n", 0);
        store(&pages[2], b"b\n", 0);
        assert_eq!(lines.take(2), b"b\n");
        store(&pages[2], b"", 0);
        assert_eq!(lines.take(2), b"");
    }

    #[test]
    fn lines_of_all_lengths_are_taken_as_they_were_stored() {
        let lines = ParentLines::new(1).expect("memory");
        let (page, mut text) = (lines.lend(0).expect("pages"), Vec::new());
        for (len, byte) in (0..300).zip((b'a'..=b'z').cycle()) {
            let before = text.len();
            text.resize(before + len, byte);
            store(&page, &text, before);
            assert!(lines.take(0) == text, "the line has {len} bytes");
        }
    }

    #[test]
    fn what_a_process_leaves_is_bounded_whatever_it_says() {
        let lines = ParentLines::new(2).expect("memory");
        let page = lines.lend(0).expect("pages");
        let next = lines.lend(1).expect("pages");
        store(&next, b"of another\n", 0);
        page.0.words().iter().for_each(|word| word.store(u64::MAX, Relaxed));
        let taken = lines.take(0);
        assert_eq!(taken.len(), LINES_MAX);
        assert_eq!(whole_lines(&taken), b"", "it is no line");
        assert_eq!(lines.take(1), b"of another\n");
        assert_eq!(lines.take(usize::MAX), b"");
        store(&page, &[b'x'; LINES_MAX + 9], 0);
        assert_eq!(lines.take(0).len(), LINES_MAX);
    }

    #[test]
    fn what_a_process_leaves_is_plain_text() {
        let left = b"a\x1b[2J\xff\xc3\xa9\xc2\x9b\0\r\nwhole\nhalf";
        assert_eq!(whole_lines(left), "a?[2J?é???\nwhole\n".as_bytes());
        assert_eq!(whole_lines(b"half"), b"");
    }
}
