//! Memory that the processes of a pool share. Each page is written by one process and read by all.
//!
//! It is mapped twice. One mapping is writable and stays with the process that made it (madvise(2), `MADV_DONTFORK`).
//! The other is read-only, and children inherit it. Pages of the writable mapping can be lent to a child. The memory is
//! sealed before the second mapping is made (memfd_create(2), `F_SEAL_FUTURE_WRITE`), so no process can get more access
//! than it was given: not by mprotect(2), another mmap(2), write(2), or `/proc/self/map_files`. A lent page is sealed,
//! too (mseal(2)), because mremap(2) could stretch it over the pages after it.

use std::ffi::CStr;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;
use std::sync::Arc;
use std::{io, mem, process, slice};

use log::warn;
use nix::errno::Errno;
use nix::fcntl::{fcntl, FcntlArg, SealFlag};
use nix::sys::memfd::{memfd_create, MFdFlags};
use nix::sys::mman::{madvise, mmap, munmap, MapFlags, MmapAdvise, ProtFlags};
use nix::sys::resource::{getrlimit, setrlimit, Resource};
use nix::unistd::{ftruncate, sysconf, SysconfVar};

use super::bpf::Memory;

/// The writable mapping. Usable only in the process that made it.
#[derive(Debug)]
pub(crate) struct Writable(Arc<Mapping>);

/// The read-only mapping, in every process.
#[derive(Clone, Debug)]
pub(crate) struct ReadOnly(Arc<Mapping>);

/// A page of a writable mapping, which the child of one fork inherits and may write to.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    /// INVARIANT: the start of a page that is mapped, readable and writable, for as long as this process has the value.
    /// The page is part of the writable mapping, which lives that long in the process that made it, and for ever in a
    /// child that has inherited the page.
    start: NonNull<AtomicU64>,
    len: usize,
    _mapping: Arc<Mapping>,
}

// SAFETY: as for the mapping that it is part of.
unsafe impl Send for Page {}
// SAFETY: as for the mapping that it is part of.
unsafe impl Sync for Page {}

#[derive(Debug)]
struct Mapping {
    /// INVARIANT: the start of a page-aligned, readable mapping of `len` words. It lives as long as this value in the
    /// process `made_by`, and in its children if they inherit it.
    start: NonNull<AtomicU64>,
    len: NonZeroUsize,
    made_by: u32,
}

// SAFETY: it owns the mapping, which is not tied to a thread.
unsafe impl Send for Mapping {}
// SAFETY: the words are only accessed as atomics.
unsafe impl Sync for Mapping {}

const WORD: usize = mem::size_of::<AtomicU64>();

/// `MFD_NOEXEC_SEAL` (Linux 6.3), which some systems require.
const NOEXEC_SEAL: u32 = 8;

/// The number of mseal(2) on every architecture that Rust and Linux share (Linux 6.10).
const SYS_MSEAL: libc::c_long = 462;

/// The number of words in a page.
pub(crate) fn page_words() -> usize {
    page_size() / WORD
}

fn page_size() -> usize {
    let size = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    size.and_then(|size| usize::try_from(size).ok()).unwrap_or(4096)
}

/// Zeroed words that fill whole pages. Untouched pages take no memory.
pub(crate) fn words(name: &CStr, len: NonZeroUsize) -> io::Result<(Writable, ReadOnly)> {
    let len = whole_pages(len)?;
    let file = anonymous_file(name)?;
    set_size(&file, len.get() * WORD)?;
    let writable = Writable::map(file.as_fd(), len)?;
    seal(&file);
    Ok((writable, ReadOnly::map(file.as_fd(), len)?))
}

/// Words that BPF programs can use, too. A BPF map needs no seal: a read-only mapping of it stays read-only, and its
/// descriptor stays with the parent.
pub(crate) fn map(memory: &Memory) -> io::Result<(Writable, ReadOnly)> {
    let len = whole_pages(memory.len())?;
    Ok((Writable::map(memory.as_fd(), len)?, ReadOnly::map(memory.as_fd(), len)?))
}

/// A sealed file in memory with these bytes, to pass on.
#[cfg(feature = "tls")]
pub(crate) fn file(name: &CStr, bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = std::fs::File::from(anonymous_file(name)?);
    io::Write::write_all(&mut file, bytes)?;
    let file = OwnedFd::from(file);
    fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::all()))?;
    Ok(file)
}

fn whole_pages(len: NonZeroUsize) -> io::Result<NonZeroUsize> {
    let len = len.get().checked_next_multiple_of(page_words()).filter(|len| len.checked_mul(WORD).is_some());
    len.and_then(NonZeroUsize::new).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

fn anonymous_file(name: &CStr) -> io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    match memfd_create(name, flags | MFdFlags::from_bits_retain(NOEXEC_SEAL)) {
        Err(Errno::EINVAL) => Ok(memfd_create(name, flags)?),
        made => Ok(made?),
    }
}

/// Gives the file its size. RLIMIT_FSIZE is meant for files on disks, but the kernel applies it to memory as well.
fn set_size(file: &OwnedFd, bytes: usize) -> io::Result<()> {
    let size = i64::try_from(bytes).map_err(|_| io::ErrorKind::OutOfMemory)?;
    let (soft, hard) = getrlimit(Resource::RLIMIT_FSIZE)?;
    let (needed, is_lower) = (size.unsigned_abs(), soft < size.unsigned_abs());
    if is_lower {
        setrlimit(Resource::RLIMIT_FSIZE, needed, hard.max(needed)).map_err(|_| {
            let text = format!("RLIMIT_FSIZE is {hard} bytes, and shared memory takes {needed}; raise the limit");
            io::Error::new(io::ErrorKind::FileTooLarge, text)
        })?;
    }
    let done = ftruncate(file, size);
    if is_lower {
        setrlimit(Resource::RLIMIT_FSIZE, soft, hard)?;
    }
    Ok(done?)
}

/// Prevents other writable mappings, and changes of the size.
fn seal(file: &OwnedFd) {
    let size = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
    let all = size | SealFlag::F_SEAL_FUTURE_WRITE | SealFlag::F_SEAL_SEAL;
    if let Err(errno) = fcntl(file, FcntlArg::F_ADD_SEALS(all)) {
        warn!("cannot seal the pool's shared memory, so workers could write to it (Linux 5.1): fcntl(2): {errno}");
    }
}

impl Writable {
    fn map(file: BorrowedFd<'_>, len: NonZeroUsize) -> io::Result<Writable> {
        let mapping = Mapping::new(file, len, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)?;
        mapping.advise(0, len.get(), MmapAdvise::MADV_DONTFORK)?;
        Ok(Writable(Arc::new(mapping)))
    }

    /// # Panics
    ///
    /// In a child of the process that made it, which has not inherited it.
    pub(crate) fn words(&self) -> &[AtomicU64] {
        assert_eq!(self.0.made_by, process::id(), "only the parent writes here");
        // SAFETY: this is the process that made the mapping.
        unsafe { self.0.words() }
    }

    /// Lets children inherit this many pages from page `index` on, until they are [taken back](Writable::take_back).
    pub(crate) fn lend(&self, index: usize, pages: usize) -> io::Result<Page> {
        let len = pages.saturating_mul(page_words());
        self.0.advise(index, len, MmapAdvise::MADV_DOFORK)?;
        // SAFETY: within the mapping, as the advice has checked.
        let start = unsafe { self.0.start.add(index * page_words()) };
        Ok(Page { start, len, _mapping: Arc::clone(&self.0) })
    }

    /// Stops further children from inheriting the pages.
    pub(crate) fn take_back(&self, index: usize, pages: usize) -> io::Result<()> {
        self.0.advise(index, pages.saturating_mul(page_words()), MmapAdvise::MADV_DONTFORK)
    }
}

impl ReadOnly {
    fn map(file: BorrowedFd<'_>, len: NonZeroUsize) -> io::Result<ReadOnly> {
        Ok(ReadOnly(Arc::new(Mapping::new(file, len, ProtFlags::PROT_READ)?)))
    }

    /// For reading only: a store ends the process.
    pub(crate) fn words(&self) -> &[AtomicU64] {
        // SAFETY: children inherit a mapping unless it is excluded, and do not unmap it.
        unsafe { self.0.words() }
    }
}

impl Page {
    pub(crate) fn words(&self) -> &[AtomicU64] {
        // SAFETY: by the field's invariant; any bit pattern is a valid `AtomicU64`.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// Seals the place of the page, so that its mapping cannot be stretched over others. Runs in the child that has
    /// inherited it. Fails before Linux 6.10.
    pub(crate) fn fix(&self) -> io::Result<()> {
        let start: *const AtomicU64 = self.words().as_ptr();
        // SAFETY: the call forbids changes of the mapping, and nothing here changes it.
        match unsafe { libc::syscall(SYS_MSEAL, start, self.len * WORD, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Mapping {
    fn new(file: BorrowedFd<'_>, len: NonZeroUsize, protection: ProtFlags) -> io::Result<Mapping> {
        let bytes = len.checked_mul(NonZeroUsize::MIN.saturating_add(WORD - 1)).ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let start = unsafe { mmap(None, bytes, protection, MapFlags::MAP_SHARED, file, 0) }?;
        Ok(Mapping { start: start.cast(), len, made_by: process::id() })
    }

    /// # Safety
    ///
    /// The mapping must exist in this process.
    unsafe fn words(&self) -> &[AtomicU64] {
        // SAFETY: by the field's invariant. The kernel zeroed the pages, and any bit pattern is a valid `AtomicU64`.
        // Other processes change them through atomics as well; even if they do not, the words only hold other values.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len.get()) }
    }

    /// Advises the kernel about `count` words from the page `index` on.
    fn advise(&self, index: usize, count: usize, advice: MmapAdvise) -> io::Result<()> {
        let offset = index.checked_mul(page_words());
        let end = offset.and_then(|offset| offset.checked_add(count));
        let (Some(offset), true) = (offset, end.is_some_and(|end| end <= self.len.get())) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        // SAFETY: within the mapping.
        let start = unsafe { self.start.add(offset) };
        // SAFETY: the two kinds of advice in use say what children inherit, and change no memory.
        unsafe { madvise(start.cast(), count * WORD, advice) }?;
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // In a child, another mapping may be in the place of one that was not inherited.
        if self.made_by == process::id() {
            // SAFETY: by the field's invariant, and no slice of it outlives `self`.
            let unmapped = unsafe { munmap(self.start.cast(), self.len.get() * WORD) };
            debug_assert!(unmapped.is_ok());
        }
    }
}
