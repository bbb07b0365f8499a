//! bpf(2): maps and programs, and the socket options that attach a program to a SO_REUSEPORT group.

use std::ffi::{c_int, c_long, CStr};
use std::io::{self, ErrorKind};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::{mem, ptr};

/// An instruction in the kernel's format (`struct bpf_insn`).
pub(crate) type Instruction = [u8; 8];

/// Zeroed words that programs can read and write, and processes can map ([`super::shared::map`]).
#[derive(Debug)]
pub(crate) struct Memory {
    map: OwnedFd,
    len: NonZeroUsize,
}

impl Memory {
    pub(crate) fn new(len: NonZeroUsize) -> io::Result<Memory> {
        let bytes = len.checked_mul(WORD).and_then(|bytes| u32::try_from(bytes.get()).ok());
        let map = create(&MapCreate {
            map_type: MAP_TYPE_ARRAY,
            key_size: KEY_SIZE,
            value_size: bytes.ok_or(ErrorKind::OutOfMemory)?,
            max_entries: 1,
            map_flags: F_MMAPABLE,
            map_name: name(c"forkpool_words"),
            ..MapCreate::default()
        })?;
        Ok(Memory { map, len })
    }

    /// The number of words.
    pub(crate) fn len(&self) -> NonZeroUsize {
        self.len
    }
}

impl AsFd for Memory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }
}

/// A table of listening sockets, from which a program chooses. A socket that is closed disappears from it.
#[derive(Debug)]
pub(crate) struct Sockets {
    map: OwnedFd,
}

impl Sockets {
    pub(crate) fn new(len: u32) -> io::Result<Sockets> {
        let map = create(&MapCreate {
            map_type: MAP_TYPE_REUSEPORT_SOCKARRAY,
            key_size: KEY_SIZE,
            value_size: mem::size_of::<c_int>() as u32,
            max_entries: len,
            map_name: name(c"forkpool_socks"),
            ..MapCreate::default()
        })?;
        Ok(Sockets { map })
    }

    /// Puts a socket at `index`, replacing the one there.
    pub(crate) fn put(&self, index: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        let value = socket.as_raw_fd();
        let element = Element { map: fd(self), key: address(&index), value: address(&value), ..Element::default() };
        // SAFETY: `index` and `value` are as long as this map's keys and values, and live until the call returns.
        unsafe { bpf(MAP_UPDATE_ELEM, &element) }?;
        Ok(())
    }

    pub(crate) fn remove(&self, index: u32) -> io::Result<()> {
        let element = Element { map: fd(self), key: address(&index), ..Element::default() };
        // SAFETY: `index` is as long as this map's keys, and lives until the call returns.
        unsafe { bpf(MAP_DELETE_ELEM, &element) }?;
        Ok(())
    }
}

impl AsFd for Sockets {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }
}

/// Loads a program that chooses the socket of a new connection and, if the kernel supports it (Linux 5.14), another
/// socket for a connection whose listener is closed.
///
/// # Errors
///
/// [`ErrorKind::PermissionDenied`] without the capabilities; otherwise the error ends with the message of the kernel's
/// verifier.
pub(crate) fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let mut attributes = ProgramLoad {
        program_type: PROGRAM_TYPE_SK_REUSEPORT,
        instruction_count: u32::try_from(program.len()).map_err(|_| ErrorKind::InvalidInput)?,
        instructions: program.as_ptr() as u64,
        // The helpers that the program calls are available to programs of any licence.
        license: c"MIT".as_ptr() as u64,
        program_name: name(c"forkpool_steer"),
        expected_attach_type: SK_REUSEPORT_SELECT_OR_MIGRATE,
        ..ProgramLoad::default()
    };
    let load = |attributes: &ProgramLoad| -> io::Result<OwnedFd> {
        // SAFETY: each address in it points to memory of the stated size that lives until the call returns:
        // instructions, a terminated string, and a buffer for a log if there is one.
        let program = unsafe { bpf(PROG_LOAD, attributes) }?;
        // SAFETY: the kernel has just created this descriptor.
        Ok(unsafe { OwnedFd::from_raw_fd(program) })
    };
    match load(&attributes) {
        Err(error) if error.kind() != ErrorKind::PermissionDenied => attributes.expected_attach_type = 0,
        result => return result,
    }
    let mut log = vec![0_u8; LOG_SIZE];
    attributes.log_level = 1;
    attributes.log_size = LOG_SIZE as u32;
    attributes.log = log.as_mut_ptr() as u64;
    load(&attributes).map_err(|error| io::Error::new(error.kind(), format!("{error}: {}", last_words(&log))))
}

/// Lets a program choose among the sockets of the group of `member`.
pub(crate) fn attach(member: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    set_option(member, libc::SO_ATTACH_REUSEPORT_EBPF, program.as_raw_fd())
}

/// Lets the kernel's hash choose again.
#[cfg(test)]
pub(crate) fn detach(member: BorrowedFd<'_>) -> io::Result<()> {
    set_option(member, libc::SO_DETACH_REUSEPORT_BPF, 0)
}

fn set_option(socket: BorrowedFd<'_>, option: c_int, value: c_int) -> io::Result<()> {
    // SAFETY: the option's value is an int, which lives until the call returns.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            ptr::from_ref(&value).cast(),
            mem::size_of::<c_int>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn create(attributes: &MapCreate) -> io::Result<OwnedFd> {
    // SAFETY: it contains no address.
    let map = unsafe { bpf(MAP_CREATE, attributes) }?;
    // SAFETY: the kernel has just created this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(map) })
}

/// # Safety
///
/// `attributes` must be what `command` takes. Each address in it must be zero, or point to memory that `command` may
/// use as the manual page says.
unsafe fn bpf<A>(command: c_long, attributes: &A) -> io::Result<c_int> {
    // SAFETY: the kernel reads no more than the given size; the caller guarantees the rest.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, ptr::from_ref(attributes), mem::size_of::<A>()) };
    match c_int::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        _ => Err(explained(io::Error::last_os_error())),
    }
}

fn explained(error: io::Error) -> io::Error {
    if error.raw_os_error() == Some(libc::EPERM) {
        let message = "bpf(2) needs CAP_BPF and CAP_NET_ADMIN, and a seccomp filter that lets it through";
        return io::Error::new(ErrorKind::PermissionDenied, message);
    }
    error
}

/// The end of the verifier's log, which has the reason, on one line.
fn last_words(log: &[u8]) -> String {
    let text = CStr::from_bytes_until_nul(log).map(CStr::to_string_lossy).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("; ")
}

fn name(name: &CStr) -> [u8; NAME_SIZE] {
    let mut field = [0; NAME_SIZE];
    // The last byte stays zero, even if the name is cut.
    for (to, from) in field[..NAME_SIZE - 1].iter_mut().zip(name.to_bytes()) {
        *to = *from;
    }
    field
}

fn fd(fd: &impl AsFd) -> u32 {
    fd.as_fd().as_raw_fd() as u32
}

fn address<T>(value: &T) -> u64 {
    ptr::from_ref(value) as u64
}

// From linux/bpf.h. The kernel accepts attributes shorter than its own, so only the fields in use are here.

const MAP_CREATE: c_long = 0;
const MAP_UPDATE_ELEM: c_long = 2;
const MAP_DELETE_ELEM: c_long = 3;
const PROG_LOAD: c_long = 5;

const MAP_TYPE_ARRAY: u32 = 2;
const MAP_TYPE_REUSEPORT_SOCKARRAY: u32 = 20;
const F_MMAPABLE: u32 = 1 << 10;
const PROGRAM_TYPE_SK_REUSEPORT: u32 = 21;
const SK_REUSEPORT_SELECT_OR_MIGRATE: u32 = 40;

const WORD: NonZeroUsize = NonZeroUsize::new(mem::size_of::<u64>()).expect("a word has a size");
const KEY_SIZE: u32 = mem::size_of::<u32>() as u32;
const NAME_SIZE: usize = 16;
/// Enough for the log of a program with a few hundred instructions at the lowest level.
const LOG_SIZE: usize = 1 << 20;
const LOG_LINES: usize = 4;

#[derive(Default)]
#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map: u32,
    numa_node: u32,
    map_name: [u8; NAME_SIZE],
}

#[derive(Default)]
#[repr(C)]
struct Element {
    map: u32,
    _padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[derive(Default)]
#[repr(C)]
struct ProgramLoad {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    program_name: [u8; NAME_SIZE],
    interface: u32,
    expected_attach_type: u32,
}
