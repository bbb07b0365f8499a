//! The directory that is served. The kernel resolves paths below it, and never leaves it (openat2(2)).

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{open, openat2, OFlag, OpenHow, ResolveFlag};
use nix::sys::stat::Mode;

use crate::shared::config::Symlinks;

/// An open directory, wherever its path leads now.
#[derive(Debug)]
pub(super) struct Root(OwnedFd);

/// While something is renamed, the kernel may not be able to follow a symbolic link with `..` safely, and asks to try
/// again.
const TRIES: usize = 64;

impl Root {
    /// Opens the directory, and checks that the kernel can resolve paths below it.
    pub(super) fn open(path: &Path) -> nix::Result<Root> {
        let root = Root(open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?);
        root.resolve(b".", OFlag::O_PATH, Symlinks::Inside)?;
        Ok(root)
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Opens a path below it for reading. `path` has no `..`; the kernel decides about those in links.
    pub(super) fn read(&self, path: &[u8], symlinks: Symlinks) -> nix::Result<File> {
        // Without O_NONBLOCK, opening a FIFO would block the worker until somebody writes to it.
        self.resolve(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY, symlinks)
    }

    /// Opens a path below it only for its metadata.
    pub(super) fn look_at(&self, path: &[u8], symlinks: Symlinks) -> nix::Result<File> {
        self.resolve(path, OFlag::O_PATH, symlinks)
    }

    fn resolve(&self, path: &[u8], flags: OFlag, symlinks: Symlinks) -> nix::Result<File> {
        let resolve = match symlinks {
            Symlinks::None => ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS,
            Symlinks::Inside => ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS,
            Symlinks::Anywhere => ResolveFlag::RESOLVE_NO_MAGICLINKS,
        };
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve);
        let path = if path.is_empty() { b"." } else { path };
        let tried = (0..TRIES).map(|_| openat2(&self.0, path, how)).find(|tried| !matches!(tried, Err(Errno::EAGAIN)));
        tried.unwrap_or(Err(Errno::EAGAIN)).map(File::from)
    }
}

impl From<Root> for OwnedFd {
    fn from(root: Root) -> OwnedFd {
        root.0
    }
}
