//! The bytes of a connection that could not be handled at once: the beginning of a request, or the rest of a response.

use std::io;

use super::linger::Linger;
use crate::server::client::Client;

/// The bytes of a connection that could not be handled at once; most connections have none.
#[derive(Debug, Default)]
pub(super) struct Buffers(Option<Box<Bytes>>);

#[derive(Debug, Default)]
struct Bytes {
    input: Vec<u8>,
    output: Vec<u8>,
    /// How much of `output` was sent.
    sent: usize,
    /// Set when the last response was sent. There are no bytes then.
    linger: Option<Linger>,
}

/// What was sent of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) bytes: usize,
    pub(super) is_all: bool,
}

impl Buffers {
    /// Whether there may be bytes.
    #[inline]
    pub(super) fn is_some(&self) -> bool {
        self.0.is_some()
    }

    /// Keeps what has arrived and belongs to an incomplete request.
    pub(super) fn keep_input(&mut self, input: &[u8]) {
        self.0 = Some(Box::new(Bytes { input: input.to_vec(), ..Bytes::default() }));
    }

    /// Moves the input to the front of a buffer, and drops everything else; returns its length.
    pub(super) fn take_input(&mut self, into: &mut [u8]) -> usize {
        let Some(bytes) = self.0.take() else { return 0 };
        into[..bytes.input.len()].copy_from_slice(&bytes.input);
        bytes.input.len()
    }

    /// The input, if nothing else is kept.
    pub(super) fn unread(&self) -> Option<&[u8]> {
        match self.0.as_deref() {
            None => Some(&[]),
            Some(Bytes { input, output, linger: None, .. }) if output.is_empty() => Some(input),
            Some(_) => None,
        }
    }

    /// The input, for whoever takes over the connection.
    pub(super) fn into_input(self) -> Vec<u8> {
        self.0.map(|bytes| bytes.input).unwrap_or_default()
    }

    /// Keeps output of which this much was sent.
    pub(super) fn keep_output(&mut self, output: Vec<u8>, sent: usize) {
        let bytes = self.0.get_or_insert_default();
        (bytes.output, bytes.sent) = (output, sent);
    }

    /// Sends output; `None` if there is none.
    ///
    /// # Errors
    ///
    /// If the socket has failed.
    pub(super) fn send(&mut self, client: &mut Client) -> Option<io::Result<Sent>> {
        let bytes = self.0.as_mut().filter(|bytes| !bytes.output.is_empty())?;
        let sent = match client.write_some(&bytes.output[bytes.sent..]) {
            Ok(sent) => sent,
            Err(error) => return Some(Err(error)),
        };
        bytes.sent += sent;
        let is_all = bytes.sent == bytes.output.len();
        if is_all {
            (bytes.output, bytes.sent) = (Vec::new(), 0);
        }
        Some(Ok(Sent { bytes: sent, is_all }))
    }

    /// How much memory they take.
    pub(super) fn memory(&self) -> usize {
        self.0.as_ref().map_or(0, |bytes| bytes.input.capacity() + bytes.output.capacity())
    }

    /// The last response was sent.
    pub(super) fn begin_to_linger(&mut self, linger: Linger) {
        self.0.get_or_insert_default().linger = Some(linger);
    }

    pub(super) fn linger(&mut self) -> Option<&mut Linger> {
        self.0.as_mut().and_then(|bytes| bytes.linger.as_mut())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn input_is_returned_once() {
        let mut buffers = Buffers::default();
        assert!(!buffers.is_some());
        buffers.keep_input(b"GET /");
        assert!(buffers.memory() >= 5);
        let mut into = [0; 8];
        assert_eq!(buffers.take_input(&mut into), 5);
        assert_eq!(&into[..5], b"GET /");
        assert!(buffers.take_input(&mut into) == 0 && !buffers.is_some());
    }

    #[test]
    fn output_is_sent_as_the_client_reads_it() {
        let (socket, client) = std::os::unix::net::UnixStream::pair().expect("a socket pair");
        socket.set_nonblocking(true).expect("a socket");
        let (mut socket, mut reader) = (Client::Unix(mio::net::UnixStream::from_std(socket)), client);
        let mut buffers = Buffers::default();
        assert!(buffers.send(&mut socket).is_none());
        let output: Vec<u8> = (0..4_u32 << 20).map(|index| index as u8).collect();
        buffers.keep_output(output.clone(), 100);
        let (mut received, mut room, mut handed) = (output[..100].to_vec(), vec![0; 1 << 20], 100);
        loop {
            let sent = buffers.send(&mut socket).expect("there is output").expect("the socket is open");
            handed += sent.bytes;
            while received.len() < handed {
                let count = reader.read(&mut room).expect("the socket is open");
                received.extend_from_slice(&room[..count]);
            }
            if sent.is_all {
                break;
            }
        }
        assert!(received == output);
        assert!(buffers.send(&mut socket).is_none(), "nothing is sent twice");
    }
}
