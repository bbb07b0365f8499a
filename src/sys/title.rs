//! The titles of processes, as ps(1) and top(1) show them.
//!
//! The kernel is told of other memory that holds the command line. What is common otherwise, writing over the arguments
//! and the environment, would change what `std::env::args` returns to the application.

use std::env;
use std::ffi::{CString, OsString};
use std::fs;
use std::io::{self, Error, ErrorKind};
use std::mem;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use nix::sys::prctl;

use super::process::threads;

/// The length of a thread's name, which `top` shows, without its terminating zero.
const NAME_MAX: usize = 15;

/// The title of a process. The command line is restored when this is dropped, if the process has one thread then.
#[derive(Debug)]
pub(crate) struct Title {
    before: Map,
    /// What the kernel shows while this exists.
    _text: CString,
}

impl Title {
    /// Gives this process a title: the program's name and `text`. `keep` forgets how to restore it.
    ///
    /// # Errors
    ///
    /// If the kernel cannot do so (CONFIG_CHECKPOINT_RESTORE), or /proc is not mounted.
    pub(crate) fn set(text: &str) -> io::Result<Title> {
        let mut title = program();
        title.extend_from_slice(b": ");
        title.extend_from_slice(text.as_bytes());
        let title = CString::new(title)?;
        let before = Map::current()?;
        let start = title.as_ptr() as u64;
        Map { arg_start: start, arg_end: start + title.as_bytes_with_nul().len() as u64, ..before }.apply()?;
        Ok(Title { before, _text: title })
    }

    /// The process keeps the title.
    pub(crate) fn keep(self) {
        mem::forget(self);
    }
}

impl Drop for Title {
    fn drop(&mut self) {
        // Another thread could move the end of the heap meanwhile.
        let is_restored = threads() == Some(1) && self.before.apply().is_ok();
        // The memory must not be freed while the kernel shows it.
        if !is_restored {
            mem::forget(mem::take(&mut self._text));
        }
    }
}

/// Names this thread, and those that it will start: the program's name, shortened if necessary, and `suffix`.
///
/// # Errors
///
/// As prctl(2).
pub(crate) fn set_name(suffix: &str) -> io::Result<()> {
    let mut name = program();
    name.truncate(NAME_MAX.saturating_sub(suffix.len()));
    name.extend_from_slice(suffix.as_bytes());
    Ok(prctl::set_name(&CString::new(name)?)?)
}

/// The arguments of this process as one line.
pub(crate) fn arguments() -> OsString {
    let arguments: Vec<Vec<u8>> = env::args_os().map(OsString::into_vec).collect();
    OsString::from_vec(arguments.join(&b' '))
}

/// The file name of the program, as it was started.
fn program() -> Vec<u8> {
    let path = env::args_os().next().unwrap_or_default();
    Path::new(&path).file_name().unwrap_or(&path).as_bytes().to_vec()
}

/// `struct prctl_mm_map` of the kernel: where a process has what.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Map {
    start_code: u64,
    end_code: u64,
    start_data: u64,
    end_data: u64,
    start_brk: u64,
    brk: u64,
    start_stack: u64,
    arg_start: u64,
    arg_end: u64,
    env_start: u64,
    env_end: u64,
    auxv: u64,
    auxv_size: u32,
    exe_fd: u32,
}

impl Map {
    fn current() -> io::Result<Map> {
        let stat = fs::read_to_string("/proc/self/stat")?;
        // The name may contain anything; the third field follows it.
        let fields = stat.rfind(") ").map_or("", |end| &stat[end + 2..]);
        let fields: Vec<u64> = fields.split_whitespace().map(|field| field.parse().unwrap_or_default()).collect();
        let field = |number: usize| {
            fields
                .get(number - 3)
                .copied()
                .ok_or_else(|| Error::new(ErrorKind::InvalidData, "/proc/self/stat is short"))
        };
        Ok(Map {
            start_code: field(26)?,
            end_code: field(27)?,
            start_stack: field(28)?,
            start_data: field(45)?,
            end_data: field(46)?,
            start_brk: field(47)?,
            // As it is when this is applied.
            brk: 0,
            arg_start: field(48)?,
            arg_end: field(49)?,
            env_start: field(50)?,
            env_end: field(51)?,
            // As it is.
            auxv: 0,
            auxv_size: 0,
            exe_fd: u32::MAX,
        })
    }

    /// Sets what the kernel knows, but for the end of the heap. That may have moved since the rest was read, and malloc
    /// relies on it.
    fn apply(&self) -> io::Result<()> {
        let map = Map { brk: program_break()?, ..*self };
        let (map, size) = (std::ptr::from_ref(&map), size_of::<Map>());
        // SAFETY: the kernel reads the structure and checks it. Everything in it is as it is, since nothing has
        // allocated after the end of the heap was read, except where the arguments are, which nothing but /proc depends
        // on.
        match unsafe { libc::prctl(libc::PR_SET_MM, libc::PR_SET_MM_MAP, map, size, 0) } {
            0 => Ok(()),
            _ => Err(Error::last_os_error()),
        }
    }
}

/// The end of the heap.
fn program_break() -> io::Result<u64> {
    // SAFETY: an invalid address changes nothing, and the kernel returns the current one (brk(2)).
    let end = unsafe { libc::syscall(libc::SYS_brk, 0) };
    u64::try_from(end).map_err(|_| Error::from(ErrorKind::InvalidData))
}
