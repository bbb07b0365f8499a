//! What a worker holds together with others: open file descriptions, listeners, what comes for it.

use std::os::fd::RawFd;
use std::time::Duration;

use crate::again_and_again;
use crate::descriptors::{held, option};
use crate::listeners;

/// What connections inherit, of what servers set on connections.
pub(crate) fn inherited() -> String {
    let (listeners, mut done) = (listeners::all(), 0);
    for fd in &listeners {
        for (level, name, value) in [
            (libc::IPPROTO_TCP, libc::TCP_NODELAY, 0),
            (libc::IPPROTO_TCP, libc::TCP_CORK, 1),
            (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, 1),
            (libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, 1),
        ] {
            let (value, len) = ((&raw const value).cast(), size_of::<i32>() as u32);
            done += usize::from(unsafe { libc::setsockopt(*fd, level, name, value, len) } == 0);
        }
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        let (value, len) = ((&raw const linger).cast(), size_of::<libc::linger>() as u32);
        done += usize::from(unsafe { libc::setsockopt(*fd, libc::SOL_SOCKET, libc::SO_LINGER, value, len) } == 0);
    }
    format!("{done} options of {} listeners set", listeners.len())
}

/// Copies of all listeners, also of those that come later: who is told to let go of one still has it.
pub(crate) fn keep() -> String {
    let mut kept = Vec::new();
    again_and_again(move || {
        for fd in listeners::all().into_iter().filter(|fd| *fd < 512) {
            let mut stat: libc::stat = unsafe { std::mem::zeroed() };
            unsafe { libc::fstat(fd, &mut stat) };
            if !kept.contains(&stat.st_ino) {
                kept.push(stat.st_ino);
                unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 512) };
            }
        }
        std::thread::sleep(Duration::from_millis(1));
        true
    });
    "all listeners kept".to_owned()
}

/// Copies of its listeners in the place of everything else, which are then shut down by that number.
pub(crate) fn replace() -> String {
    let (listeners, mut done) = (listeners::all(), 0);
    let copies: Vec<RawFd> = listeners.iter().map(|fd| unsafe { libc::fcntl(*fd, libc::F_DUPFD, 900) }).collect();
    for copy in &copies {
        for fd in 3..128 {
            unsafe {
                libc::dup2(*copy, fd);
                done += usize::from(libc::shutdown(fd, libc::SHUT_RD) == 0);
            }
        }
    }
    format!("{done} of {} listeners shut down by other numbers", copies.len())
}

/// Each of its low numbers means something else, and is used.
pub(crate) fn low_numbers() -> String {
    let zero = unsafe { libc::open(c"/dev/zero".as_ptr(), libc::O_RDONLY) };
    let mut done = 0;
    for fd in (0..64).filter(|fd| *fd != zero) {
        done += usize::from(unsafe { libc::dup2(zero, fd) } == fd);
    }
    format!("{done} low numbers replaced")
}

/// Flags of open file descriptions, which others write to as well.
pub(crate) fn flags() -> String {
    let mut done = 0;
    for fd in (0..3).chain(held()) {
        for flags in [libc::O_DIRECT, libc::O_DIRECT | libc::O_NONBLOCK, libc::O_ASYNC | libc::O_NONBLOCK] {
            done += usize::from(unsafe { libc::fcntl(fd, libc::F_SETFL, flags | libc::O_DIRECT) } == 0);
        }
    }
    format!("{done} times flags set")
}

/// Leases of files that others open.
pub(crate) fn leases() -> String {
    let mut done = 0;
    for fd in (0..3).chain(held()) {
        done += usize::from(unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_WRLCK) } == 0);
    }
    format!("{done} leases taken")
}

/// Nobody writes to what it holds any more.
pub(crate) fn mute() -> String {
    let all = (0..3).chain(held()).filter(|fd| option(*fd, libc::SO_TYPE).is_some());
    let done = all.filter(|fd| unsafe { libc::shutdown(*fd, libc::SHUT_WR) } == 0).count();
    format!("{done} sockets shut down for writing")
}

/// Takes whatever comes over anything but listeners, before whoever it is for.
pub(crate) fn take_orders() -> String {
    for fd in held().filter(|fd| option(*fd, libc::SO_DOMAIN) == Some(libc::AF_UNIX)) {
        again_and_again(move || {
            let (mut bytes, mut control) = ([0_u8; 4096], [0_u64; 140]);
            let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
            let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
            message.msg_iov = &mut part;
            message.msg_iovlen = 1;
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = size_of_val(&control) as _;
            let taken = unsafe { libc::recvmsg(fd, &mut message, libc::MSG_DONTWAIT) };
            if taken <= 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
            true
        });
    }
    "whatever comes is taken".to_owned()
}

/// A process that holds all that this one holds, says something on all of it, and outlives it.
pub(crate) fn leave_a_child(flood: impl FnOnce() -> String) -> String {
    match unsafe { libc::fork() } {
        -1 => "no child".to_owned(),
        0 => {
            unsafe { libc::setsid() };
            for signal in 1..32 {
                unsafe { libc::signal(signal, libc::SIG_IGN) };
            }
            flood();
            std::thread::sleep(crate::FOR_EVER);
            unsafe { libc::_exit(0) }
        }
        child => format!("child {child}"),
    }
}

/// Another program, which holds all of it and knows nothing of it.
pub(crate) fn become_another() -> String {
    for fd in held() {
        unsafe { libc::fcntl(fd, libc::F_SETFD, 0) };
    }
    let arguments = [c"sleep".as_ptr(), c"10".as_ptr(), std::ptr::null()];
    unsafe { libc::execv(c"/bin/sleep".as_ptr(), arguments.as_ptr()) };
    "no other program".to_owned()
}
