//! seccomp_unotify(2): calls of one process that wait for another one to answer them.

mod filter;

use std::ffi::{CStr, CString};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::{mem, ptr};

use nix::sys::prctl::set_no_new_privs;

use self::filter::{ABIS, ADDRESS_MIN, MULTIPLEXED_BIND, MULTIPLEXED_LISTEN};
use super::filter::compile;

/// Has each bind(2) and listen(2) of this thread, and of all that it starts, wait for an answer, for good. Who has what is
/// returned answers. When nobody has it any more, these calls fail with ENOSYS.
///
/// A thread without CAP_SYS_ADMIN gives up new privileges for that.
///
/// # Errors
///
/// EBUSY when somebody else answers for this thread already; EINVAL and ENOSYS where the kernel cannot do it.
pub(crate) fn intercept() -> io::Result<OwnedFd> {
    if ABIS.is_empty() {
        return Err(ErrorKind::Unsupported.into());
    }
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    // Once somebody looks at a call, only a signal that kills ends it (Linux 5.19): else a timer could have it begin anew
    // for ever.
    let killable = flags | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    let install = |flags| match install(flags) {
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => {
            set_no_new_privs()?;
            self::install(flags)
        }
        result => result,
    };
    match install(killable) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => install(flags),
        result => result,
    }
}

fn install(flags: libc::c_ulong) -> io::Result<OwnedFd> {
    let mut filter = compile(&filter::program(ABIS));
    let len = u16::try_from(filter.len()).map_err(|_| ErrorKind::InvalidInput)?;
    let fprog = libc::sock_fprog { len, filter: filter.as_mut_ptr() };
    // SAFETY: `fprog` points to `len` instructions that live until the call returns, and the kernel copies them.
    let listener =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, ptr::from_ref(&fprog)) };
    match i32::try_from(listener) {
        // SAFETY: the kernel has just made it, and nobody else knows it.
        Ok(listener @ 0..) => Ok(unsafe { OwnedFd::from_raw_fd(listener) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Answers the calls.
#[derive(Debug)]
pub(crate) struct Listener(OwnedFd);

/// A call that waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    id: u64,
    /// Of the thread that has made it.
    pub(crate) thread: i32,
    pub(crate) call: Call,
}

/// Which call, and its arguments. Addresses are those of its process's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Bind {
        socket: u32,
        address: u64,
        len: u32,
    },
    Listen {
        socket: u32,
    },
    /// socketcall(2) of 32-bit programs: [`multiplexed`] tells the call by what is in the list.
    Multiplexed {
        call: u32,
        list: u64,
    },
    Other,
}

/// How many bytes of a list of socketcall(2) matter.
pub(crate) const LIST: usize = 12;

/// A call of socketcall(2), by its list.
pub(crate) fn multiplexed(call: u32, list: &[u8; LIST]) -> Call {
    let argument = |index: usize| list[4 * index..].first_chunk().map_or(0, |word| u32::from_ne_bytes(*word));
    match call {
        MULTIPLEXED_BIND if argument(2) >= ADDRESS_MIN => {
            Call::Bind { socket: argument(0), address: argument(1).into(), len: argument(2) }
        }
        MULTIPLEXED_LISTEN => Call::Listen { socket: argument(0) },
        _ => Call::Other,
    }
}

/// The call that a machine's number means. Descriptors and lengths are ints to the kernel.
fn call(architecture: u32, number: u32, arguments: [u64; 6]) -> Call {
    let Some(abi) = ABIS.iter().find(|abi| abi.architecture == architecture) else { return Call::Other };
    let [first, second, third, ..] = arguments;
    match number {
        number if number == abi.bind => Call::Bind { socket: first as u32, address: second, len: third as u32 },
        number if number == abi.listen => Call::Listen { socket: first as u32 },
        number if Some(number) == abi.multiplexed => Call::Multiplexed { call: first as u32, list: second },
        _ => Call::Other,
    }
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The kernel does what it would have done.
    GoOn,
    /// It returns 0, and nothing else happens.
    Done,
}

/// In words. The kernel's structures may grow.
const ROOM: usize = 64;

impl Listener {
    /// # Errors
    ///
    /// When the kernel's structures are larger than is known here.
    pub(crate) fn new(listener: OwnedFd) -> io::Result<Listener> {
        let mut sizes = [0_u16; 3];
        // SAFETY: the call writes three numbers of 16 bits, for which there is room.
        let result =
            unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_NOTIF_SIZES, 0_u32, sizes.as_mut_ptr()) };
        match result {
            0 if sizes.iter().all(|size| usize::from(*size) <= ROOM * 8) => Ok(Listener(listener)),
            0 => Err(ErrorKind::Unsupported.into()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Takes the next call. None when its process has ended meanwhile. Call it when the descriptor is readable: it waits
    /// otherwise.
    pub(crate) fn next(&self) -> io::Result<Option<Waiting>> {
        // The kernel wants zeroes.
        let mut room = [0_u64; ROOM];
        let place = room.as_mut_ptr();
        // SAFETY: there is as much room as the kernel writes, which `new` has looked at, aligned for 64 bits.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, place) };
        if result < 0 {
            return match io::Error::last_os_error() {
                error if [libc::ENOENT, libc::EINTR].map(Some).contains(&error.raw_os_error()) => Ok(None),
                error => Err(error),
            };
        }
        // SAFETY: the kernel has written one there; a structure of integers, which the room is larger than.
        let found = unsafe { ptr::read(place.cast::<libc::seccomp_notif>()) };
        Ok(Some(Waiting {
            id: found.id,
            thread: found.pid as i32,
            call: call(found.data.arch, found.data.nr as u32, found.data.args),
        }))
    }

    /// Whether it waits still: else what was read of its process may be somebody else's.
    pub(crate) fn is_waiting(&self, call: &Waiting) -> bool {
        // SAFETY: the call reads a number, which lives until it returns.
        let result =
            unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, ptr::from_ref(&call.id)) };
        result == 0
    }

    /// Puts a copy of a descriptor into the process that has made the call, in the place of what it has at that number.
    pub(crate) fn put(&self, call: &Waiting, socket: BorrowedFd<'_>, number: u32, cloexec: bool) -> io::Result<()> {
        let added = libc::seccomp_notif_addfd {
            id: call.id,
            // Not with the answer in one (SECCOMP_ADDFD_FLAG_SEND): the call would return the number.
            flags: libc::SECCOMP_ADDFD_FLAG_SETFD as u32,
            srcfd: socket.as_raw_fd() as u32,
            newfd: number,
            newfd_flags: if cloexec { libc::O_CLOEXEC as u32 } else { 0 },
        };
        // SAFETY: the structure is what the request takes, and lives until the call returns.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ADDFD, ptr::from_ref(&added)) };
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }

    /// Answers. Nothing is wrong when nobody waits for it any more.
    pub(crate) fn answer(&self, call: &Waiting, answer: Answer) -> io::Result<()> {
        let mut room = [0_u64; ROOM];
        let flags = if answer == Answer::GoOn { libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32 } else { 0 };
        let answer = libc::seccomp_notif_resp { id: call.id, val: 0, error: 0, flags };
        let place = room.as_mut_ptr();
        // SAFETY: the room is larger than the structure, and aligned for it.
        unsafe { ptr::write(place.cast::<libc::seccomp_notif_resp>(), answer) };
        // SAFETY: the kernel reads no more than there is room, which `new` has looked at.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, place) };
        match io::Error::last_os_error() {
            _ if result >= 0 => Ok(()),
            error if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            error => Err(error),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The name of a socket's protocol, as in `TCPv6`, by a path that leads to the socket (`system.sockprotoname`). Ask only of
/// what is a socket: of a file it may wait for whoever provides it.
pub(crate) fn protocol(path: &str) -> Option<String> {
    let path = CString::new(path).ok()?;
    let mut name = [0_u8; 64];
    let attribute: &CStr = c"system.sockprotoname";
    // SAFETY: two strings with their ends, and as much room as is said, all alive until the call returns.
    let len =
        unsafe { libc::getxattr(path.as_ptr(), attribute.as_ptr(), name.as_mut_ptr().cast(), mem::size_of_val(&name)) };
    let name = name.get(..usize::try_from(len).ok()?)?;
    let name = name.split(|byte| *byte == 0).next()?;
    String::from_utf8(name.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_arguments_is_read() {
        let list = |words: [u32; 3]| {
            let mut list = [0; LIST];
            words.iter().zip(list.chunks_exact_mut(4)).for_each(|(word, to)| to.copy_from_slice(&word.to_ne_bytes()));
            list
        };
        assert_eq!(multiplexed(2, &list([3, 0x1000, 16])), Call::Bind { socket: 3, address: 0x1000, len: 16 });
        assert_eq!(multiplexed(2, &list([3, 0x1000, 12])), Call::Other);
        assert_eq!(multiplexed(4, &list([3, 5, 0])), Call::Listen { socket: 3 });
        assert_eq!(multiplexed(1, &list([2, 1, 16])), Call::Other);
    }

    #[test]
    fn each_machine_has_its_numbers() {
        for abi in ABIS {
            let said = |number| call(abi.architecture, number, [3 | 7 << 32, 0x1000, 16, 0, 0, 0]);
            assert_eq!(said(abi.bind), Call::Bind { socket: 3, address: 0x1000, len: 16 });
            assert_eq!(said(abi.listen), Call::Listen { socket: 3 });
            assert_eq!(said(7), Call::Other);
            let list = abi.multiplexed.map(said);
            assert_eq!(list, abi.multiplexed.map(|_| Call::Multiplexed { call: 3, list: 0x1000 }));
        }
        assert_eq!(call(7, 49, [0; 6]), Call::Other);
    }
}
