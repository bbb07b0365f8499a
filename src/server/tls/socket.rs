//! A TLS connection that the application has taken over.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::socket::{recv, MsgFlags};

use super::session::{TlsSession, OVERHEAD, RECORD};
use crate::server::http::TlsInfo;

/// The bytes to read from the socket at once.
const READ: usize = RECORD + OVERHEAD;

/// A TLS connection, as a stream of plaintext. Reading and writing wait, whether the socket is blocking or not.
///
/// Dropping it tells the client that nothing more will come (`close_notify`).
#[derive(Debug)]
pub struct TlsSocket {
    socket: TcpStream,
    session: TlsSession,
    is_over: bool,
}

impl TlsSocket {
    /// `pending` are records that were not sent, after the first `sent` bytes.
    pub(super) fn new(socket: TcpStream, session: TlsSession, pending: Vec<u8>, sent: usize) -> TlsSocket {
        let mut stream = TlsSocket { socket, session, is_over: false };
        // The response with which the protocol changed was sent, so these could only be a change of keys.
        let _ = stream.send(&pending[sent..]);
        stream
    }

    /// What is known about the session.
    pub fn info(&self) -> Option<&TlsInfo> {
        self.session.info()
    }

    /// Whether reading returns at once.
    pub(crate) fn has_more(&self) -> bool {
        self.session.has_more()
    }

    fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.socket.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => wait(&self.socket, PollFlags::POLLOUT)?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn receive(&mut self, fresh: &mut [u8], bytes: &mut [u8]) -> io::Result<usize> {
        let received = self.session.receive(fresh, bytes);
        let outgoing = self.session.take_outgoing();
        if !outgoing.is_empty() {
            self.send(&outgoing)?;
        }
        received.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
    }

    /// Reads the socket once, without waiting. `None` if there is no plaintext yet: a record may be incomplete, or
    /// empty.
    pub(crate) fn try_read(&mut self, bytes: &mut [u8]) -> io::Result<Option<usize>> {
        let received = self.receive(&mut [], bytes)?;
        if received > 0 || self.session.is_closed() {
            return Ok(Some(received));
        }
        let mut fresh = [0; READ];
        let count = match recv(self.socket.as_raw_fd(), &mut fresh, MsgFlags::MSG_DONTWAIT) {
            // A client that says nothing before it closes may have been cut off.
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(Errno::EAGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let received = self.receive(&mut fresh[..count], bytes)?;
        Ok((received > 0 || self.session.is_closed()).then_some(received))
    }
}

impl Read for TlsSocket {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        loop {
            if let Some(count) = self.try_read(bytes)? {
                return Ok(count);
            }
            wait(&self.socket, PollFlags::POLLIN)?;
        }
    }
}

impl Write for TlsSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut sealed = [0; RECORD + OVERHEAD];
        let (taken, len) = self.session.seal(bytes, &mut sealed).map_err(io::Error::other)?;
        let outgoing = self.session.take_outgoing();
        self.send(&outgoing)?;
        self.send(&sealed[..len])?;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl TlsSocket {
    /// Tells the client that nothing more will come, and closes the connection in this direction, or in both.
    ///
    /// # Errors
    ///
    /// If the connection has ended.
    pub fn shutdown(&mut self, how: Shutdown) -> io::Result<()> {
        if how != Shutdown::Read && !std::mem::replace(&mut self.is_over, true) {
            let mut alert = self.session.take_outgoing();
            let told = self.session.close(&mut alert).map_err(io::Error::other).and_then(|()| self.send(&alert));
            self.socket.shutdown(how)?;
            return told;
        }
        self.socket.shutdown(how)
    }
}

impl Drop for TlsSocket {
    fn drop(&mut self) {
        if !self.is_over {
            let mut alert = self.session.take_outgoing();
            if self.session.close(&mut alert).is_ok() {
                // Without waiting: nobody reads it if the socket is full.
                let _ = socket2::SockRef::from(&self.socket)
                    .send_with_flags(&alert, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL);
            }
        }
    }
}

impl AsFd for TlsSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn wait(socket: &TcpStream, wanted: PollFlags) -> io::Result<()> {
    match poll(&mut [PollFd::new(socket.as_fd(), wanted)], PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
