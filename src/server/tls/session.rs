//! The records of a connection, in memory.

use std::fmt;
use std::sync::Arc;

use rustls::server::{ServerConfig, ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError, UnbufferedStatus, WriteTraffic,
};
use rustls::{CommonState, Error, HandshakeKind, InvalidMessage, ProtocolVersion};

use crate::server::http::TlsInfo;
use crate::shared::tls::{take_server_name, TlsVersion};

/// The maximum length of the plaintext in a record.
pub(super) const RECORD: usize = 16 * 1024;

/// How much longer a record may be than its plaintext.
pub(super) const OVERHEAD: usize = 128;

/// The bytes that a client may send without completing anything. A chain of certificates may take 64 KiB.
const INCOMPLETE_MAX: usize = 256 * 1024;

/// A session.
pub(super) struct TlsSession {
    connection: UnbufferedServerConnection,
    /// What the client has sent and is not processed yet: usually the beginning of a record.
    incoming: Vec<u8>,
    /// Whether some of it may be complete.
    has_backlog: bool,
    /// Plaintext for which there was no room.
    plain: Vec<u8>,
    /// Records of the handshake to send.
    outgoing: Vec<u8>,
    /// Whether the client has said that it sends nothing more.
    is_closed: bool,
    /// Whether it has failed. The library must not be called any more then.
    is_failed: bool,
    /// The host name that the client has asked for, until `info` has it.
    server_name: Option<Box<str>>,
    info: Option<Box<TlsInfo>>,
}

impl fmt::Debug for TlsSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsSession").field("info", &self.info).finish_non_exhaustive()
    }
}

impl TlsSession {
    pub(super) fn new(config: Arc<ServerConfig>) -> Result<TlsSession, Error> {
        let connection = UnbufferedServerConnection::new(config)?;
        let (incoming, plain, outgoing) = (Vec::new(), Vec::new(), Vec::new());
        Ok(TlsSession {
            connection,
            incoming,
            has_backlog: false,
            plain,
            outgoing,
            is_closed: false,
            is_failed: false,
            server_name: None,
            info: None,
        })
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.info.is_none()
    }

    pub(super) fn info(&self) -> Option<&TlsInfo> {
        self.info.as_deref()
    }

    /// Whether the client has said that it sends nothing more.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Whether there may be plaintext without further bytes of the client.
    pub(super) fn has_more(&self) -> bool {
        !self.plain.is_empty() || self.has_backlog
    }

    /// The first byte that the client has sent, before anything was processed.
    pub(super) fn first(&self) -> u8 {
        self.incoming.first().copied().unwrap_or_default()
    }

    /// The memory that it holds in buffers.
    pub(super) fn held(&self) -> usize {
        self.incoming.capacity() + self.plain.capacity() + self.outgoing.capacity()
    }

    /// Adds what the client sends before it is [processed](TlsSession::receive).
    pub(super) fn keep(&mut self, fresh: &[u8]) {
        self.incoming.extend_from_slice(fresh);
        self.has_backlog = true;
    }

    /// Processes what the client has sent, and fills `room` with plaintext; returns its length. There may be records to
    /// send then, also after an error: the alert.
    pub(super) fn receive(&mut self, fresh: &mut [u8], room: &mut [u8]) -> Result<usize, Error> {
        if self.is_failed {
            return Err(Error::HandshakeNotComplete);
        }
        let mut taken = take(&mut self.plain, room);
        if !self.plain.is_empty() || taken == room.len() {
            self.keep(fresh);
            return Ok(taken);
        }
        let mut joined = std::mem::take(&mut self.incoming);
        let bytes = if joined.is_empty() {
            fresh
        } else {
            joined.extend_from_slice(fresh);
            &mut joined[..]
        };
        let mut start = 0;
        let done = loop {
            if taken == room.len() {
                break Ok(());
            }
            let UnbufferedStatus { discard, state } = self.connection.process_tls_records(&mut bytes[start..]);
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(Ok(record)) = traffic.next_record() {
                        let copied = record.payload.len().min(room.len() - taken);
                        room[taken..taken + copied].copy_from_slice(&record.payload[..copied]);
                        taken += copied;
                        self.plain.extend_from_slice(&record.payload[copied..]);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, &mut self.outgoing),
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.is_closed = true,
                Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => {
                    start += discard;
                    break Ok(());
                }
                Ok(_) => {
                    start += discard;
                    self.is_closed = true;
                    break Ok(());
                }
                Err(error) => {
                    self.take_last(&mut bytes[start..]);
                    self.is_failed = true;
                    break Err(error);
                }
            }
            start += discard;
        };
        self.incoming = bytes[start.min(bytes.len())..].to_vec();
        self.has_backlog = taken == room.len();
        self.learn();
        match done {
            Ok(()) if self.incoming.len() > INCOMPLETE_MAX => {
                Err(Error::InvalidMessage(InvalidMessage::MessageTooLarge))
            }
            Ok(()) => Ok(taken),
            Err(error) => Err(error),
        }
    }

    /// Takes what is to be sent after an error: what came before it, and the alert. `bytes` are those in which it was,
    /// since the library still knows places in them. After the alert it must not see them again.
    fn take_last(&mut self, bytes: &mut [u8]) {
        let mut start = self.outgoing.len();
        while !is_alert(&self.outgoing[start..]) {
            start = self.outgoing.len();
            match self.connection.process_tls_records(bytes).state {
                Ok(ConnectionState::EncodeTlsData(mut record)) => encode(&mut record, &mut self.outgoing),
                _ => return,
            }
        }
    }

    /// Learns what the handshake has negotiated.
    fn learn(&mut self) {
        if self.info.is_some() {
            return;
        }
        self.server_name = take_server_name().or(self.server_name.take());
        if !self.connection.is_handshaking() {
            self.info = Some(Box::new(describe(&self.connection, self.server_name.take())));
        }
    }

    /// Takes the records of the handshake to send.
    pub(super) fn take_outgoing(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.outgoing)
    }

    /// Puts plaintext into records, as far as these fit into `out`; returns the lengths of both.
    pub(super) fn seal(&mut self, plain: &[u8], out: &mut [u8]) -> Result<(usize, usize), Error> {
        let (mut taken, mut len) = (0, 0);
        self.write(|mut traffic| {
            for part in plain.chunks(RECORD) {
                match traffic.encrypt(part, &mut out[len..]) {
                    Ok(written) => {
                        taken += part.len();
                        len += written;
                    }
                    Err(EncryptError::InsufficientSize(_)) => break,
                    Err(EncryptError::EncryptExhausted) => return Err(Error::EncryptError),
                }
            }
            Ok(())
        })?;
        Ok((taken, len))
    }

    /// Appends the alert that nothing more will come (`close_notify`).
    pub(super) fn close(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        self.write(|mut traffic| {
            let start = out.len();
            out.resize(start + OVERHEAD, 0);
            let written = traffic.queue_close_notify(&mut out[start..]);
            out.truncate(start + written.unwrap_or(0));
            Ok(())
        })
    }

    /// Brings the library to the state in which it encrypts.
    fn write<F>(&mut self, then: F) -> Result<(), Error>
    where
        F: FnOnce(WriteTraffic<'_, ServerConnectionData>) -> Result<(), Error>,
    {
        loop {
            if self.is_failed {
                return Err(Error::HandshakeNotComplete);
            }
            let UnbufferedStatus { discard, state } = self.connection.process_tls_records(&mut self.incoming);
            self.is_failed = state.is_err();
            match state? {
                ConnectionState::WriteTraffic(traffic) => {
                    let done = then(traffic);
                    self.incoming.drain(..discard);
                    return done;
                }
                ConnectionState::EncodeTlsData(mut data) => encode(&mut data, &mut self.outgoing),
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(Ok(record)) = traffic.next_record() {
                        self.plain.extend_from_slice(record.payload);
                    }
                }
                ConnectionState::PeerClosed => self.is_closed = true,
                _ => return Err(Error::HandshakeNotComplete),
            }
            self.incoming.drain(..discard);
        }
    }
}

/// Moves as much as fits.
fn take(from: &mut Vec<u8>, room: &mut [u8]) -> usize {
    let count = from.len().min(room.len());
    room[..count].copy_from_slice(&from[..count]);
    match count == from.len() {
        true => *from = Vec::new(),
        false => _ = from.drain(..count),
    }
    count
}

/// Whether a record is an alert. One of TLS 1.3 is encrypted, and shorter than everything else that is.
fn is_alert(record: &[u8]) -> bool {
    const ALERT: u8 = 21;
    const ENCRYPTED: u8 = 23;
    match record.first() {
        Some(&ALERT) => true,
        // Its two bytes, its type, and the tag, after the head.
        Some(&ENCRYPTED) => record.len() == 5 + 2 + 1 + 16,
        _ => false,
    }
}

/// Appends a record of the handshake.
fn encode<D>(data: &mut EncodeTlsData<'_, D>, out: &mut Vec<u8>) {
    let start = out.len();
    let mut size = OVERHEAD;
    // The second time it fits.
    for _ in 0..2 {
        out.resize(start + size, 0);
        match data.encode(&mut out[start..]) {
            Ok(written) => return out.truncate(start + written),
            Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => size = required_size,
            Err(EncodeError::AlreadyEncoded) => break,
        }
    }
    out.truncate(start);
}

/// What is known about a connection whose handshake is complete.
pub(crate) fn describe(connection: &CommonState, server_name: Option<Box<str>>) -> TlsInfo {
    TlsInfo {
        version: match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => TlsVersion::Tls12,
            _ => TlsVersion::Tls13,
        },
        server_name,
        alpn: connection.alpn_protocol().map(Into::into),
        client_certificate: connection.peer_certificates().and_then(|chain| chain.first()).map(|it| it.as_ref().into()),
        is_resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
    }
}
