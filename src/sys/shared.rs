//! Memory that the processes of a pool share.

use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;
use std::{io, mem, slice};

use nix::sys::mman::{mmap, mmap_anonymous, munmap, MapFlags, ProtFlags};

use super::bpf::Memory;

/// Zeroed words, shared with every process forked after this one was made.
#[derive(Debug)]
pub(crate) struct SharedWords {
    /// INVARIANT: the start of a live mapping of `len` words, page-aligned, readable and writable.
    start: NonNull<AtomicU64>,
    len: usize,
}

// SAFETY: it owns the mapping, which no thread is special to.
unsafe impl Send for SharedWords {}
// SAFETY: the words are only ever reached as atomics.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    pub(crate) fn new(len: NonZeroUsize) -> io::Result<SharedWords> {
        let bytes = len.checked_mul(WORD).ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice overlaps nothing.
        let start =
            unsafe { mmap_anonymous(None, bytes, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED) }?;
        Ok(SharedWords { start: start.cast(), len: len.get() })
    }

    /// The words that the kernel's programs see too.
    pub(crate) fn map(memory: &Memory) -> io::Result<SharedWords> {
        let bytes = memory.len().checked_mul(WORD).ok_or(io::ErrorKind::OutOfMemory)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let start = unsafe { mmap(None, bytes, protection, MapFlags::MAP_SHARED, memory, 0) }?;
        Ok(SharedWords { start: start.cast(), len: memory.len().get() })
    }

    pub(crate) fn words(&self) -> &[AtomicU64] {
        // SAFETY: by the field's invariant; the kernel zeroed the pages, any bit pattern is an `AtomicU64`, and the
        // mapping lives as long as `self`. Other processes change it only through atomics as well.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

const WORD: NonZeroUsize = NonZeroUsize::new(mem::size_of::<AtomicU64>()).expect("a word has a size");

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: by the field's invariant, and no slice of it outlives `self`. Unmapping is this process's affair
        // only.
        let unmapped = unsafe { munmap(self.start.cast(), self.len * WORD.get()) };
        debug_assert!(unmapped.is_ok());
    }
}
