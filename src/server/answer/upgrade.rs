//! Connections that go on in another protocol.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use nix::poll::{poll, PollFd, PollFlags, PollTimeout};

use crate::sys;

/// What is to be done with a connection once its 101 has been sent.
pub(crate) struct Upgrade {
    pub(crate) protocol: String,
    pub(crate) take_over: Box<dyn FnOnce(Upgraded) + Send>,
}

impl fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgrade").field("protocol", &self.protocol).finish_non_exhaustive()
    }
}

/// A connection that is the application's now. See [`Response::upgrade`](crate::Response::upgrade).
///
/// Reading gives first what the client had sent behind its request, then what comes. It blocks, as any stream of the
/// standard library does.
#[derive(Debug)]
pub struct Upgraded {
    leftover: io::Cursor<Vec<u8>>,
    stream: Socket,
}

/// The connection's socket.
#[derive(Debug)]
#[non_exhaustive]
pub enum Socket {
    /// Of a TCP address.
    Tcp(TcpStream),
    /// Of a Unix socket.
    Unix(UnixStream),
}

impl Upgraded {
    pub(crate) fn new(stream: Socket, leftover: Vec<u8>) -> io::Result<Upgraded> {
        match sys::fds::set_nonblocking(&stream, false) {
            // A sandbox refuses it.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {}
            result => result?,
        }
        Ok(Upgraded { leftover: io::Cursor::new(leftover), stream })
    }

    /// The socket, and what was read from it and not by the application. It blocks, but in a
    /// [`Sandbox`](crate::Sandbox), which lets no descriptor be made blocking.
    pub fn into_parts(self) -> (Socket, Vec<u8>) {
        let read = usize::try_from(self.leftover.position()).unwrap_or(usize::MAX);
        let mut leftover = self.leftover.into_inner();
        leftover.drain(..read.min(leftover.len()));
        (self.stream, leftover)
    }
}

impl Read for Upgraded {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self.leftover.read(bytes)? {
            0 if !bytes.is_empty() => match &self.stream {
                Socket::Tcp(socket) => waiting(&socket, PollFlags::POLLIN, || (&*socket).read(bytes)),
                Socket::Unix(socket) => waiting(&socket, PollFlags::POLLIN, || (&*socket).read(bytes)),
            },
            count => Ok(count),
        }
    }
}

impl Write for Upgraded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &self.stream {
            Socket::Tcp(socket) => waiting(&socket, PollFlags::POLLOUT, || (&*socket).write(bytes)),
            Socket::Unix(socket) => waiting(&socket, PollFlags::POLLOUT, || (&*socket).write(bytes)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Tcp(stream) => stream.as_fd(),
            Socket::Unix(stream) => stream.as_fd(),
        }
    }
}

/// Makes a call that blocks, whether its socket does so or not.
fn waiting(socket: &impl AsFd, wanted: PollFlags, mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            result => return result,
        }
        poll(&mut [PollFd::new(socket.as_fd(), wanted)], PollTimeout::NONE)?;
    }
}
