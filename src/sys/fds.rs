//! File descriptors that come from another process or go to one: sent (unix(7), `SCM_RIGHTS`), or kept open across
//! execve(2).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;
use std::{mem, ptr};

use nix::fcntl::{fcntl, FcntlArg, OFlag};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::PassCred;
use nix::sys::stat::{umask, Mode};

/// The maximum number of descriptors in one message (`SCM_MAX_FD`).
pub(crate) const MAX: usize = 253;

/// From linux/socket.h (6.5): a descriptor that refers to the sender of a message; libc does not know it.
const SCM_PIDFD: libc::c_int = 4;

/// The result of a receive: the number of bytes, and the descriptors.
#[derive(Debug)]
pub(crate) struct Received {
    /// Zero at the end of the stream.
    pub(crate) len: usize,
    pub(crate) fds: Vec<OwnedFd>,
    /// The user id of the sender, if the socket asks for it ([`name_senders`]).
    pub(crate) user: Option<u32>,
    /// Whether the message had more descriptors than could be received.
    pub(crate) is_cut: bool,
}

/// Sets or clears `O_NONBLOCK` by fcntl(2). The sandbox allows this to be set, but refuses the ioctl(2) that the
/// standard library uses, since it cannot see its argument.
pub(crate) fn set_nonblocking(fd: impl AsFd, nonblocking: bool) -> io::Result<()> {
    let mut flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
    flags.set(OFlag::O_NONBLOCK, nonblocking);
    fcntl(&fd, FcntlArg::F_SETFL(flags))?;
    Ok(())
}

/// The number of bytes that a socket has sent or is to send and that the peer has not acknowledged or read (tcp(7),
/// unix(7): SIOCOUTQ).
pub(crate) fn unsent(socket: impl AsFd) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the call writes an int to where its argument points.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    match result {
        0 => Ok(usize::try_from(bytes).unwrap_or(0)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The number of bytes that a socket has received and nobody has read (tcp(7), unix(7): SIOCINQ).
pub(crate) fn unread(socket: impl AsFd) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the call writes an int to where its argument points.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    match result {
        0 => Ok(usize::try_from(bytes).unwrap_or(0)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// How long ago the peer of a TCP socket last acknowledged anything (`TCP_INFO` of tcp(7)).
pub(crate) fn silent_for(socket: impl AsFd) -> io::Result<Duration> {
    tcp_info(socket).map(|info| Duration::from_millis(info.tcpi_last_ack_recv.into()))
}

/// The number of connections that wait to be accepted from a listening TCP socket, for which `TCP_INFO` has it here.
pub(crate) fn waiting(listener: impl AsFd) -> io::Result<u32> {
    tcp_info(listener).map(|info| info.tcpi_unacked)
}

fn tcp_info(socket: impl AsFd) -> io::Result<libc::tcp_info> {
    // SAFETY: it consists of integers, for which all zeros are valid.
    let mut info: libc::tcp_info = unsafe { mem::zeroed() };
    let mut len = mem::size_of::<libc::tcp_info>() as libc::socklen_t;
    let (level, name) = (libc::IPPROTO_TCP, libc::TCP_INFO);
    // SAFETY: the call writes no more than `len` bytes to `info`.
    let result =
        unsafe { libc::getsockopt(socket.as_fd().as_raw_fd(), level, name, (&raw mut info).cast(), &raw mut len) };
    match result {
        0 => Ok(info),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The space for the descriptors of one message and for its sender, in words, which have the alignment of a header.
const SPACE: usize =
    (2 * mem::size_of::<libc::cmsghdr>() + MAX * mem::size_of::<RawFd>() + mem::size_of::<libc::ucred>()).div_ceil(8)
        + 2;

/// Receives bytes and the descriptors sent with them. Never blocks, whatever the flags of the socket's file
/// description, which other processes may share.
pub(crate) fn receive(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<Received> {
    receive_into(socket, bytes, &mut [0; SPACE], 0)
}

/// As [`receive`], with a given buffer for ancillary data, and with additional flags.
fn receive_into(socket: BorrowedFd<'_>, bytes: &mut [u8], space: &mut [u64], flags: i32) -> io::Result<Received> {
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: a structure of integers and pointers, for which zero is valid.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = &mut part;
    header.msg_iovlen = 1;
    header.msg_control = space.as_mut_ptr().cast();
    header.msg_controllen = mem::size_of_val(space) as _;
    let flags = libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT | flags;
    // SAFETY: the header refers to `bytes` and `space` with their lengths, and both outlive the call.
    let len = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut header, flags) };
    let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: recvmsg(2) has just filled it, `space` is alive, and nothing else takes the descriptors.
    let (fds, user) = unsafe { controls(&header) };
    Ok(Received { len, fds, user, is_cut: header.msg_flags & libc::MSG_CTRUNC != 0 })
}

/// A message with all its descriptors, or why it stays in the queue.
#[derive(Debug)]
pub(crate) enum WholeMessage {
    Received(Received),
    /// It has more descriptors than allowed.
    TooMany,
    /// There are fewer free descriptors than it needs.
    NoRoom,
}

/// Copies of the descriptors of the next message, which stays in the queue. Never blocks, like [`receive`].
pub(crate) fn peek(socket: BorrowedFd<'_>) -> io::Result<Received> {
    receive_into(socket, &mut [], &mut [0; SPACE], libc::MSG_PEEK)
}

/// Receives a message from a socket that keeps message boundaries, with up to `most` descriptors, or leaves it in the
/// queue. Never blocks, like [`receive`]. Nobody else may receive from the socket meanwhile.
///
/// If a descriptor cannot be received, recvmsg(2) closes it, and closing the last copy of a socket may block (SO_LINGER
/// in socket(7)). So this first peeks at the message (MSG_PEEK), which yields copies of the descriptors, and then
/// removes the message from the queue. At each moment there is another copy, in the queue or here, so no close in
/// between is that of the last copy.
pub(crate) fn receive_whole(socket: BorrowedFd<'_>, bytes: &mut [u8], most: usize) -> io::Result<WholeMessage> {
    let peeked = peek(socket)?;
    if peeked.fds.len() + usize::from(peeked.is_cut) > most {
        return Ok(WholeMessage::TooMany);
    }
    if peeked.is_cut {
        return Ok(WholeMessage::NoRoom);
    }
    // SAFETY: the call writes to `bytes`, at most its length.
    let len = unsafe { libc::recv(socket.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT) };
    let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
    Ok(WholeMessage::Received(Received { len, ..peeked }))
}

/// Takes all descriptors that recvmsg(2) has opened, including those of a message that was cut.
///
/// # Safety
///
/// recvmsg(2) must have filled the header, its control buffer must be alive, and this must be called only once for it.
unsafe fn controls(header: &libc::msghdr) -> (Vec<OwnedFd>, Option<u32>) {
    let (mut fds, mut user) = (Vec::new(), None);
    // SAFETY: guaranteed by the caller.
    let mut control = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !control.is_null() {
        // SAFETY: it points to a header in the control buffer, which is aligned for one.
        let found = unsafe { *control };
        // SAFETY: this computes an address after the header.
        let data = unsafe { libc::CMSG_DATA(control) };
        // SAFETY: this computes a length.
        let len = (found.cmsg_len as usize).saturating_sub(unsafe { libc::CMSG_LEN(0) } as usize);
        match (found.cmsg_level, found.cmsg_type) {
            (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                for index in 0..len / mem::size_of::<RawFd>() {
                    // SAFETY: the kernel has written this many numbers there.
                    let place = unsafe { data.cast::<RawFd>().add(index) };
                    // SAFETY: as above; the read does not need alignment.
                    let number = unsafe { ptr::read_unaligned(place) };
                    // SAFETY: the kernel opened it for this message; nothing else in the process knows it.
                    fds.push(unsafe { OwnedFd::from_raw_fd(number) });
                }
            }
            (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) if len >= mem::size_of::<libc::ucred>() => {
                // SAFETY: the kernel has written one there; the read does not need alignment.
                user = Some(unsafe { ptr::read_unaligned(data.cast::<libc::ucred>()) }.uid);
            }
            (libc::SOL_SOCKET, SCM_PIDFD) if len >= mem::size_of::<RawFd>() => {
                // SAFETY: the kernel has written one there; the read does not need alignment.
                let number = unsafe { ptr::read_unaligned(data.cast::<RawFd>()) };
                // SAFETY: the kernel opened it for this message. It is closed: whoever shares the socket has asked for
                // it. A negative number says why there is none.
                drop((number >= 0).then(|| unsafe { OwnedFd::from_raw_fd(number) }));
            }
            _ => {}
        }
        // SAFETY: as above; returns null after the last header.
        control = unsafe { libc::CMSG_NXTHDR(header, control) };
    }
    (fds, user)
}

/// Makes the kernel report the sender of each message (`SO_PASSCRED`, unix(7)).
pub(crate) fn name_senders(socket: BorrowedFd<'_>) -> io::Result<()> {
    setsockopt(&socket, PassCred, &true)?;
    Ok(())
}

/// Makes a datagram socket at a path, to which every user can send that can reach it.
pub(crate) fn bind_for_all(path: &Path) -> io::Result<UnixDatagram> {
    // The umask decides the mode of the file. No other thread creates files meanwhile, since the parent has none.
    let before = umask(Mode::from_bits_truncate(0o111));
    let bound = UnixDatagram::bind(path);
    umask(before);
    bound
}

/// `SO_PASSRIGHTS` (Linux 6.16), which is not yet in the headers of the C library.
const SO_PASSRIGHTS: i32 = if cfg!(any(target_arch = "sparc", target_arch = "sparc64")) { 0x5c } else { 83 };

/// The limit of the search for copies of standard streams.
const NUMBERS: RawFd = 1024;

/// All descriptors of this process for sockets that are its standard streams.
pub(crate) fn standard_sockets() -> Vec<RawFd> {
    let socket = |fd: RawFd| {
        // SAFETY: a structure of integers, for which zero is valid.
        let mut found: libc::stat = unsafe { mem::zeroed() };
        // SAFETY: the call accepts any number, and fills a structure that lives until it returns.
        let done = unsafe { libc::fstat(fd, &raw mut found) };
        (done == 0 && found.st_mode & libc::S_IFMT == libc::S_IFSOCK).then_some((found.st_dev, found.st_ino))
    };
    let standard: Vec<_> = (0..3).filter_map(socket).collect();
    if standard.is_empty() {
        return Vec::new();
    }
    (0..NUMBERS).filter(|fd| socket(*fd).is_some_and(|it| standard.contains(&it))).collect()
}

/// Makes a socket refuse descriptors: a process that sends one to it gets `EPERM`. Returns whether the kernel supports
/// this.
pub(crate) fn refuse_descriptors(socket: BorrowedFd<'_>) -> bool {
    let off: i32 = 0;
    let len = mem::size_of::<i32>() as libc::socklen_t;
    let value: *const i32 = &off;
    // SAFETY: the value is an integer that outlives the call.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_PASSRIGHTS, value.cast(), len) };
    set == 0
}

/// Takes a descriptor that this process inherited at its start, by its number.
///
/// # Errors
///
/// `EBADF` if the descriptor is not open, if this process has opened or taken it itself, or if it is a standard stream.
pub(crate) fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl(2) with F_GETFD changes nothing, and fails if the number is not open.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    // A descriptor that came through execve(2) does not have the flag; those opened by the standard library and by us
    // do.
    if number <= libc::STDERR_FILENO || flags < 0 || flags & libc::FD_CLOEXEC != 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: fcntl(2) with F_SETFD changes at most the flag of this descriptor.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open and came from the process that executed this program, so nothing here owned it. It
    // has the flag now, so it cannot be taken again.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Copies of descriptors, open across execve(2), at the numbers where a program about to be executed expects them. If
/// execve(2) has failed, dropping this restores everything.
#[derive(Debug)]
pub(super) struct Placed {
    first: RawFd,
    /// What was open at each of these numbers.
    displaced: Vec<Option<OwnedFd>>,
}

impl Placed {
    /// Places the copies from the number `first` on.
    ///
    /// # Safety
    ///
    /// Until the drop, these numbers do not refer to what their owners expect. Nothing but execve(2) may happen
    /// meanwhile, and no other thread may run.
    pub(super) unsafe fn new(first: RawFd, fds: &[BorrowedFd<'_>]) -> io::Result<Placed> {
        let end = first.saturating_add(RawFd::try_from(fds.len()).unwrap_or(RawFd::MAX));
        // Copies all of them beyond these numbers first, since one may be in the place of another.
        let copies: Vec<OwnedFd> = fds.iter().map(|fd| copy_from(end, fd.as_raw_fd())).collect::<io::Result<_>>()?;
        let mut placed = Placed { first, displaced: Vec::with_capacity(fds.len()) };
        for (number, copy) in (first..end).zip(&copies) {
            placed.displaced.push(match copy_from(end, number) {
                Ok(displaced) => Some(displaced),
                Err(error) if error.raw_os_error() == Some(libc::EBADF) => None,
                Err(error) => return Err(error),
            });
            // SAFETY: the descriptor that was open at the number is kept above, and restored when this is dropped.
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
                // SAFETY: this restores what the number's owner owns.
                Some(fd) => drop(unsafe { libc::dup3(fd.as_raw_fd(), number, libc::O_CLOEXEC) }),
                // SAFETY: nothing owned the number before, so this placed what is open there.
                None => drop(unsafe { libc::close(number) }),
            }
        }
    }
}

/// Copies a descriptor to a free number, `least` or higher, closed on execve(2).
fn copy_from(least: RawFd, number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl(2) with F_DUPFD_CLOEXEC changes no open descriptor, and fails if this one is not open.
    match unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, least) } {
        copy if copy < 0 => Err(io::Error::last_os_error()),
        // SAFETY: the kernel has just created it, and nothing else knows it.
        copy => Ok(unsafe { OwnedFd::from_raw_fd(copy) }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Read;

    use nix::sys::resource::{getrlimit, Resource};
    use nix::sys::socket::{sendmsg, ControlMessage, MsgFlags, UnixAddr};
    use nix::unistd::pipe2;

    use super::*;

    /// The start of a range in which this process has nothing open. Other tests run in this process meanwhile, and some
    /// open thousands of descriptors, but all get the lowest free numbers.
    fn first() -> RawFd {
        let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
        RawFd::try_from(limit.min(50_000) - 64).expect("small")
    }

    fn what_is_at(number: RawFd) -> Option<std::path::PathBuf> {
        fs::read_link(format!("/proc/self/fd/{number}")).ok()
    }

    /// As when descriptors run out in the middle of a message.
    #[test]
    fn what_has_arrived_of_a_message_that_was_cut_is_closed() {
        let (one, other) = UnixDatagram::pair().expect("descriptors are free");
        let mut pipes: Vec<_> = (0..3).map(|_| pipe2(OFlag::O_CLOEXEC).expect("descriptors are free")).collect();
        let ends: Vec<_> = pipes.iter().map(|(_, write)| write.as_raw_fd()).collect();
        let rights = [ControlMessage::ScmRights(&ends)];
        let part = [io::IoSlice::new(b"x")];
        sendmsg::<UnixAddr>(one.as_raw_fd(), &part, &rights, MsgFlags::empty(), None).expect("there is room");
        // Space for a header and two numbers.
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
                assert!(matches!(stays, WholeMessage::TooMany), "{most} of {count}: {stays:?}");
            }
            let Ok(WholeMessage::Received(received)) = receive_whole(other.as_fd(), &mut [0; 8], count) else {
                panic!("{count} are not too many");
            };
            assert_eq!((received.len, received.fds.len(), received.is_cut), (7, count, false));
            assert!(received.user.is_some());
        }
        let nothing = receive_whole(other.as_fd(), &mut [0; 8], MAX).map_err(|error| error.kind());
        assert!(matches!(nothing, Err(io::ErrorKind::WouldBlock)));
    }

    #[test]
    fn descriptors_of_senders_are_closed() {
        let (one, other) = UnixDatagram::pair().expect("descriptors are free");
        // SO_PASSPIDFD; older kernels do not know it, and add none.
        let _ = crate::sys::options::set(other.as_fd(), libc::SOL_SOCKET, 76, &1_i32.to_ne_bytes());
        one.send(b"x").expect("there is room");
        assert!(matches!(receive_whole(other.as_fd(), &mut [0; 8], 1), Ok(WholeMessage::Received(_))));
        let own = format!("Pid:\t{}\n", std::process::id());
        // Another test may have one for a moment; one that was left would stay.
        let is_left = || {
            let infos = std::fs::read_dir("/proc/self/fdinfo").expect("Linux").flatten();
            infos.filter_map(|info| std::fs::read_to_string(info.path()).ok()).any(|info| info.contains(&own))
        };
        assert!((0..100).any(|_| !is_left()), "a descriptor that refers to this process is open");
    }

    #[test]
    fn a_number_is_taken_once_and_only_if_it_came_from_outside() {
        let ours = File::open("/dev/null").expect("Linux");
        assert_eq!(inherited(ours.as_raw_fd()).map_err(|error| error.raw_os_error()).err(), Some(Some(libc::EBADF)));
        for number in [-1, 0, 1, 2] {
            assert!(inherited(number).is_err(), "{number}");
        }
        // SAFETY: as if it had come through execve(2).
        let given = unsafe { libc::fcntl(ours.as_raw_fd(), libc::F_DUPFD, first() + 50) };
        let taken = inherited(given).expect("it is open");
        assert!(inherited(given).is_err(), "it was taken");
        drop(taken);
        assert!(inherited(given).is_err(), "it is closed");
    }

    #[test]
    fn descriptors_are_placed_over_each_other_and_all_is_undone() {
        let (null, first) = (File::open("/dev/null").expect("Linux"), first());
        let zero = copy_from(first, File::open("/dev/zero").expect("Linux").as_raw_fd()).expect("a free descriptor");
        assert_eq!(zero.as_raw_fd(), first, "it is in the place of the other");
        // SAFETY: nothing else uses these numbers in the tests.
        let placed = unsafe { Placed::new(first, &[null.as_fd(), zero.as_fd()]) }.expect("two free descriptors");
        assert_eq!(what_is_at(first), Some("/dev/null".into()));
        assert_eq!(what_is_at(first + 1), Some("/dev/zero".into()));
        drop(placed);
        assert_eq!(what_is_at(first), Some("/dev/zero".into()));
        assert_eq!(what_is_at(first + 1), None);
    }
}
