//! A response that takes more than one step, because it is large, a file, a stream, or not made yet.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::server::answer::deferred::Pending;
use crate::server::answer::file::{FileBody, Sent};
use crate::server::answer::notice::Notices;
use crate::server::answer::response::{Body, Response};
use crate::server::answer::stream::{StreamReader, Written};
use crate::server::answer::upgrade::Upgrade;
use crate::server::client::Client;
use crate::server::context::Context;
use crate::server::http::{chunk, last_chunk, Length, Transfer};
use crate::shared::config::ServerConfig;

/// Bodies up to this length are copied after their head and sent with it, which is cheaper than another system call.
pub(crate) const COPY_MAX: u64 = 32 * 1024;

/// The number of chunks to take from a stream before other connections have their turn.
const CHUNKS_PER_TURN: u32 = 16;

/// The rest of a response.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Bytes { bytes: Bytes, sent: usize },
    File(Box<FileBody>),
    Stream { reader: StreamReader, is_chunked: bool, takes_trailers: bool, chunks: u32 },
    Deferred { pending: Pending<Response>, takes_interim: bool },
    Upgrade(Box<Upgrade>),
}

/// Bytes in memory.
#[derive(Debug)]
pub(crate) enum Bytes {
    Own(Cow<'static, [u8]>),
    Shared(Arc<[u8]>),
}

/// How a response continues.
pub(crate) enum Flow {
    /// It was sent, except for the shared output.
    Done,
    /// The shared output must be sent first.
    Output,
    /// The same, and the response itself has not advanced.
    Interim,
    /// As much as one turn allows was sent.
    Sent,
    /// The client accepts no more at the moment.
    Blocked { progress: bool },
    /// The application has not made the next part. It will wake the loop.
    Waiting,
    /// The application has made the response.
    Answer(Response),
    /// The connection belongs to the application.
    HandOver,
}

impl Outgoing {
    pub(crate) fn length(body: &Body) -> Length {
        match body {
            Body::Bytes(bytes) => Length::Known(bytes.len() as u64),
            Body::Shared(bytes) => Length::Known(bytes.len() as u64),
            Body::File(file) => Length::Known(file.len()),
            Body::Stream(_) | Body::Deferred(_) | Body::Upgrade(_) | Body::Receive(_) => Length::Unknown,
        }
    }

    /// Appends a small body to its head, and returns what is not small.
    pub(crate) fn body(body: Body, transfer: Transfer, takes_trailers: bool, out: &mut Vec<u8>) -> Option<Outgoing> {
        if transfer == Transfer::Nothing {
            return None;
        }
        let bytes = match body {
            Body::Bytes(bytes) => Bytes::Own(bytes),
            Body::Shared(bytes) => Bytes::Shared(bytes),
            Body::File(file) => return Some(Outgoing::File(file)),
            Body::Stream(reader) => {
                let is_chunked = transfer == Transfer::Chunked;
                return Some(Outgoing::Stream { reader, is_chunked, takes_trailers, chunks: 0 });
            }
            // These have no body to send.
            Body::Deferred(_) | Body::Upgrade(_) | Body::Receive(_) => return None,
        };
        if bytes.as_slice().len() as u64 <= COPY_MAX {
            out.extend_from_slice(bytes.as_slice());
            return None;
        }
        Some(Outgoing::Bytes { bytes, sent: 0 })
    }

    /// Whether the shared output should wait in the kernel for what the next step sends.
    pub(crate) fn goes_on(&self) -> bool {
        match self {
            Outgoing::File(file) => file.goes_on(),
            Outgoing::Bytes { .. } | Outgoing::Stream { .. } | Outgoing::Deferred { .. } | Outgoing::Upgrade(_) => {
                false
            }
        }
    }

    /// Memory that is held for this client alone.
    pub(crate) fn held(&self) -> usize {
        match self {
            Outgoing::Bytes { bytes: Bytes::Own(Cow::Owned(bytes)), .. } => bytes.capacity(),
            Outgoing::Stream { reader, .. } => reader.held(),
            Outgoing::Deferred { pending, .. } => pending.held(),
            _ => 0,
        }
    }

    /// How long the application may take for the next part; `None` if there is no limit.
    pub(crate) fn timeout(&self, config: &ServerConfig) -> Option<Duration> {
        match self {
            Outgoing::Deferred { pending, .. } => {
                let timeout = pending.timeout().unwrap_or(config.timeouts.answer);
                (!timeout.is_zero()).then_some(timeout)
            }
            _ => None,
        }
    }

    /// The notices for the application that makes it.
    pub(crate) fn notices(&self) -> Option<&Notices> {
        match self {
            Outgoing::Deferred { pending, .. } => Some(pending.notices()),
            Outgoing::Stream { reader, .. } => Some(reader.notices()),
            Outgoing::Bytes { .. } | Outgoing::File(_) | Outgoing::Upgrade(_) => None,
        }
    }

    /// The bytes that are still to be sent, except those that go through the shared output.
    pub(crate) fn left(&self) -> u64 {
        match self {
            Outgoing::Bytes { bytes, sent } => (bytes.as_slice().len() - sent) as u64,
            Outgoing::File(file) => file.left(),
            Outgoing::Stream { .. } | Outgoing::Deferred { .. } | Outgoing::Upgrade(_) => 0,
        }
    }

    /// Takes the next step. The shared output and what was kept of it have been sent.
    pub(crate) fn proceed(&mut self, client: &mut Client, cx: &mut Context<'_>) -> io::Result<Flow> {
        match self {
            Outgoing::Bytes { bytes, sent } => {
                let count = client.write_some(&bytes.as_slice()[*sent..])?;
                *sent += count;
                Ok(if *sent == bytes.as_slice().len() { Flow::Done } else { Flow::Blocked { progress: count > 0 } })
            }
            Outgoing::File(file) => {
                file.take_preamble(&mut cx.output);
                if !cx.output.is_empty() {
                    return Ok(Flow::Output);
                }
                let sent = match client {
                    Client::Taken { .. } => file.send_by_copy(client, &mut cx.input)?,
                    Client::Tcp(_) | Client::Unix(_) => file.send(&*client)?,
                    Client::Tls(stream) => file.send_sealed(stream)?,
                };
                Ok(match sent {
                    Sent::All => Flow::Done,
                    Sent::Some => Flow::Sent,
                    Sent::Blocked { progress } => Flow::Blocked { progress },
                })
            }
            Outgoing::Stream { reader, is_chunked, takes_trailers, chunks } => {
                if *chunks == CHUNKS_PER_TURN {
                    *chunks = 0;
                    return Ok(Flow::Sent);
                }
                match reader.take(|| cx.waker.clone()) {
                    Written::Data(data) => {
                        *chunks += 1;
                        match is_chunked {
                            true => chunk(&data, &mut cx.output),
                            false => cx.output.extend_from_slice(&data),
                        }
                        Ok(Flow::Output)
                    }
                    Written::Nothing => Ok(Flow::Waiting),
                    Written::End(trailers) => {
                        if *is_chunked {
                            last_chunk(if *takes_trailers { &trailers } else { b"" }, &mut cx.output);
                        }
                        Ok(Flow::Done)
                    }
                    Written::Aborted => Err(io::ErrorKind::ConnectionAborted.into()),
                }
            }
            Outgoing::Deferred { pending, takes_interim } => {
                let interim = pending.take_interim();
                if *takes_interim && !interim.is_empty() {
                    cx.output.extend_from_slice(&interim);
                    return Ok(Flow::Interim);
                }
                Ok(pending.take(|| cx.waker.clone()).map_or(Flow::Waiting, Flow::Answer))
            }
            Outgoing::Upgrade(_) => Ok(Flow::HandOver),
        }
    }
}

impl Bytes {
    fn as_slice(&self) -> &[u8] {
        match self {
            Bytes::Own(bytes) => bytes,
            Bytes::Shared(bytes) => bytes,
        }
    }
}
