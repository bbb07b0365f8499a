//! Descriptors: what can be said over those that a worker holds, and what can be passed over them.

use std::mem;
use std::net::TcpListener;
use std::os::fd::{IntoRawFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::{again_and_again, passing, random};

/// Beyond what one attack may take before it answers.
const CLIENT_TURN_MAX: Duration = Duration::from_secs(2);

/// What fits into one message (`SCM_MAX_FD`).
pub(crate) const MOST: usize = 253;

/// A listener that is not the pool's.
pub(crate) static OWN_LISTENER: AtomicI32 = AtomicI32::new(-1);

/// Everything that this process has open but its standard streams.
pub(crate) fn held() -> impl Iterator<Item = RawFd> {
    (3..1024).filter(|fd| unsafe { libc::fcntl(*fd, libc::F_GETFD) } != -1)
}

/// An integer option of a socket; `None` when it is no socket.
pub(crate) fn option(fd: RawFd, name: i32) -> Option<i32> {
    let (mut value, mut len) = (0_i32, size_of::<i32>() as u32);
    let done = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, name, (&raw mut value).cast(), &mut len) };
    (done == 0).then_some(value)
}

/// What a worker has to pass.
pub(crate) struct Descriptors {
    /// A pair of each kind, in which something is to be read if that can be.
    kinds: Vec<[RawFd; 2]>,
}

impl Descriptors {
    pub(crate) fn gather() -> Descriptors {
        let mut kinds = Vec::new();
        let mut pipe = [0; 2];
        unsafe { libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC) };
        kinds.push(pipe);
        kinds.push([pipe[0]; 2]);
        unsafe {
            kinds.push([libc::eventfd(1, libc::EFD_CLOEXEC); 2]);
            kinds.push([libc::open(c"/dev/zero".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC); 2]);
            kinds.push([libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC); 2]);
            kinds.push([libc::memfd_create(c"passed".as_ptr(), libc::MFD_CLOEXEC); 2]);
            kinds.push([libc::epoll_create1(libc::EPOLL_CLOEXEC); 2]);
        }
        if let Ok((one, other)) = UnixStream::pair() {
            kinds.push([one.into_raw_fd(), other.into_raw_fd()]);
        }
        if let Ok((one, other)) = UnixDatagram::pair() {
            kinds.push([one.into_raw_fd(), other.into_raw_fd()]);
        }
        if let Ok(listener) = TcpListener::bind("127.0.0.1:0") {
            let own = listener.into_raw_fd();
            OWN_LISTENER.store(own, Relaxed);
            kinds.push([own; 2]);
        }
        for [one, other] in &kinds {
            // So that whoever waits for it to be readable begins to read, once.
            unsafe { libc::send(*other, b"x".as_ptr().cast(), 1, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
            unsafe { libc::write(if one == other { -1 } else { *other }, b"x".as_ptr().cast(), 1) };
        }
        Descriptors { kinds }
    }

    /// Sockets and pipes that lead to another process.
    fn channels(&self) -> Vec<RawFd> {
        let own = |fd: &RawFd| self.kinds.iter().flatten().any(|kind| kind == fd);
        held().filter(|fd| !own(fd)).filter(|fd| is_channel(*fd)).collect()
    }

    /// Random bytes in random lengths.
    pub(crate) fn junk(&self) -> String {
        let (mut random, end, mut sent) = (random(), Instant::now() + CLIENT_TURN_MAX, 0);
        for _ in 0..64 {
            for channel in self.channels() {
                let len = (random() % 256) as usize;
                let bytes: Vec<u8> = (0..len).map(|_| random() as u8).collect();
                sent += usize::from(send(channel, &bytes, &[], end));
            }
        }
        format!("{sent} times junk")
    }

    /// These bytes, once, over every pipe.
    pub(crate) fn report(&self, bytes: &[u8]) {
        for pipe in self.channels().into_iter().filter(|fd| option(*fd, libc::SO_TYPE).is_none()) {
            send(pipe, bytes, &[], Instant::now() + CLIENT_TURN_MAX);
        }
    }

    /// Every byte by itself: the highest first, as capital letters come before what is said in words.
    pub(crate) fn letters(&self) -> String {
        let (end, mut sent) = (Instant::now() + CLIENT_TURN_MAX, 0);
        for byte in (0..=u8::MAX).rev().chain(0..=u8::MAX) {
            for channel in self.channels() {
                sent += usize::from(send(channel, &[byte], &[], end));
            }
        }
        format!("{sent} letters")
    }

    /// One letter for ever on each channel, another one on each.
    pub(crate) fn flood(&self) -> String {
        let channels = self.channels();
        for (channel, letter) in channels.iter().copied().cycle().zip(b"RLMAm".repeat(2)) {
            let bytes = [letter; 4096];
            again_and_again(move || {
                // A full one is tried again; a broken one is not.
                unsafe { libc::write(channel, bytes.as_ptr().cast(), bytes.len()) >= 0 || is_full() }
            });
        }
        format!("{} channels flooded", channels.len())
    }

    /// Every kind of descriptor, with every letter, over every channel.
    pub(crate) fn pass_everything(&self) -> String {
        let (end, mut sent) = (Instant::now() + CLIENT_TURN_MAX, 0);
        for kind in &self.kinds {
            for letter in (b'A'..=b'z').rev() {
                for channel in self.channels() {
                    for fds in [&kind[..], &kind[..1]] {
                        sent += usize::from(send(channel, &[letter], fds, end));
                    }
                }
            }
        }
        format!("descriptors passed {sent} times")
    }

    /// Connections of clients that take nothing, so that whoever closes them last waits for ten minutes.
    pub(crate) fn pass_clients(&self, letters: &[u8]) -> String {
        let (end, mut sent) = (Instant::now() + CLIENT_TURN_MAX, 0);
        for client in held().filter(|fd| is_client(*fd)) {
            linger(client);
            for channel in self.channels() {
                for letter in letters {
                    sent += usize::from(send(channel, &[*letter], &[client], end));
                }
            }
            unsafe { libc::close(client) };
        }
        format!("clients passed {sent} times")
    }

    /// The same, each behind as many descriptors that close at once, and goes on: the numbers stay open.
    pub(crate) fn pass_clients_and_live(&self, behind: usize) -> String {
        let (end, own, mut sent) = (Instant::now() + CLIENT_TURN_MAX, self.kinds[0][0], 0);
        for client in held().filter(|fd| is_client(*fd)) {
            linger(client);
            let fds = [&vec![own; behind][..], &[client]].concat();
            for channel in self.channels() {
                sent += usize::from(send(channel, b"m", &fds, end));
            }
            unsafe { libc::dup2(own, client) };
        }
        format!("clients passed {sent} times")
    }

    /// More than a parent with 1024 descriptors can open, and at last clients as above. It ends at once, so that what
    /// it has sent is there and nobody else has them.
    pub(crate) fn pass_too_many(&self) -> String {
        let clients: Vec<RawFd> = held().filter(|fd| is_client(*fd)).collect();
        clients.iter().for_each(|client| linger(*client));
        let own = self.kinds[0][0];
        let lengths = [&[1; 150][..], &[MOST; 3], &[1; 100]].concat();
        for channel in self.channels() {
            for len in &lengths {
                send_message(channel, b"m", &vec![own; *len]);
            }
            send_message(channel, b"m", &[&vec![own; MOST - clients.len()], &clients[..]].concat());
        }
        unsafe { libc::_exit(0) }
    }

    /// What a worker passes on to those after it.
    pub(crate) fn pass_on(&self) -> String {
        passing::pass_on(&self.kinds)
    }

    pub(crate) fn close_all(&self) -> String {
        unsafe { libc::close_range(3, u32::MAX, 0) };
        "all closed".to_owned()
    }
}

/// Has closing wait for ten minutes while there is something to send, where that is allowed.
pub(crate) fn linger(socket: RawFd) {
    let linger = libc::linger { l_onoff: 1, l_linger: 600 };
    let (value, len) = ((&raw const linger).cast(), size_of::<libc::linger>() as u32);
    unsafe { libc::setsockopt(socket, libc::SOL_SOCKET, libc::SO_LINGER, value, len) };
}

fn is_channel(fd: RawFd) -> bool {
    match option(fd, libc::SO_DOMAIN) {
        Some(domain) => domain == libc::AF_UNIX && option(fd, libc::SO_ACCEPTCONN) != Some(1),
        None => {
            let mut stat: libc::stat = unsafe { mem::zeroed() };
            unsafe { libc::fstat(fd, &mut stat) };
            stat.st_mode & libc::S_IFMT == libc::S_IFIFO
        }
    }
}

pub(crate) fn is_client(fd: RawFd) -> bool {
    option(fd, libc::SO_DOMAIN).is_some_and(|domain| domain == libc::AF_INET || domain == libc::AF_INET6)
        && option(fd, libc::SO_TYPE) == Some(libc::SOCK_STREAM)
        && option(fd, libc::SO_ACCEPTCONN) == Some(0)
}

/// Sends bytes and descriptors; waits a while where there is no room. Whether they went.
fn send(channel: RawFd, bytes: &[u8], fds: &[RawFd], end: Instant) -> bool {
    loop {
        let sent = match option(channel, libc::SO_TYPE) {
            Some(_) => send_message(channel, bytes, fds),
            None if fds.is_empty() => unsafe {
                libc::fcntl(channel, libc::F_SETFL, libc::O_NONBLOCK);
                libc::write(channel, bytes.as_ptr().cast(), bytes.len())
            },
            None => return false,
        };
        if sent >= 0 || !is_full() || Instant::now() > end {
            return sent >= 0;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn is_full() -> bool {
    std::io::Error::last_os_error().kind() == std::io::ErrorKind::WouldBlock
}

/// Takes the next message, if one has come, and returns its descriptors.
pub(crate) fn receive_descriptors(socket: RawFd) -> Vec<RawFd> {
    let (mut bytes, mut control) = ([0_u8; 4096], [0_u64; 140]);
    unsafe {
        let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        let mut message: libc::msghdr = mem::zeroed();
        message.msg_iov = &mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control) as _;
        if libc::recvmsg(socket, &mut message, libc::MSG_DONTWAIT) <= 0 {
            return Vec::new();
        }
        let header = libc::CMSG_FIRSTHDR(&message);
        if header.is_null() || (*header).cmsg_type != libc::SCM_RIGHTS {
            return Vec::new();
        }
        let count = ((*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize) / size_of::<RawFd>();
        let first = libc::CMSG_DATA(header).cast::<RawFd>();
        (0..count).map(|index| first.add(index).read_unaligned()).collect()
    }
}

pub(crate) fn send_message(socket: RawFd, bytes: &[u8], fds: &[RawFd]) -> isize {
    let len = mem::size_of_val(fds);
    let mut control = [0_u64; 140];
    unsafe {
        let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let mut message: libc::msghdr = mem::zeroed();
        message.msg_iov = &mut part;
        message.msg_iovlen = 1;
        if !fds.is_empty() {
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = libc::CMSG_SPACE(len as u32) as _;
            let header = libc::CMSG_FIRSTHDR(&message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(len as u32) as _;
            std::ptr::copy_nonoverlapping(fds.as_ptr().cast::<u8>(), libc::CMSG_DATA(header), len);
        }
        libc::sendmsg(socket, &message, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT)
    }
}
