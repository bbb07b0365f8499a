//! File descriptors that come from another process or go to one: sent (unix(7), `SCM_RIGHTS`) or kept open across
//! execve(2).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::{mem, ptr};

use nix::fcntl::{fcntl, FcntlArg, OFlag};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::PassCred;
use nix::sys::stat::{umask, Mode};

/// Most descriptors that one message carries (`SCM_MAX_FD`).
pub(crate) const MAX: usize = 253;

/// What has come: so many bytes, and descriptors.
#[derive(Debug)]
pub(crate) struct Received {
    /// None at the end of the stream.
    pub(crate) len: usize,
    pub(crate) fds: Vec<OwnedFd>,
    /// Who has sent it, where the socket asks for that ([`name_senders`]).
    pub(crate) user: Option<u32>,
    /// More descriptors were sent than have found a free number here.
    pub(crate) is_cut: bool,
}

/// Sets `O_NONBLOCK`, or clears it. By fcntl(2): a sandbox lets it be set, and refuses the ioctl(2) of the standard
/// library, whose argument it cannot see.
pub(crate) fn set_nonblocking(fd: impl AsFd, nonblocking: bool) -> io::Result<()> {
    let mut flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
    flags.set(OFlag::O_NONBLOCK, nonblocking);
    fcntl(&fd, FcntlArg::F_SETFL(flags))?;
    Ok(())
}

/// How many bytes a socket has sent or is to send that the other side has not taken (tcp(7), unix(7): SIOCOUTQ).
pub(crate) fn unsent(socket: impl AsFd) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the call writes an int to where its argument points.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    match result {
        0 => Ok(usize::try_from(bytes).unwrap_or(0)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Room for the descriptors of one message and for who has sent it, in words, which are aligned as a header is.
const SPACE: usize =
    (2 * mem::size_of::<libc::cmsghdr>() + MAX * mem::size_of::<RawFd>() + mem::size_of::<libc::ucred>()).div_ceil(8)
        + 2;

/// Receives bytes and the descriptors that came with them. It never waits, whatever the flags of the socket's file
/// description, which others may share, say.
pub(crate) fn receive(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<Received> {
    receive_into(socket, bytes, &mut [0; SPACE], 0)
}

/// As [`receive`], with this much room for what comes beside the bytes, and with these further flags.
fn receive_into(socket: BorrowedFd<'_>, bytes: &mut [u8], space: &mut [u64], flags: i32) -> io::Result<Received> {
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: a structure of integers and pointers, for which zeroes are values.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = &mut part;
    header.msg_iovlen = 1;
    header.msg_control = space.as_mut_ptr().cast();
    header.msg_controllen = mem::size_of_val(space) as _;
    let flags = libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT | flags;
    // SAFETY: the header names `bytes` and `space` with their lengths, and both outlive the call.
    let len = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut header, flags) };
    let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: recvmsg(2) has just filled it, and `space` is alive; nothing else looks at what has come.
    let (fds, user) = unsafe { controls(&header) };
    Ok(Received { len, fds, user, is_cut: header.msg_flags & libc::MSG_CTRUNC != 0 })
}

/// A message with all its descriptors, or why it stays where it is.
#[derive(Debug)]
pub(crate) enum Whole {
    Received(Received),
    /// It carries more descriptors than it may.
    TooMany,
    /// Not as many numbers are free as it carries descriptors.
    NoRoom,
}

/// Receives a message of a socket that keeps their boundaries, with up to `most` descriptors, or leaves it where it is. It
/// never waits, as [`receive`].
///
/// What is received and finds no number is closed in recvmsg(2), and the last close(2) of a socket may wait (SO_LINGER,
/// socket(7)). So the descriptors are those of a look at the message (MSG_PEEK): while it is in the queue, and while they
/// are here once it is not, nothing that closes one closes the last.
pub(crate) fn receive_whole(socket: BorrowedFd<'_>, bytes: &mut [u8], most: usize) -> io::Result<Whole> {
    let peeked = receive_into(socket, &mut [], &mut [0; SPACE], libc::MSG_PEEK)?;
    if peeked.fds.len() + usize::from(peeked.is_cut) > most {
        return Ok(Whole::TooMany);
    }
    if peeked.is_cut {
        return Ok(Whole::NoRoom);
    }
    // SAFETY: it writes to `bytes`, no more than fits.
    let len = unsafe { libc::recv(socket.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT) };
    let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
    Ok(Whole::Received(Received { len, ..peeked }))
}

/// Takes over all descriptors that recvmsg(2) has opened, also those of a message that was cut.
///
/// # Safety
///
/// recvmsg(2) has filled the header, its control buffer is alive, and this is called once for it.
unsafe fn controls(header: &libc::msghdr) -> (Vec<OwnedFd>, Option<u32>) {
    let (mut fds, mut user) = (Vec::new(), None);
    // SAFETY: by the caller's promise.
    let mut control = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !control.is_null() {
        // SAFETY: it points to a header within the control buffer, which is aligned for one.
        let found = unsafe { *control };
        // SAFETY: it computes an address, behind the header.
        let data = unsafe { libc::CMSG_DATA(control) };
        // SAFETY: it computes a length.
        let len = (found.cmsg_len as usize).saturating_sub(unsafe { libc::CMSG_LEN(0) } as usize);
        match (found.cmsg_level, found.cmsg_type) {
            (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                for index in 0..len / mem::size_of::<RawFd>() {
                    // SAFETY: the kernel has written so many numbers there.
                    let place = unsafe { data.cast::<RawFd>().add(index) };
                    // SAFETY: as above; read without regard to alignment.
                    let number = unsafe { ptr::read_unaligned(place) };
                    // SAFETY: the kernel made it for this message; nothing else in the process knows it.
                    fds.push(unsafe { OwnedFd::from_raw_fd(number) });
                }
            }
            (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) if len >= mem::size_of::<libc::ucred>() => {
                // SAFETY: the kernel has written one there; read without regard to alignment.
                user = Some(unsafe { ptr::read_unaligned(data.cast::<libc::ucred>()) }.uid);
            }
            _ => {}
        }
        // SAFETY: as above; it returns null behind the last one.
        control = unsafe { libc::CMSG_NXTHDR(header, control) };
    }
    (fds, user)
}

/// Has the kernel say with each message who has sent it (`SO_PASSCRED`, unix(7)).
pub(crate) fn name_senders(socket: BorrowedFd<'_>) -> io::Result<()> {
    setsockopt(&socket, PassCred, &true)?;
    Ok(())
}

/// Makes a datagram socket at a path to which every user can send who can reach it.
pub(crate) fn bind_for_all(path: &Path) -> io::Result<UnixDatagram> {
    // The mode of a socket's file is the umask's to decide. No other thread makes files meanwhile: the parent has none.
    let before = umask(Mode::from_bits_truncate(0o111));
    let bound = UnixDatagram::bind(path);
    umask(before);
    bound
}

/// `SO_PASSRIGHTS` of Linux 6.16, which the C library's headers do not have yet.
const SO_PASSRIGHTS: i32 = if cfg!(any(target_arch = "sparc", target_arch = "sparc64")) { 0x5c } else { 83 };

/// Numbers beyond which nobody looks for copies of a standard stream.
const NUMBERS: RawFd = 1024;

/// All numbers that this process has for sockets which are its standard streams.
pub(crate) fn standard_sockets() -> Vec<RawFd> {
    let socket = |fd: RawFd| {
        // SAFETY: it is a struct of integers.
        let mut found: libc::stat = unsafe { mem::zeroed() };
        // SAFETY: the call takes any number, and fills what lives until it returns.
        let done = unsafe { libc::fstat(fd, &raw mut found) };
        (done == 0 && found.st_mode & libc::S_IFMT == libc::S_IFSOCK).then_some((found.st_dev, found.st_ino))
    };
    let standard: Vec<_> = (0..3).filter_map(socket).collect();
    if standard.is_empty() {
        return Vec::new();
    }
    (0..NUMBERS).filter(|fd| socket(*fd).is_some_and(|it| standard.contains(&it))).collect()
}

/// Has a socket take no descriptors: who sends one to it gets `EPERM`. Returns whether the kernel can do that.
pub(crate) fn refuse_descriptors(socket: BorrowedFd<'_>) -> bool {
    let off: i32 = 0;
    let len = mem::size_of::<i32>() as libc::socklen_t;
    let value: *const i32 = &off;
    // SAFETY: the value is an integer that outlives the call.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_PASSRIGHTS, value.cast(), len) };
    set == 0
}

/// Takes over a descriptor that this process was started with, by its number.
///
/// # Errors
///
/// `EBADF` when nothing is open there, or what this process has opened or taken over itself, or its standard input and
/// outputs.
pub(crate) fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl(2) with F_GETFD changes nothing, and fails if the number is not open.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    // What came across execve(2) does not have the flag; all that the standard library and we open has it.
    if number <= libc::STDERR_FILENO || flags < 0 || flags & libc::FD_CLOEXEC != 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: fcntl(2) with F_SETFD changes at most that descriptor's flag.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open and came from whoever executed this program, so nobody here owned it; and with the flag that it
    // has now it cannot be taken again.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Copies of descriptors at the numbers where a program that is about to be executed looks for them, open across
/// execve(2). Dropped, because that has failed, everything is as it was before.
#[derive(Debug)]
pub(super) struct Placed {
    first: RawFd,
    /// What was open at each of these numbers.
    displaced: Vec<Option<OwnedFd>>,
}

impl Placed {
    /// Places them from the number `first` on.
    ///
    /// # Safety
    ///
    /// Until the drop these numbers mean something else to whoever owns them: nothing but execve(2) may happen meanwhile,
    /// and no other thread may run.
    pub(super) unsafe fn new(first: RawFd, fds: &[BorrowedFd<'_>]) -> io::Result<Placed> {
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
    use std::io::Read;

    use nix::sys::socket::{sendmsg, ControlMessage, MsgFlags, UnixAddr};
    use nix::unistd::pipe2;

    use super::*;

    /// Where this process has nothing else open.
    const FIRST: RawFd = 700;

    fn what_is_at(number: RawFd) -> Option<std::path::PathBuf> {
        fs::read_link(format!("/proc/self/fd/{number}")).ok()
    }

    /// As when descriptors run out in between.
    #[test]
    fn what_has_arrived_of_a_message_that_was_cut_is_closed() {
        let (one, other) = UnixDatagram::pair().expect("descriptors are free");
        let mut pipes: Vec<_> = (0..3).map(|_| pipe2(OFlag::O_CLOEXEC).expect("descriptors are free")).collect();
        let ends: Vec<_> = pipes.iter().map(|(_, write)| write.as_raw_fd()).collect();
        let rights = [ControlMessage::ScmRights(&ends)];
        let part = [io::IoSlice::new(b"x")];
        sendmsg::<UnixAddr>(one.as_raw_fd(), &part, &rights, MsgFlags::empty(), None).expect("there is room");
        // A header, and two numbers.
        let received = receive_into(other.as_fd(), &mut [0; 8], &mut [0; 3], 0).expect("something came");
        assert_eq!((received.len, received.fds.len(), received.is_cut), (1, 2, true));
        drop(received);
        for (read, write) in pipes.drain(..) {
            drop(write);
            assert_eq!(File::from(read).read(&mut [0]).expect("a pipe"), 0, "a copy is left somewhere");
        }
    }

    #[test]
    fn a_message_comes_with_all_its_descriptors_or_stays() {
        let (one, other) = UnixDatagram::pair().expect("descriptors are free");
        name_senders(other.as_fd()).expect("it is a Unix socket");
        for count in [0, 1, MAX] {
            let fds = vec![one.as_raw_fd(); count];
            let rights = [ControlMessage::ScmRights(&fds)];
            let rights = if count == 0 { &[][..] } else { &rights };
            let part = [io::IoSlice::new(b"READY=1")];
            sendmsg::<UnixAddr>(one.as_raw_fd(), &part, rights, MsgFlags::empty(), None).expect("there is room");
            for most in 0..count.min(3) {
                let stays = receive_whole(other.as_fd(), &mut [0; 8], most).expect("something came");
                assert!(matches!(stays, Whole::TooMany), "{most} of {count}: {stays:?}");
            }
            let Ok(Whole::Received(received)) = receive_whole(other.as_fd(), &mut [0; 8], count) else {
                panic!("{count} are not too many");
            };
            assert_eq!((received.len, received.fds.len(), received.is_cut), (7, count, false));
            assert!(received.user.is_some());
        }
        let nothing = receive_whole(other.as_fd(), &mut [0; 8], MAX).map_err(|error| error.kind());
        assert!(matches!(nothing, Err(io::ErrorKind::WouldBlock)));
    }

    #[test]
    fn a_number_is_taken_once_and_only_if_it_came_from_outside() {
        let ours = File::open("/dev/null").expect("Linux");
        assert_eq!(inherited(ours.as_raw_fd()).map_err(|error| error.raw_os_error()).err(), Some(Some(libc::EBADF)));
        for number in [-1, 0, 1, 2] {
            assert!(inherited(number).is_err(), "{number}");
        }
        // SAFETY: as if it had come across execve(2).
        let given = unsafe { libc::fcntl(ours.as_raw_fd(), libc::F_DUPFD, FIRST + 50) };
        let taken = inherited(given).expect("it is open");
        assert!(inherited(given).is_err(), "it was taken");
        drop(taken);
        assert!(inherited(given).is_err(), "it is closed");
    }

    #[test]
    fn descriptors_are_placed_over_each_other_and_all_is_undone() {
        let null = File::open("/dev/null").expect("Linux");
        let zero = copy_from(FIRST, File::open("/dev/zero").expect("Linux").as_raw_fd()).expect("a free descriptor");
        assert_eq!(zero.as_raw_fd(), FIRST, "it is in the place of the other");
        // SAFETY: nobody else uses these numbers in the tests.
        let placed = unsafe { Placed::new(FIRST, &[null.as_fd(), zero.as_fd()]) }.expect("two free descriptors");
        assert_eq!(what_is_at(FIRST), Some("/dev/null".into()));
        assert_eq!(what_is_at(FIRST + 1), Some("/dev/zero".into()));
        drop(placed);
        assert_eq!(what_is_at(FIRST), Some("/dev/zero".into()));
        assert_eq!(what_is_at(FIRST + 1), None);
    }
}
