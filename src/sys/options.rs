//! Socket options by number (getsockopt(2)), whatever they mean.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The options read here have no longer values, except for IPv6 headers and filters.
const LONGEST: usize = 64;

/// Returns the value of an option, cut if it is longer than that.
pub(crate) fn get(socket: BorrowedFd<'_>, level: i32, name: i32) -> io::Result<Box<[u8]>> {
    let mut value = [0_u8; LONGEST];
    let mut len = LONGEST as libc::socklen_t;
    // SAFETY: `value` has space for `len` bytes, and both outlive the call. If the option's value contains addresses
    // through which the kernel would write, they are zero: there are none.
    let result = unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &mut len) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(value[..LONGEST.min(len as usize)].into())
}

/// Sets an option.
pub(crate) fn set(socket: BorrowedFd<'_>, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    let len = value.len() as libc::socklen_t;
    // SAFETY: `value` has `len` bytes and outlives the call, which reads it and writes to no memory of this process.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value.as_ptr().cast(), len) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
