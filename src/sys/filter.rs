//! Attaches a classic BPF program to a SO_REUSEPORT group.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::sys::cbpf::Instruction;

/// Makes the kernel run `program` for each new connection of the socket's group (socket(7),
/// `SO_ATTACH_REUSEPORT_CBPF`), instead of an earlier program.
pub(crate) fn attach(socket: BorrowedFd<'_>, program: &[Instruction]) -> io::Result<()> {
    let mut filter = compile(program);
    let len = u16::try_from(filter.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let fprog = libc::sock_fprog { len, filter: filter.as_mut_ptr() };
    let size = std::mem::size_of_val(&fprog) as libc::socklen_t;
    // SAFETY: `fprog` is what the option takes and points to `len` instructions, which live until the call returns and
    // which the kernel copies.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            std::ptr::from_ref(&fprog).cast(),
            size,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes the kernel choose by its hash again (`SO_DETACH_REUSEPORT_BPF`), if a program is attached.
pub(crate) fn detach(socket: BorrowedFd<'_>) -> io::Result<()> {
    let unused: libc::c_int = 0;
    let size = std::mem::size_of_val(&unused) as libc::socklen_t;
    let (option, value) = (libc::SO_DETACH_REUSEPORT_BPF, std::ptr::from_ref(&unused).cast());
    // SAFETY: the option takes an int, which lives until the call returns, and ignores it.
    match unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, value, size) } {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            error => Err(error),
        },
    }
}

/// Converts instructions to the kernel's format.
pub(super) fn compile(program: &[Instruction]) -> Vec<libc::sock_filter> {
    let instructions = program.iter();
    instructions
        .map(|it| libc::sock_filter { code: it.code, jt: it.jump_true, jf: it.jump_false, k: it.value })
        .collect()
}
