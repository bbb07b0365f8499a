//! A Unix socket that all workers share.

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

/// A Unix socket, made by the parent and inherited by every worker: there is no SO_REUSEPORT for them.
#[derive(Debug)]
pub(crate) struct ReservedUnix {
    pub(super) path: PathBuf,
    pub(super) listener: UnixListener,
    /// Device and inode of the file, to unlink only what was made here.
    file: (u64, u64),
    pub(super) owner: u32,
    /// As it was made, or handed over.
    pub(super) options: Options,
}

impl ReservedUnix {
    pub(super) fn listen(path: &Path, backlog: u32, mode: u32) -> io::Result<ReservedUnix> {
        remove_stale(path)?;
        let (listener, file) = bind(path, backlog, mode)?;
        let options = Options::of(listener.as_fd());
        Ok(ReservedUnix { path: path.to_owned(), listener, file, owner: process::id(), options })
    }

    /// One that another pool listens on.
    pub(super) fn from_fd(path: &Path, fd: OwnedFd) -> io::Result<ReservedUnix> {
        let file = identity(path)?;
        // The other pool's, until that has handed it over: it goes on if this one fails.
        let options = Options::of(fd.as_fd());
        Ok(ReservedUnix { path: path.to_owned(), listener: fd.into(), file, owner: 0, options })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Listens anew at the same path, by another socket. It takes the place of the old one by rename(2), so that there
    /// is always a socket to connect to.
    pub(super) fn remake(&mut self, backlog: u32, mode: u32) -> io::Result<()> {
        if !self.is_there() {
            return Err(io::Error::other("somebody else has put something in the place of the socket"));
        }
        let mut draft = self.path.as_os_str().to_owned();
        draft.push(format!(".{}", process::id()));
        let draft = Path::new(&draft);
        let (listener, file) = bind(draft, backlog, mode)?;
        fs::rename(draft, &self.path).inspect_err(|_| drop(fs::remove_file(draft)))?;
        (self.options, self.listener, self.file) = (Options::of(listener.as_fd()), listener, file);
        Ok(())
    }

    /// Whether the path still names what was made here.
    fn is_there(&self) -> bool {
        identity(&self.path).is_ok_and(|file| file == self.file)
    }
}

/// Makes a socket that listens at a path where there is nothing.
fn bind(path: &Path, backlog: u32, mode: u32) -> io::Result<(UnixListener, (u64, u64))> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // The mode is the umask's from the start: whoever owns the directory could put something else at the path before
    // chmod(2) looked it up. The parent has one thread, so nobody else makes files meanwhile.
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
    /// Removes the file: in the process that made it, not in a worker that drops its copy, and only while it is still
    /// the same.
    fn drop(&mut self) {
        if process::id() == self.owner && self.is_there() {
            // Nothing to be done about a directory that has become read-only.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Unlinks a socket of ours that nobody listens on any more, as a killed server leaves it.
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
        // Somebody listens who does not accept at the moment.
        Err(error) if error.kind() == ErrorKind::WouldBlock => Err(ErrorKind::AddrInUse.into()),
        Err(error) => Err(error),
        Ok(()) => Err(ErrorKind::AddrInUse.into()),
    }
}
