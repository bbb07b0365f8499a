//! landlock(7) and seccomp(2), by which a process gives up rights.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::{mem, ptr};

use crate::sys::cbpf::Instruction;

/// `LANDLOCK_ACCESS_FS_WRITE_FILE`, `_READ_FILE` and `_READ_DIR`.
pub(crate) const WRITE_FILE: u64 = 1 << 1;
pub(crate) const READ_FILE: u64 = 1 << 2;
pub(crate) const READ_DIRECTORY: u64 = 1 << 3;

/// The rights on files that each version of landlock knows. Each version added bits at the end.
const FILES: [(i64, u64); 4] = [(1, (1 << 13) - 1), (2, 1 << 13), (3, 1 << 14), (5, 1 << 15)];
/// `LANDLOCK_ACCESS_NET_BIND_TCP` and `_CONNECT_TCP`, since version 4.
const NETWORK: (i64, u64) = (4, 0b11);
/// `LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET` and `_SIGNAL`, since version 6.
const SCOPED: (i64, u64) = (6, 0b11);
const CREATE_RULESET_VERSION: u32 = 1;
const RULE_PATH_BENEATH: u32 = 1;

/// `struct landlock_ruleset_attr`. Older kernels know a shorter one, and accept zeros after it.
#[repr(C)]
#[derive(Default)]
struct RulesetAttr {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct PathBeneathAttr {
    allowed_access: u64,
    parent_fd: i32,
}

/// The files that a process may access once it enters this domain.
#[derive(Debug)]
pub(crate) struct Domain(OwnedFd);

impl Domain {
    /// A domain that allows nothing: no file opened or changed, no TCP socket bound or connected, no process outside
    /// signalled.
    pub(crate) fn new() -> io::Result<Domain> {
        // SAFETY: with this flag the call takes no attributes and returns a version.
        let version = result(unsafe {
            libc::syscall(
                libc::SYS_landlock_create_ruleset,
                ptr::null::<RulesetAttr>(),
                0_usize,
                CREATE_RULESET_VERSION,
            )
        })?;
        let known = |since: i64, bits: u64| if version >= since { bits } else { 0 };
        let attributes = RulesetAttr {
            handled_access_fs: FILES.iter().map(|(since, bits)| known(*since, *bits)).sum(),
            handled_access_net: known(NETWORK.0, NETWORK.1),
            scoped: known(SCOPED.0, SCOPED.1),
        };
        let size = mem::size_of_val(&attributes);
        // SAFETY: `attributes` has the given length and lives until the call returns.
        let ruleset = result(unsafe {
            libc::syscall(libc::SYS_landlock_create_ruleset, ptr::from_ref(&attributes), size, 0_u32)
        })?;
        let ruleset = i32::try_from(ruleset).map_err(io::Error::other)?;
        // SAFETY: the call has just created this descriptor, which nothing else has.
        Ok(Domain(unsafe { OwnedFd::from_raw_fd(ruleset) }))
    }

    /// Allows `access` to a file, or to everything below a directory.
    pub(crate) fn allow(&self, path: BorrowedFd<'_>, access: u64) -> io::Result<()> {
        let rule = PathBeneathAttr { allowed_access: access, parent_fd: path.as_raw_fd() };
        // SAFETY: `rule` is what a rule of this type takes, and lives until the call returns.
        let added = unsafe {
            libc::syscall(
                libc::SYS_landlock_add_rule,
                self.0.as_raw_fd(),
                RULE_PATH_BENEATH,
                ptr::from_ref(&rule),
                0_u32,
            )
        };
        result(added).map(drop)
    }

    /// Confines this thread and the threads and processes that it starts, for good. It must have given up new
    /// privileges.
    pub(crate) fn enter(self) -> io::Result<()> {
        // SAFETY: the call takes no pointers.
        result(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, self.0.as_raw_fd(), 0_u32) }).map(drop)
    }
}

/// Makes the kernel run `program` for each system call of this thread and of those that it starts (seccomp(2)), for
/// good. The thread must have given up new privileges.
pub(crate) fn filter_calls(program: &[Instruction]) -> io::Result<()> {
    let mut filter = super::filter::compile(program);
    let len = u16::try_from(filter.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let fprog = libc::sock_fprog { len, filter: filter.as_mut_ptr() };
    // SAFETY: `fprog` points to `len` instructions that live until the call returns, and the kernel copies them.
    result(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0_u32, ptr::from_ref(&fprog)) })
        .map(drop)
}

fn result(value: libc::c_long) -> io::Result<i64> {
    match value {
        0.. => Ok(value),
        _ => Err(io::Error::last_os_error()),
    }
}
