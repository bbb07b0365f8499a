//! The name of the request that a process is handling.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::own_row::OwnRow;
use super::row::{RowPage, LATENCY_WORDS, NAME_MAX, NAME_WORDS, OWN_WORDS, WORD};

/// The name of the current request of a process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NameRow<'a> {
    row: OwnRow<'a>,
    words: &'a [AtomicU64; NAME_WORDS],
}

impl RowPage {
    /// The name of the current request.
    pub(crate) fn name(&self) -> NameRow<'_> {
        let words = self.page.words().get(OWN_WORDS + LATENCY_WORDS..).and_then(<[AtomicU64]>::first_chunk);
        NameRow { row: self.row(), words: words.expect("a page has room for a row") }
    }
}

impl NameRow<'_> {
    /// Stores the name of the current request: this many bytes of its head, and nothing of what follows them.
    #[inline]
    pub(crate) fn set(&self, head: &[u8], len: usize) {
        match head.first_chunk() {
            // Many are that short, and every request costs it.
            Some(bytes) if len <= 2 * WORD => {
                let bytes = u128::from_le_bytes(*bytes);
                self.words[0].store(bytes as u64 & SHORT[len][0], Relaxed);
                self.words[1].store((bytes >> 64) as u64 & SHORT[len][1], Relaxed);
                self.row.set_named(len);
            }
            _ => self.set_long(head, len.min(NAME_MAX).min(head.len())),
        }
    }

    #[inline(never)]
    fn set_long(&self, head: &[u8], len: usize) {
        let eights = head[..len].chunks_exact(WORD);
        let rest = eights.remainder();
        for (word, bytes) in self.words.iter().zip(eights) {
            word.store(bytes.try_into().map_or(0, u64::from_le_bytes), Relaxed);
        }
        if let Some(word) = self.words.get(len / WORD) {
            let mut bytes = [0; WORD];
            bytes[..rest.len()].copy_from_slice(rest);
            word.store(u64::from_le_bytes(bytes), Relaxed);
        }
        self.row.set_named(len);
    }
}

/// Masks that keep the first bytes of two words, by the number of bytes to keep.
static SHORT: [[u64; 2]; 2 * WORD + 1] = {
    let mut masks = [[0; 2]; 2 * WORD + 1];
    let mut bytes = 0;
    while bytes < 2 * WORD {
        masks[bytes + 1] = masks[bytes];
        masks[bytes + 1][bytes / WORD] |= 0xff << (8 * (bytes % WORD));
        bytes += 1;
    }
    masks
};
