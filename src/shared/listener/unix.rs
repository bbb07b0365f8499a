//! A Unix socket, which all workers share.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process;

use nix::sys::stat::{umask, Mode};
use nix::unistd::geteuid;
use socket2::{Domain, SockAddr, Socket, Type};

use super::recorded::Options;

/// A Unix socket that the parent makes and every worker inherits, since SO_REUSEPORT does not exist for Unix sockets.
#[derive(Debug)]
pub(crate) struct ReservedUnix {
    pub(super) path: PathBuf,
    pub(super) listener: UnixListener,
    /// Device and inode of the file, so that only this file is removed.
    file: (u64, u64),
    pub(super) owner: u32,
    /// The options with which it was made or handed over.
    pub(super) options: Options,
}

impl ReservedUnix {
    pub(super) fn listen(path: &Path, backlog: u32, mode: u32) -> io::Result<ReservedUnix> {
        remove_stale(path)?;
        let (listener, file) = bind(path, backlog, mode)?;
        let options = Options::of(listener.as_fd());
        Ok(ReservedUnix { path: path.to_owned(), listener, file, owner: process::id(), options })
    }

    /// A socket on which another pool listens.
    pub(super) fn from_fd(path: &Path, fd: OwnedFd) -> io::Result<ReservedUnix> {
        let file = identity(path)?;
        // The file belongs to the other pool until that hands it over: it goes on if this pool fails.
        let options = Options::of(fd.as_fd());
        Ok(ReservedUnix { path: path.to_owned(), listener: fd.into(), file, owner: 0, options })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Listens at the same path with a new socket. The new one replaces the old one by rename(2), so that clients can
    /// always connect.
    pub(super) fn remake(&mut self, backlog: u32, mode: u32) -> io::Result<()> {
        if !self.is_there() {
            return Err(io::Error::other("another process has replaced the socket file"));
        }
        let mut draft = self.path.as_os_str().to_owned();
        draft.push(format!(".{}", process::id()));
        let draft = Path::new(&draft);
        let (listener, file) = bind(draft, backlog, mode)?;
        fs::rename(draft, &self.path).inspect_err(|_| drop(fs::remove_file(draft)))?;
        (self.options, self.listener, self.file) = (Options::of(listener.as_fd()), listener, file);
        Ok(())
    }

    /// Whether the path still names the file made here.
    fn is_there(&self) -> bool {
        identity(&self.path).is_ok_and(|file| file == self.file)
    }
}

/// Makes a listening socket at a path where no file exists.
fn bind(path: &Path, backlog: u32, mode: u32) -> io::Result<(UnixListener, (u64, u64))> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // The umask gives the file its mode when it is created. With chmod(2) instead, the owner of the directory could
    // replace the file before the call. The parent has one thread, so no other file is created meanwhile.
    let before = umask(Mode::from_bits_truncate(!mode & 0o777));
    let bound = SockAddr::unix(path).and_then(|address| socket.bind(&address));
    umask(before);
    bound?;
    let file = identity(path)?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    socket.set_nonblocking(true)?;
    Ok((OwnedFd::from(socket).into(), file))
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

impl Drop for ReservedUnix {
    /// Removes the file, but only in the process that made it and not in a worker that drops its copy, and only if it
    /// is still the same file.
    fn drop(&mut self) {
        if process::id() == self.owner && self.is_there() {
            // If the directory has become read-only, the file stays.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes a socket file of ours on which nobody listens any more, as a killed server leaves it.
fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(file) if !file.file_type().is_socket() => return Err(io::Error::other("the path exists and is no socket")),
        Ok(file) if file.uid() != geteuid().as_raw() => {
            return Err(io::Error::other("the path is another user's socket; remove it"));
        }
        Ok(_) => {}
    }
    let client = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    client.set_nonblocking(true)?;
    match client.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        // A listener whose queue is full.
        Err(error) if error.kind() == ErrorKind::WouldBlock => Err(ErrorKind::AddrInUse.into()),
        Err(error) => Err(error),
        Ok(()) => Err(ErrorKind::AddrInUse.into()),
    }
}
