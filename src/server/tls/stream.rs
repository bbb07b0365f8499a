//! A socket with its session: reads and writes plaintext as a TCP socket does.

use std::io::{self, ErrorKind, Read};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use mio::net::TcpStream;
use socket2::SockRef;

use super::endpoint::{Buffers, Endpoint, InProgress};
use super::session::TlsSession;
use super::socket::TlsSocket;
use crate::server::http::TlsInfo;

/// The answer to a client that speaks HTTP without TLS.
pub(crate) const NO_TLS: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 55\r\n\
    Connection: close\r\n\r\nthis port speaks HTTPS only; write https:// in the URL\n";

/// A socket with its session.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: TcpStream,
    session: TlsSession,
    endpoint: Rc<Endpoint>,
    stage: Stage,
    /// Set until the handshake has ended.
    handshake: Option<InProgress>,
    /// Records that the socket has not accepted, and how much of them it has.
    pending: Vec<u8>,
    sent: usize,
    /// The length of the plaintext in them. It counts as sent when all of them were.
    sealed: usize,
    /// Whether the last read has left bytes in the socket.
    is_full: bool,
    /// Whether the client was told that nothing more will come.
    has_sent_close_notify: bool,
    /// Whether to close this direction once nothing is pending.
    is_closing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// A header of the PROXY protocol comes first.
    Header,
    /// Nothing has come.
    Fresh,
    Handshake,
    Open,
    /// The client gets nothing more.
    Over,
}

/// What the server awaits of a client's next flight in a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaited {
    All,
    Rest,
}

impl Stream {
    /// # Errors
    ///
    /// If the library refuses the configuration.
    pub(crate) fn new(socket: TcpStream, endpoint: Rc<Endpoint>) -> io::Result<Stream> {
        let session = TlsSession::new(endpoint.config.clone()).map_err(io::Error::other)?;
        let (pending, sent, sealed) = (Vec::new(), 0, 0);
        let (stage, handshake) = (Stage::Fresh, Some(InProgress::new(&endpoint)));
        Ok(Stream {
            socket,
            session,
            endpoint,
            stage,
            handshake,
            pending,
            sent,
            sealed,
            is_full: false,
            has_sent_close_notify: false,
            is_closing: false,
        })
    }

    pub(crate) fn socket(&mut self) -> &mut TcpStream {
        &mut self.socket
    }

    /// A header of the PROXY protocol comes before the handshake.
    pub(crate) fn await_header(&mut self) {
        self.stage = Stage::Header;
    }

    /// The header has come, and these bytes after it.
    pub(crate) fn begin(&mut self, bytes: &[u8]) {
        self.stage = Stage::Fresh;
        if !bytes.is_empty() {
            self.session.keep(bytes);
        }
    }

    /// Whether its handshake is in progress, and if so, whether the client has sent nothing of it yet.
    pub(crate) fn handshake(&self) -> Option<Awaited> {
        match self.stage {
            Stage::Header | Stage::Fresh => Some(Awaited::All),
            Stage::Handshake => Some(Awaited::Rest),
            Stage::Open | Stage::Over => None,
        }
    }

    /// Ends a handshake in favour of another.
    pub(crate) fn give_way(&mut self) {
        if self.handshake().is_some() {
            self.end(Stage::Over);
            self.endpoint.count_crowded();
        }
    }

    /// The handshake has ended.
    fn end(&mut self, stage: Stage) {
        self.stage = stage;
        self.handshake = None;
    }

    /// What is known about the session once the handshake is done.
    pub(crate) fn info(&self) -> Option<&TlsInfo> {
        self.session.info()
    }

    /// Whether a read may find more without another event.
    pub(crate) fn has_more(&self) -> bool {
        self.is_full || self.session.has_more()
    }

    /// Whether it has records to send that no response waits for.
    pub(crate) fn wants_write(&self) -> bool {
        !self.pending.is_empty()
    }

    pub(crate) fn held(&self) -> usize {
        self.session.held() + self.pending.capacity()
    }

    /// Reads plaintext. Zero is the end.
    pub(crate) fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self.stage {
            Stage::Header => return self.read_raw(room),
            Stage::Over => {
                self.flush()?;
                return self.read_raw(room);
            }
            Stage::Fresh | Stage::Handshake | Stage::Open => {}
        }
        self.flush()?;
        if self.has_no_turn() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let endpoint = Rc::clone(&self.endpoint);
        let mut buffers = endpoint.buffers.borrow_mut();
        if self.session.has_more() {
            let begins_with = self.session.first();
            if let Some(read) = self.process(&mut [], begins_with, room)? {
                return Ok(read);
            }
        }
        loop {
            if self.has_no_turn() {
                return Err(ErrorKind::WouldBlock.into());
            }
            let Buffers { received, .. } = &mut *buffers;
            let count = match self.socket.read(received) {
                Ok(0) => {
                    match self.stage {
                        Stage::Open if !self.session.is_closed() => self.endpoint.count_truncated(),
                        Stage::Handshake => self.endpoint.count_unfinished(),
                        _ => {}
                    }
                    self.is_full = false;
                    return Ok(0);
                }
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    self.is_full = false;
                    return Err(error);
                }
            };
            self.is_full = count == received.len();
            let first = received[0];
            if let Some(read) = self.process(&mut received[..count], first, room)? {
                return Ok(read);
            }
        }
    }

    /// Reads what is no part of a session.
    fn read_raw(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let count = self.socket.read(room);
        self.is_full = count.as_ref().is_ok_and(|count| *count == room.len());
        count
    }

    /// Whether its handshake has to wait for the next turn.
    fn has_no_turn(&mut self) -> bool {
        let waits = self.stage != Stage::Open && !self.endpoint.has_step();
        self.is_full |= waits;
        waits
    }

    /// Processes what has come; returns the length of the plaintext, or `None` if there is none yet.
    fn process(&mut self, fresh: &mut [u8], first: u8, room: &mut [u8]) -> io::Result<Option<usize>> {
        if self.stage == Stage::Fresh {
            if first.is_ascii_uppercase() {
                // Its client speaks HTTP without TLS, and is told what to do.
                self.endpoint.count_plain();
                self.end(Stage::Over);
                self.pending = NO_TLS.to_vec();
                self.flush()?;
                return Err(io::Error::new(ErrorKind::InvalidData, "HTTP without TLS"));
            }
            self.stage = Stage::Handshake;
        }
        let received = self.session.receive(fresh, room);
        let outgoing = self.session.take_outgoing();
        if self.stage == Stage::Handshake && (!outgoing.is_empty() || received.is_err()) {
            // Only what is complete has cost anything.
            self.endpoint.take_step();
        }
        if !outgoing.is_empty() {
            self.pending.extend_from_slice(&outgoing);
            let flushed = self.flush();
            if received.is_ok() {
                flushed?;
            }
        }
        if self.stage == Stage::Handshake && !self.session.is_handshaking() {
            self.end(Stage::Open);
            self.session.info().into_iter().for_each(|info| self.endpoint.count_done(info));
        }
        match received {
            Ok(0) if self.session.is_closed() => Ok(Some(0)),
            Ok(0) => Ok(None),
            Ok(count) => Ok(Some(count)),
            Err(error) => {
                self.endpoint.fail(&error, self.stage == Stage::Handshake);
                self.end(Stage::Over);
                Err(io::Error::new(ErrorKind::InvalidData, error))
            }
        }
    }

    /// Writes plaintext until done, or until the socket accepts no more; returns how much of it was sent. The next call
    /// must begin with the rest.
    pub(crate) fn write(&mut self, bytes: &[u8], is_beginning: bool) -> io::Result<usize> {
        if self.stage != Stage::Open || self.has_sent_close_notify {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let endpoint = Rc::clone(&self.endpoint);
        let mut buffers = endpoint.buffers.borrow_mut();
        self.write_with(bytes, is_beginning, &mut buffers.sealed)
    }

    fn write_with(&mut self, bytes: &[u8], is_beginning: bool, sealed: &mut [u8]) -> io::Result<usize> {
        self.flush()?;
        if self.wants_write() {
            return Ok(0);
        }
        let mut accepted = self.sealed.min(bytes.len());
        self.sealed -= accepted;
        let flags = if is_beginning { libc::MSG_MORE } else { 0 };
        while accepted < bytes.len() {
            let (taken, len) = self.session.seal(&bytes[accepted..], sealed).map_err(io::Error::other)?;
            // A change of keys comes before what they seal.
            let mut records = self.session.take_outgoing();
            let records = if records.is_empty() {
                &sealed[..len]
            } else {
                records.extend_from_slice(&sealed[..len]);
                &records[..]
            };
            let sent = match send(&self.socket, records, flags) {
                Ok(sent) => sent,
                // The next event reports the failure. What was sent before counts.
                Err(_) if accepted > 0 => return Ok(accepted),
                Err(error) => return Err(error),
            };
            if sent < records.len() {
                (self.pending, self.sent, self.sealed) = (records[sent..].to_vec(), 0, taken);
                return Ok(accepted);
            }
            accepted += taken;
        }
        Ok(accepted)
    }

    /// Reads up to `most` bytes by `read`, and writes them; returns how many were read, and how many of them were sent.
    pub(crate) fn write_from(
        &mut self,
        most: u64,
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<(usize, usize)> {
        if self.stage != Stage::Open || self.has_sent_close_notify {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let endpoint = Rc::clone(&self.endpoint);
        let Buffers { plain, sealed, .. } = &mut *endpoint.buffers.borrow_mut();
        let len = usize::try_from(most).unwrap_or(usize::MAX).min(plain.len());
        let count = read(&mut plain[..len])?;
        Ok((count, self.write_with(&plain[..count], false, sealed)?))
    }

    /// Sends what is pending, as far as the socket accepts it.
    fn flush(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.sent += send(&self.socket, &self.pending[self.sent..], 0)?;
        if self.sent == self.pending.len() {
            (self.pending, self.sent) = (Vec::new(), 0);
            if std::mem::take(&mut self.is_closing) {
                self.socket.shutdown(Shutdown::Write)?;
            }
        }
        Ok(())
    }

    /// Whether the client was refused, and may still have to read why.
    pub(crate) fn is_refused(&self) -> bool {
        self.stage == Stage::Over
    }

    /// Tells the client that nothing more will come, unless a part of a response is left. If the socket does not accept
    /// that, it is pending.
    pub(crate) fn send_close_notify(&mut self) {
        if self.stage != Stage::Open || self.sealed > 0 || self.has_sent_close_notify {
            return;
        }
        self.has_sent_close_notify = true;
        let mut alert = self.session.take_outgoing();
        if self.session.close(&mut alert).is_ok() {
            self.pending.extend_from_slice(&alert);
            // A client that has gone needs no alert.
            let _ = self.flush();
        }
    }

    /// Ends a handshake that nobody waits for any longer.
    pub(crate) fn give_up(&mut self) {
        if matches!(self.stage, Stage::Fresh | Stage::Handshake) {
            self.end(Stage::Over);
            self.endpoint.count_unfinished();
        }
    }

    pub(crate) fn shutdown(&mut self, how: Shutdown) -> io::Result<()> {
        if how != Shutdown::Read {
            self.send_close_notify();
            self.is_closing = self.wants_write();
        }
        match self.is_closing {
            true => Ok(()),
            false => self.socket.shutdown(how),
        }
    }

    /// The connection for the application.
    pub(crate) fn into_socket(self) -> Box<TlsSocket> {
        Box::new(TlsSocket::new(self.socket.into(), self.session, self.pending, self.sent))
    }
}

/// Sends bytes until done, or until the socket accepts no more; returns how many.
fn send(socket: &TcpStream, bytes: &[u8], flags: i32) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match SockRef::from(socket).send_with_flags(&bytes[sent..], flags | libc::MSG_NOSIGNAL) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(_) if sent > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
