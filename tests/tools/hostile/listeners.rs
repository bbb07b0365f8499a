//! Listening sockets, which a worker shares with its pool.

use std::os::fd::RawFd;

use crate::again_and_again;
use crate::descriptors::{self, held, option};

pub(crate) fn all() -> Vec<RawFd> {
    held().filter(|fd| option(*fd, libc::SO_ACCEPTCONN) == Some(1)).collect()
}

/// They listen for nobody any more.
pub(crate) fn shut_down() -> String {
    let listeners = all();
    let done = listeners.iter().filter(|fd| unsafe { libc::shutdown(**fd, libc::SHUT_RDWR) } == 0).count();
    format!("{done} of {} listeners shut down", listeners.len())
}

/// Who accepts waits, whatever else it has to do.
pub(crate) fn block() -> String {
    let (listeners, no) = (all(), 0_i32);
    for fd in &listeners {
        unsafe {
            let flags = libc::fcntl(*fd, libc::F_GETFL);
            libc::fcntl(*fd, libc::F_SETFL, flags & !libc::O_NONBLOCK);
            libc::ioctl(*fd, libc::FIONBIO, &no);
        }
    }
    let blocking = |fd: &&RawFd| unsafe { libc::fcntl(**fd, libc::F_GETFL) } & libc::O_NONBLOCK == 0;
    format!("{} of {} listeners block", listeners.iter().filter(blocking).count(), listeners.len())
}

/// Who closes a connection that comes from them waits, as these inherit it.
pub(crate) fn linger() -> String {
    let listeners = all();
    listeners.iter().for_each(|fd| descriptors::linger(*fd));
    format!("{} listeners linger", listeners.len())
}

/// All connections to the first of the group, or none to anybody.
pub(crate) fn program() -> String {
    let (listeners, mut done) = (all(), 0);
    let first = [libc::sock_filter { code: 6, jt: 0, jf: 0, k: 0 }];
    let program = libc::sock_fprog { len: 1, filter: first.as_ptr().cast_mut() };
    for fd in &listeners {
        for name in [libc::SO_ATTACH_REUSEPORT_CBPF, libc::SO_ATTACH_FILTER, libc::SO_LOCK_FILTER] {
            let (value, len) = match name {
                libc::SO_LOCK_FILTER => ((&raw const ONE).cast(), size_of::<i32>()),
                _ => ((&raw const program).cast(), size_of::<libc::sock_fprog>()),
            };
            done += usize::from(unsafe { libc::setsockopt(*fd, libc::SOL_SOCKET, name, value, len as u32) } == 0);
        }
    }
    format!("{done} programs on {} listeners", listeners.len())
}

static ONE: i32 = 1;

/// Options that make a listener useless for whoever uses it next.
pub(crate) fn options() -> String {
    let (listeners, mut done) = (all(), 0);
    for fd in &listeners {
        for (level, name, value) in [
            // Packets from further away than no hop at all are dropped, and so are those of this machine.
            (libc::IPPROTO_IP, libc::IP_MINTTL, 255),
            (libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 3600),
            (libc::IPPROTO_TCP, libc::TCP_MAXSEG, 88),
            (libc::IPPROTO_TCP, libc::TCP_WINDOW_CLAMP, 1),
            (libc::SOL_SOCKET, libc::SO_REUSEPORT, 0),
            (libc::SOL_SOCKET, libc::SO_RCVBUF, 1),
            (libc::SOL_SOCKET, libc::SO_SNDBUF, 1),
        ] {
            let (value, len) = ((&raw const value).cast(), size_of::<i32>() as u32);
            done += usize::from(unsafe { libc::setsockopt(*fd, level, name, value, len) } == 0);
        }
        unsafe { libc::listen(*fd, 0) };
    }
    format!("{done} options of {} listeners set", listeners.len())
}

/// Takes what comes for anybody, and drops it.
pub(crate) fn accept_and_drop() -> String {
    let listeners = all();
    for fd in listeners.clone() {
        again_and_again(move || unsafe {
            let client = libc::accept4(fd, std::ptr::null_mut(), std::ptr::null_mut(), 0);
            if client >= 0 {
                libc::close(client);
            } else {
                libc::usleep(1000);
            }
            true
        });
    }
    format!("connections of {} listeners dropped", listeners.len())
}
