//! Connections that switch to another protocol.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::server::answer::guard::UpgradeGuard;
use crate::server::client::Client;
use crate::server::tls::TlsSocket;
use crate::sys;

/// What to do with a connection once its 101 response has been sent.
pub(crate) struct Upgrade {
    pub(crate) protocol: String,
    pub(crate) take_over: Box<dyn FnOnce(Upgraded) + Send>,
}

impl fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgrade").field("protocol", &self.protocol).finish_non_exhaustive()
    }
}

/// A connection that belongs to the application. See [`Response::upgrade`](crate::Response::upgrade).
///
/// Reading returns first what the client has sent after its request. It blocks, like a stream of the standard library.
///
/// Until it is dropped, it counts as a connection of its worker, and a drain waits for it, up to the drain timeout. So
/// the application should learn about the drain: by [`interrupt_on_drain`](Upgraded::interrupt_on_drain) if a thread
/// reads from the connection, and by [`on_drain`](Upgraded::on_drain) otherwise.
#[derive(Debug)]
#[must_use = "dropping it closes the connection"]
pub struct Upgraded {
    leftover: io::Cursor<Vec<u8>>,
    stream: Socket,
    guard: UpgradeGuard,
    read_timeout: Option<Duration>,
    /// Readable once reading must be interrupted.
    interrupt: Option<Arc<EventFd>>,
}

/// The connection's socket.
#[derive(Debug)]
#[non_exhaustive]
pub enum Socket {
    /// A connection to a TCP address.
    Tcp(TcpStream),
    /// A connection to a Unix socket.
    Unix(UnixStream),
    /// A connection with TLS.
    Tls(Box<TlsSocket>),
}

impl Socket {
    /// The socket of a client as a type of the standard library.
    pub(crate) fn of(client: Client) -> Socket {
        match client {
            Client::Tcp(stream) => Socket::Tcp(OwnedFd::from(stream).into()),
            Client::Unix(stream) => Socket::Unix(OwnedFd::from(stream).into()),
            Client::Taken { socket, is_unix: false } => Socket::Tcp(socket.into()),
            Client::Taken { socket, is_unix: true } => Socket::Unix(socket.into()),
            Client::Tls(stream) => Socket::Tls(stream.into_socket()),
        }
    }
}

impl Upgraded {
    pub(crate) fn new(stream: Socket, leftover: Vec<u8>, guard: UpgradeGuard) -> io::Result<Upgraded> {
        match sys::fds::set_nonblocking(&stream, false) {
            // The sandbox refuses it.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {}
            result => result?,
        }
        let leftover = io::Cursor::new(leftover);
        Ok(Upgraded { leftover, stream, guard, read_timeout: None, interrupt: None })
    }

    /// Returns the socket, the bytes that were read from it and not by the application, and the guard that keeps the
    /// connection among those of its worker. The socket is blocking, except in a [`Sandbox`](crate::Sandbox), where no
    /// descriptor can be made blocking.
    pub fn into_parts(self) -> (Socket, Vec<u8>, UpgradeGuard) {
        let read = usize::try_from(self.leftover.position()).unwrap_or(usize::MAX);
        let mut leftover = self.leftover.into_inner();
        leftover.drain(..read.min(leftover.len()));
        (self.stream, leftover, self.guard)
    }

    /// Whether the worker drains and this connection should end, in the way that its protocol provides. Connections are
    /// notified one after the other, over at most five seconds, so that their clients do not all reconnect at once.
    pub fn is_draining(&self) -> bool {
        self.guard.is_draining()
    }

    /// Runs `hook` as soon as [`is_draining`](Upgraded::is_draining) is true, or at once if it is already. The hook
    /// runs on the worker's only thread; send a message from it, or wake a task.
    pub fn on_drain(&self, hook: impl FnOnce() + Send + 'static) {
        self.guard.on_drain(hook);
    }

    /// Makes one read fail with [`ErrorKind::Interrupted`] as soon as [`is_draining`](Upgraded::is_draining) is true,
    /// whether it waits or there is something to read. Later reads work as before. Methods that read until they have
    /// enough, such as [`read_exact`](Read::read_exact), retry by themselves, so their caller does not notice.
    ///
    /// # Errors
    ///
    /// If no descriptor is free for an eventfd(2).
    pub fn interrupt_on_drain(&mut self) -> io::Result<()> {
        let interrupt = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        let copy = Arc::clone(&interrupt);
        self.on_drain(move || {
            // It cannot be full, since nothing else is written to it.
            let _ = copy.write(1);
        });
        self.interrupt = Some(interrupt);
        Ok(())
    }

    /// Sets how long a read waits before it fails with [`ErrorKind::TimedOut`]; `None`, the default, waits for ever.
    pub fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.read_timeout = timeout;
    }

    /// Waits until there is something to read, if a timeout or a drain may end the wait.
    fn wait(&self, end: Option<Instant>) -> io::Result<()> {
        if self.interrupt.is_none() && self.read_timeout.is_none() {
            return Ok(());
        }
        let mut wanted = vec![PollFd::new(self.stream.as_fd(), PollFlags::POLLIN)];
        wanted.extend(self.interrupt.iter().map(|interrupt| PollFd::new(interrupt.as_fd(), PollFlags::POLLIN)));
        // The maximum of poll(2) is 24 days.
        let timeout = end.map_or(PollTimeout::NONE, |end| {
            let millis = end.saturating_duration_since(Instant::now()).as_micros().div_ceil(1000);
            PollTimeout::try_from(i32::try_from(millis).unwrap_or(i32::MAX)).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut wanted, timeout)? {
            0 => Err(ErrorKind::TimedOut.into()),
            _ => Ok(()),
        }
    }
}

impl Read for Upgraded {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let end = self.read_timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            if self.interrupt.is_some() && self.is_draining() {
                self.interrupt = None;
                return Err(io::Error::new(ErrorKind::Interrupted, "the worker drains"));
            }
            let count = self.leftover.read(bytes)?;
            if count > 0 {
                return Ok(count);
            }
            if !self.stream.has_more() {
                self.wait(end)?;
            }
            if self.interrupt.is_some() && self.is_draining() {
                continue;
            }
            return match &mut self.stream {
                Socket::Tcp(socket) => waiting(&*socket, PollFlags::POLLIN, || (&*socket).read(bytes)),
                Socket::Unix(socket) => waiting(&*socket, PollFlags::POLLIN, || (&*socket).read(bytes)),
                Socket::Tls(socket) if self.interrupt.is_none() && end.is_none() => socket.read(bytes),
                // What is there may be a part of a record. The rest has no more time than the whole.
                Socket::Tls(socket) => match socket.try_read(bytes)? {
                    Some(count) => Ok(count),
                    None => continue,
                },
            };
        }
    }
}

impl Write for Upgraded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.stream {
            Socket::Tcp(socket) => waiting(&*socket, PollFlags::POLLOUT, || (&*socket).write(bytes)),
            Socket::Unix(socket) => waiting(&*socket, PollFlags::POLLOUT, || (&*socket).write(bytes)),
            Socket::Tls(socket) => socket.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Socket {
    /// Whether reading returns at once, though the kernel may hold nothing.
    fn has_more(&self) -> bool {
        match self {
            Socket::Tls(socket) => socket.has_more(),
            _ => false,
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Tcp(stream) => stream.as_fd(),
            Socket::Unix(stream) => stream.as_fd(),
            Socket::Tls(stream) => stream.as_fd(),
        }
    }
}

/// Makes a blocking call, whether the socket is blocking or not.
fn waiting(socket: &impl AsFd, wanted: PollFlags, mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            result => return result,
        }
        poll(&mut [PollFd::new(socket.as_fd(), wanted)], PollTimeout::NONE)?;
    }
}
