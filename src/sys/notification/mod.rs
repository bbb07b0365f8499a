//! seccomp_unotify(2): system calls of one process that wait until another process answers them.

mod filter;

use std::ffi::{CStr, CString};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::{mem, ptr};

use nix::errno::Errno;
use nix::sys::prctl::set_no_new_privs;
use nix::sys::wait::{waitpid, WaitStatus};
use nix::unistd::Pid;

use self::filter::{ABIS, ADDRESS_MIN, MULTIPLEXED_BIND, MULTIPLEXED_LISTEN};
use super::filter::compile;
use super::process::{exit, fork, Fork};

/// Makes each bind(2) and listen(2) of this thread, and of every thread and process that it starts, wait for an answer.
/// This cannot be undone. The holder of the returned descriptor answers. Once no process holds it any more, these calls
/// fail with ENOSYS.
///
/// A thread without CAP_SYS_ADMIN has to give up gaining privileges (no_new_privs) for that.
///
/// # Errors
///
/// EBUSY if another process answers for this thread already; EINVAL or ENOSYS if the kernel lacks the feature.
pub(crate) fn intercept() -> io::Result<OwnedFd> {
    if ABIS.is_empty() {
        return Err(ErrorKind::Unsupported.into());
    }
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    // Once the listener has received a call, only a fatal signal interrupts it (Linux 5.19). Otherwise a timer could
    // restart the call forever.
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

/// Whether [`intercept`] works here. A child tries it and ends.
///
/// # Errors
///
/// As [`intercept`], and if there can be no child.
pub(crate) fn attempt() -> io::Result<()> {
    match fork()? {
        Fork::Child => exit(match intercept() {
            Ok(_) => 0,
            Err(error) => error.raw_os_error().unwrap_or(libc::ENOSYS),
        }),
        Fork::Parent(pid) => loop {
            match waitpid(Pid::from_raw(pid), None) {
                Ok(WaitStatus::Exited(_, 0)) => return Ok(()),
                Ok(WaitStatus::Exited(_, number)) => return Err(io::Error::from_raw_os_error(number)),
                Err(Errno::EINTR) => {}
                // A filter has killed it for that call.
                Ok(_) => return Err(io::Error::from_raw_os_error(libc::EPERM)),
                Err(errno) => return Err(errno.into()),
            }
        },
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
        // SAFETY: the kernel has just opened the descriptor, and nothing else owns it.
        Ok(listener @ 0..) => Ok(unsafe { OwnedFd::from_raw_fd(listener) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Receives the calls and answers them.
#[derive(Debug)]
pub(crate) struct Listener(OwnedFd);

/// A call that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    id: u64,
    /// The thread that made the call.
    pub(crate) thread: i32,
    pub(crate) call: Call,
}

/// A call and its arguments. Addresses are in the memory of the calling process.
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
    /// socketcall(2) of 32-bit programs: [`multiplexed`] finds the call by the contents of the list.
    Multiplexed {
        call: u32,
        list: u64,
    },
    Other,
}

/// How many bytes of socketcall(2)'s list matter.
pub(crate) const LIST: usize = 12;

/// Returns the call that socketcall(2) makes with this list.
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

/// Returns the call that this number means in this ABI. Descriptors and lengths are ints to the kernel.
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

/// The answer to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The kernel carries out the call as usual.
    GoOn,
    /// The call returns 0, and the kernel does nothing else.
    Done,
}

/// The room for the kernel's structures, which may grow, in 64-bit words.
const ROOM: usize = 64;

impl Listener {
    /// # Errors
    ///
    /// If the kernel's structures are larger than `ROOM`.
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

    /// Receives the next call, or `None` if its process has ended meanwhile. Call this when the descriptor is readable;
    /// otherwise it blocks.
    pub(crate) fn next(&self) -> io::Result<Option<Waiting>> {
        // The kernel requires zeroes.
        let mut room = [0_u64; ROOM];
        let place = room.as_mut_ptr();
        // SAFETY: the room is as large as what the kernel writes, which `new` has checked, and aligned for 64 bits.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, place) };
        if result < 0 {
            return match io::Error::last_os_error() {
                error if [libc::ENOENT, libc::EINTR].map(Some).contains(&error.raw_os_error()) => Ok(None),
                error => Err(error),
            };
        }
        // SAFETY: the kernel has written this structure there. It consists of integers and is smaller than the room.
        let found = unsafe { ptr::read(place.cast::<libc::seccomp_notif>()) };
        Ok(Some(Waiting {
            id: found.id,
            thread: found.pid as i32,
            call: call(found.data.arch, found.data.nr as u32, found.data.args),
        }))
    }

    /// Whether the call still waits. If not, its thread's number may have been reused, and what was read may belong to
    /// another process.
    pub(crate) fn is_waiting(&self, call: &Waiting) -> bool {
        // SAFETY: the call reads a number, which lives until it returns.
        let result =
            unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, ptr::from_ref(&call.id)) };
        result == 0
    }

    /// Installs a copy of `socket` in the calling process as descriptor `number`, replacing what was open there.
    pub(crate) fn put(&self, call: &Waiting, socket: BorrowedFd<'_>, number: u32, cloexec: bool) -> io::Result<()> {
        let added = libc::seccomp_notif_addfd {
            id: call.id,
            // Without SECCOMP_ADDFD_FLAG_SEND, which also answers: the call would return the number of the descriptor.
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

    /// Answers a call. It is no error if the call no longer waits.
    pub(crate) fn answer(&self, call: &Waiting, answer: Answer) -> io::Result<()> {
        let mut room = [0_u64; ROOM];
        let flags = if answer == Answer::GoOn { libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32 } else { 0 };
        let answer = libc::seccomp_notif_resp { id: call.id, val: 0, error: 0, flags };
        let place = room.as_mut_ptr();
        // SAFETY: the room is larger than the structure, and aligned for it.
        unsafe { ptr::write(place.cast::<libc::seccomp_notif_resp>(), answer) };
        // SAFETY: the kernel reads no more than the room, which `new` has checked.
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

/// Returns the name of a socket's protocol, such as `TCPv6`, by a path that leads to the socket
/// (`system.sockprotoname`). Call this for sockets only: for a file, the call may block on the file system that
/// provides it.
pub(crate) fn protocol(path: &str) -> Option<String> {
    let path = CString::new(path).ok()?;
    let mut name = [0_u8; 64];
    let attribute: &CStr = c"system.sockprotoname";
    // SAFETY: both strings are terminated, the buffer is as large as stated, and all live until the call returns.
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
