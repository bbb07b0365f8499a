//! statx(2), for what the metadata of the standard library leave out.

use std::ffi::CStr;
use std::fs::Metadata;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

/// Identifies a file and its state. Two equal values mean the same file only while one of the two is held open, since
/// its inode could otherwise be reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    /// The mount through which it was reached; zero if unknown (before Linux 5.8).
    pub(crate) mount: u64,
    device: (u32, u32),
    pub(crate) inode: u64,
    /// Type and permissions (inode(7)).
    pub(crate) mode: u32,
    owner: (u32, u32),
    pub(crate) len: u64,
    /// Seconds since 1970, and nanoseconds.
    pub(crate) modified: (i64, u32),
    /// Also changes with permissions, owner and name.
    pub(crate) changed: (i64, u32),
}

impl Stat {
    /// The values of an open file.
    pub(crate) fn of(file: BorrowedFd<'_>) -> io::Result<Stat> {
        statx(file, c"", libc::AT_EMPTY_PATH)
    }

    /// The values of a name in a directory. Does not follow a symbolic link.
    pub(crate) fn in_directory(directory: BorrowedFd<'_>, name: &CStr) -> io::Result<Stat> {
        statx(directory, name, libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT)
    }

    pub(crate) fn is_file(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFREG
    }

    pub(crate) fn is_directory(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFDIR
    }

    pub(crate) fn modified_time(&self) -> SystemTime {
        let (seconds, nanos) = self.modified;
        let since = Duration::from_secs(seconds.unsigned_abs());
        let whole = match seconds {
            0.. => SystemTime::UNIX_EPOCH.checked_add(since),
            _ => SystemTime::UNIX_EPOCH.checked_sub(since),
        };
        whole.map_or(SystemTime::UNIX_EPOCH, |whole| whole + Duration::from_nanos(nanos.into()))
    }

    /// Whether it is the same file, in whatever state.
    pub(crate) fn is_same(&self, other: &Stat) -> bool {
        (self.mount, self.device, self.inode) == (other.mount, other.device, other.inode)
    }
}

impl From<&Metadata> for Stat {
    fn from(metadata: &Metadata) -> Stat {
        let nanos = |nanos| u32::try_from(nanos).unwrap_or_default();
        Stat {
            mount: 0,
            device: (libc::major(metadata.dev()), libc::minor(metadata.dev())),
            inode: metadata.ino(),
            mode: metadata.mode(),
            owner: (metadata.uid(), metadata.gid()),
            len: metadata.len(),
            modified: (metadata.mtime(), nanos(metadata.mtime_nsec())),
            changed: (metadata.ctime(), nanos(metadata.ctime_nsec())),
        }
    }
}

fn statx(at: BorrowedFd<'_>, path: &CStr, flags: libc::c_int) -> io::Result<Stat> {
    let mut found = MaybeUninit::<libc::statx>::zeroed();
    let wanted = libc::STATX_BASIC_STATS | libc::STATX_MNT_ID;
    // SAFETY: `path` ends with a NUL, and `found` has space for what the call writes.
    let result = unsafe { libc::statx(at.as_raw_fd(), path.as_ptr(), flags, wanted, found.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it consists of integers, for which zero is valid, as is what the call has written.
    let found = unsafe { found.assume_init() };
    let is_mount_known = found.stx_mask & libc::STATX_MNT_ID != 0;
    Ok(Stat {
        mount: if is_mount_known { found.stx_mnt_id } else { 0 },
        device: (found.stx_dev_major, found.stx_dev_minor),
        inode: found.stx_ino,
        mode: u32::from(found.stx_mode),
        owner: (found.stx_uid, found.stx_gid),
        len: found.stx_size,
        modified: (found.stx_mtime.tv_sec, found.stx_mtime.tv_nsec),
        changed: (found.stx_ctime.tv_sec, found.stx_ctime.tv_nsec),
    })
}
