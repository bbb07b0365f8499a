//! Listening sockets, which a worker shares with its pool.

use std::os::fd::RawFd;
use std::sync::atomic::Ordering::Relaxed;

use crate::again_and_again;
use crate::descriptors::{self, held, option, OWN_LISTENER};

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

/// Every option that there is of the slot's listener, in hexadecimal, and which socket that is.
pub(crate) fn every_option() -> String {
    let mut lines = String::new();
    for fd in of_the_pool() {
        let name = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
        lines += &format!("inode={}\n", name.display());
        for (level, name) in options_to_read() {
            if let Some(value) = read(fd, level, name) {
                let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
                lines += &format!("{level}/{name}={hex}\n");
            }
        }
    }
    lines
}

/// Changes every option of that listener that can be changed, but for those of `but`; or those of `only`. Names them.
pub(crate) fn change_options(but: &str, only: &str) -> String {
    let list = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
    let (but, only) = (list(but), list(only));
    let is_meant = |option: &String| if only[0].is_empty() { !but.contains(option) } else { only.contains(option) };
    let mut changed = Vec::new();
    for fd in of_the_pool() {
        for (level, name) in options_to_read().filter(|(level, name)| is_meant(&format!("{level}/{name}"))) {
            let Some(before) = read(fd, level, name) else { continue };
            let number = i32::from_ne_bytes(before.get(..4).and_then(|it| it.try_into().ok()).unwrap_or_default());
            let numbers = [number.wrapping_add(1), number / 2, 1, 0, 7, 100, 4096, -1];
            let values = numbers.map(|it| it.to_ne_bytes().to_vec()).into_iter();
            // Two numbers, as of a time or of SO_LINGER, and names.
            let values =
                values.chain([[7_i64, 7].map(i64::to_ne_bytes).concat(), [1_i32, 7].map(i32::to_ne_bytes).concat()]);
            let values = values.chain([b"reno".to_vec(), b"lo".to_vec()]);
            for value in values {
                unsafe { libc::setsockopt(fd, level, name, value.as_ptr().cast(), value.len() as u32) };
                if read(fd, level, name).is_some_and(|now| now != before) {
                    changed.push(format!("{level}/{name}"));
                    break;
                }
            }
        }
    }
    changed.join(",")
}

fn of_the_pool() -> impl Iterator<Item = RawFd> {
    all().into_iter().filter(|fd| *fd != OWN_LISTENER.load(Relaxed))
}

/// But for what reading changes: errors, descriptors of peers, mapped memory, tables of packets; for clocks, and for
/// keys.
fn options_to_read() -> impl Iterator<Item = (i32, i32)> {
    let levels = [(libc::SOL_SOCKET, 85), (libc::IPPROTO_IP, 53), (libc::IPPROTO_IPV6, 79), (libc::IPPROTO_TCP, 47)];
    let options = levels.into_iter().flat_map(|(level, end)| (1..end).map(move |name| (level, name)));
    options.filter(|option| {
        ![(1, 4), (1, 26), (1, 77), (6, 24), (6, 33), (6, 35), (41, 64), (41, 65), (41, 68), (41, 69)].contains(option)
    })
}

fn read(fd: RawFd, level: i32, name: i32) -> Option<Vec<u8>> {
    let (mut value, mut len) = ([0_u8; 64], 64_u32);
    let done = unsafe { libc::getsockopt(fd, level, name, value.as_mut_ptr().cast(), &mut len) };
    (done == 0).then(|| value[..len as usize].to_vec())
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
