//! Shared memory: all of it that can be written, or made writable.

use std::ffi::CString;
use std::fs;
use std::os::fd::RawFd;
use std::ptr;

use crate::{again_and_again, descriptors, random};

const PAGE: usize = 4096;
const WRITABLE: i32 = libc::PROT_READ | libc::PROT_WRITE;

#[derive(Clone, Copy)]
struct Mapping {
    start: usize,
    len: usize,
    is_writable: bool,
}

/// What a worker can find of the memory that it shares.
#[derive(Clone)]
pub(crate) struct Memory {
    mappings: Vec<Mapping>,
    /// The same memory opened anew for writing, and descriptors of memory that it holds.
    files: Vec<RawFd>,
}

impl Memory {
    /// Remembers where it is, and opens it by every name that it has: in the sandbox there is no /proc any more.
    pub(crate) fn gather() -> Memory {
        let (mut mappings, mut files) = (Vec::new(), Vec::new());
        for line in fs::read_to_string("/proc/self/maps").unwrap_or_default().lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let Some((start, end)) = words[0].split_once('-') else { continue };
            if !words[1].ends_with('s') {
                continue;
            }
            files.extend(open(&format!("/proc/self/map_files/{}", words[0])));
            if let (Ok(start), Ok(end)) = (usize::from_str_radix(start, 16), usize::from_str_radix(end, 16)) {
                let is_writable = words[1].contains('w');
                mappings.push(Mapping { start, len: end - start, is_writable });
            }
        }
        let held: Vec<RawFd> = descriptors::held().filter(|fd| is_memory(*fd)).collect();
        for fd in held {
            files.push(fd);
            files.extend(open(&format!("/proc/self/fd/{fd}")));
        }
        Memory { mappings, files }
    }

    /// Writes every word that can be written, by every way there is.
    pub(crate) fn fill(&self, word: &mut dyn FnMut() -> u64) -> String {
        let mut filled = 0;
        for mapping in self.mappings.iter().flat_map(|mapping| mapping.ways()).chain(self.mapped_again()) {
            filled += mapping.fill(word);
        }
        for fd in &self.files {
            let bytes: Vec<u8> = (0..4096).flat_map(|_| word().to_ne_bytes()).collect();
            unsafe {
                libc::pwrite(*fd, bytes.as_ptr().cast(), bytes.len(), 0);
                libc::fallocate(*fd, libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, 0, 1 << 20);
                libc::ftruncate(*fd, 0);
            }
        }
        format!("{filled} words of {} mappings and {} files filled", self.mappings.len(), self.files.len())
    }

    /// Looks for what lies beside its own page in the same object: by growing the mapping, and by moving it.
    pub(crate) fn reach_beyond(&self) -> String {
        let (pages, mut filled) = (64, 0);
        for mapping in &self.mappings {
            for page in 0..pages {
                let moved = unsafe { libc::remap_file_pages(mapping.start as *mut _, PAGE, 0, page, 0) } == 0;
                filled += if moved { Mapping { len: PAGE, ..*mapping }.fill_if_writable() } else { 0 };
            }
            let grown = unsafe { libc::mremap(mapping.start as *mut _, 0, pages * PAGE, libc::MREMAP_MAYMOVE) };
            if grown != libc::MAP_FAILED {
                // Behind the object's end there is SIGBUS, after all that is there.
                filled += Mapping { start: grown as usize, len: pages * PAGE, ..*mapping }.fill_if_writable();
            }
        }
        format!("{filled} words beyond {} mappings", self.mappings.len())
    }

    pub(crate) fn fill_for_ever(&self) -> String {
        let (this, mut any) = (self.clone(), random());
        let mut round = 0_u32;
        again_and_again(move || {
            round += 1;
            match round % 4 {
                0 => this.fill(&mut || u64::MAX),
                1 => this.fill(&mut || 1),
                2 => this.fill(&mut || 1 << 40),
                _ => this.fill(&mut any),
            };
            true
        });
        "memory is filled for ever".to_owned()
    }

    fn mapped_again(&self) -> impl Iterator<Item = Mapping> + '_ {
        let len = self.mappings.iter().map(|mapping| mapping.len).max().unwrap_or(0);
        self.files.iter().filter_map(move |fd| {
            let at = unsafe { libc::mmap(ptr::null_mut(), len, WRITABLE, libc::MAP_SHARED, *fd, 0) };
            // Only its first page is sure to be there.
            (at != libc::MAP_FAILED).then_some(Mapping { start: at as usize, len: 4096, is_writable: true })
        })
    }
}

impl Mapping {
    /// Itself, if it can be made writable, and what mremap(2) makes of it.
    fn ways(self) -> Vec<Mapping> {
        let mut ways = vec![self];
        unsafe {
            libc::remap_file_pages(self.start as *mut _, self.len, 0, 0, 0);
            // Of a shared mapping, an old length of zero makes a second one.
            // Stretched, it may move, and this process needs what it can only read where that is.
            let stretched = self.is_writable.then_some((self.len, self.len * 2));
            for (old, new) in [(0, self.len), (0, self.len * 2)].into_iter().chain(stretched) {
                let at = libc::mremap(self.start as *mut _, old, new, libc::MREMAP_MAYMOVE);
                if at != libc::MAP_FAILED {
                    ways.push(Mapping { start: at as usize, len: new.max(self.len), ..self });
                }
            }
        }
        // What is writable may be fixed, which mprotect(2) does not tell from what it cannot make so.
        let is_writable =
            |way: &Mapping| way.is_writable || unsafe { libc::mprotect(way.start as *mut _, way.len, WRITABLE) } == 0;
        ways.retain(is_writable);
        ways
    }

    /// With a small number: as a time, that is long ago.
    fn fill_if_writable(self) -> usize {
        if self.is_writable || unsafe { libc::mprotect(self.start as *mut _, self.len, WRITABLE) } == 0 {
            self.fill(&mut || 1)
        } else {
            0
        }
    }

    fn fill(self, word: &mut dyn FnMut() -> u64) -> usize {
        let words = self.len / size_of::<u64>();
        for index in 0..words {
            unsafe { ptr::write_volatile((self.start as *mut u64).add(index), word()) };
        }
        words
    }
}

fn open(path: &str) -> Option<RawFd> {
    let path = CString::new(path).ok()?;
    let fd = unsafe { libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
    // What has another name as well is no memory of the pool's.
    (fd >= 0 && is_memory(fd)).then_some(fd)
}

/// Whether it is memory, by its name, and no file of the machine.
fn is_memory(fd: RawFd) -> bool {
    let name = fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
    let name = name.to_string_lossy();
    name.starts_with("/memfd:") || name == "/dev/zero (deleted)" || name.contains("bpf-map")
}
