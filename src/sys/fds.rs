//! File descriptors that come from another process: sent (unix(7), `SCM_RIGHTS`) or kept open across execve(2).

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{recvmsg, ControlMessageOwned, MsgFlags, UnixAddr};

/// Most descriptors that one message carries (`SCM_MAX_FD`).
pub(crate) const MAX: usize = 253;

/// Receives bytes and the descriptors that came with them; `Ok((0, _))` is the end of the stream.
pub(crate) fn receive(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = nix::cmsg_space!([i32; MAX]);
    let mut parts = [IoSliceMut::new(bytes)];
    let message = recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = control {
            // SAFETY: the kernel made these descriptors for this message; nothing else in the process knows them.
            fds.extend(received.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    Ok((message.bytes, fds))
}

/// Takes over a descriptor that this process was started with, by its number. The caller takes each number once.
///
/// # Errors
///
/// `EBADF` when nothing is open there.
pub(crate) fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl(2) with F_SETFD on any number changes at most that descriptor's flag, and fails if it is not open.
    if number < 0 || unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: it is open, it came from whoever executed this program for this purpose, and nobody else here owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
