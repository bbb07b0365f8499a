//! File descriptors that come from another process or go to one: sent (unix(7), `SCM_RIGHTS`) or kept open across
//! execve(2).

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::fcntl::{fcntl, FcntlArg, OFlag};
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

/// Sets `O_NONBLOCK`, or clears it. By fcntl(2): a sandbox lets it be set, and refuses the ioctl(2) of the standard
/// library, whose argument it cannot see.
pub(crate) fn set_nonblocking(fd: impl AsFd, nonblocking: bool) -> io::Result<()> {
    let mut flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
    flags.set(OFlag::O_NONBLOCK, nonblocking);
    fcntl(&fd, FcntlArg::F_SETFL(flags))?;
    Ok(())
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

/// Copies of descriptors at the numbers where a program that is about to be executed looks for them, open across
/// execve(2). Dropped, because that has failed, everything is as it was before.
#[derive(Debug)]
pub(crate) struct Placed {
    first: RawFd,
    /// What was open at each of these numbers.
    displaced: Vec<Option<OwnedFd>>,
}

impl Placed {
    /// Places them from the number `first` on. Until the drop these numbers mean something else to whoever owns them, so
    /// nothing but execve(2) may happen meanwhile, and no other thread may run.
    pub(crate) fn new(first: RawFd, fds: &[BorrowedFd<'_>]) -> io::Result<Placed> {
        let end = first.saturating_add(RawFd::try_from(fds.len()).unwrap_or(RawFd::MAX));
        // Copied first, beyond these numbers, since one of them may be in the place of another.
        let copies: Vec<OwnedFd> = fds.iter().map(|fd| copy_from(end, fd.as_raw_fd())).collect::<io::Result<_>>()?;
        let mut placed = Placed { first, displaced: Vec::with_capacity(fds.len()) };
        for (number, copy) in (first..end).zip(&copies) {
            placed.displaced.push(match copy_from(end, number) {
                Ok(displaced) => Some(displaced),
                Err(error) if error.raw_os_error() == Some(libc::EBADF) => None,
                Err(error) => return Err(error),
            });
            // SAFETY: what was open at the number is kept above and returns there when this is dropped.
            if unsafe { libc::dup2(copy.as_raw_fd(), number) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(placed)
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        for (number, displaced) in (self.first..).zip(&self.displaced) {
            match displaced {
                // SAFETY: the number's owner gets back what it owns.
                Some(fd) => drop(unsafe { libc::dup3(fd.as_raw_fd(), number, libc::O_CLOEXEC) }),
                // SAFETY: nobody owned the number before, so what is open there was placed by this.
                None => drop(unsafe { libc::close(number) }),
            }
        }
    }
}

/// A copy of a descriptor at a free number that is not below `least`, closed on execve(2).
fn copy_from(least: RawFd, number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl(2) with F_DUPFD_CLOEXEC changes no descriptor that is open, and fails if this one is not.
    match unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, least) } {
        copy if copy < 0 => Err(io::Error::last_os_error()),
        // SAFETY: the kernel has just made it, and nobody else knows it.
        copy => Ok(unsafe { OwnedFd::from_raw_fd(copy) }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    /// Where this process has nothing else open.
    const FIRST: RawFd = 700;

    fn what_is_at(number: RawFd) -> Option<std::path::PathBuf> {
        fs::read_link(format!("/proc/self/fd/{number}")).ok()
    }

    #[test]
    fn descriptors_are_placed_over_each_other_and_all_is_undone() {
        let null = File::open("/dev/null").expect("Linux");
        let zero = copy_from(FIRST, File::open("/dev/zero").expect("Linux").as_raw_fd()).expect("a free descriptor");
        assert_eq!(zero.as_raw_fd(), FIRST, "it is in the place of the other");
        let placed = Placed::new(FIRST, &[null.as_fd(), zero.as_fd()]).expect("two free descriptors");
        assert_eq!(what_is_at(FIRST), Some("/dev/null".into()));
        assert_eq!(what_is_at(FIRST + 1), Some("/dev/zero".into()));
        drop(placed);
        assert_eq!(what_is_at(FIRST), Some("/dev/zero".into()));
        assert_eq!(what_is_at(FIRST + 1), None);
    }
}
