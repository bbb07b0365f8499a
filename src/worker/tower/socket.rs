//! A client's socket, which counts itself and its bytes.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::exchange::Exchange;
use super::state::State;

#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// An open connection. Whoever owns it, also an application that has taken it over, keeps it among those of its worker.
#[derive(Debug)]
pub(super) struct Socket {
    stream: Stream,
    /// What was read of it and is to be read again.
    begun: Vec<u8>,
    exchange: Arc<Exchange>,
    state: Arc<State>,
}

/// How a client of HTTP/2 begins (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Which version a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Http1,
    Http2,
}

/// Calls the same method of the stream.
macro_rules! forward {
    ($socket:ident, $stream:ident => $call:expr) => {
        match &mut $socket.stream {
            Stream::Tcp(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
            Stream::Unix(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
        }
    };
}

impl Socket {
    /// `begun` was read of it already.
    pub(super) fn new(stream: Stream, begun: Vec<u8>, state: Arc<State>) -> Socket {
        state.opened();
        Socket { stream, begun, exchange: Arc::default(), state }
    }

    pub(super) fn set_exchange(&mut self, exchange: &Arc<Exchange>) {
        self.exchange = Arc::clone(exchange);
    }

    /// Returns what was read of it and is to be read again.
    pub(super) fn begun(&self) -> &[u8] {
        &self.begun
    }

    /// Puts back what was read of it.
    pub(super) fn put_back(&mut self, bytes: &[u8]) {
        self.begun.splice(..0, bytes.iter().copied());
    }

    /// Reads until it is clear which version the client speaks. `None` if it closes the connection first.
    ///
    /// # Errors
    ///
    /// If the connection is broken.
    pub(super) async fn version(&mut self) -> io::Result<Option<Version>> {
        loop {
            let len = self.begun.len().min(PREFACE.len());
            if self.begun[..len] != PREFACE[..len] {
                return Ok(Some(Version::Http1));
            }
            if len == PREFACE.len() {
                return Ok(Some(Version::Http2));
            }
            let mut bytes = [0; PREFACE.len()];
            let mut buffer = ReadBuf::new(&mut bytes[len..]);
            poll_fn(|cx| forward!(self, stream => stream.poll_read(cx, &mut buffer))).await?;
            match buffer.filled() {
                [] if len == 0 => return Ok(None),
                // hyper notices the end as well.
                [] => return Ok(Some(Version::Http1)),
                read => self.begun.extend_from_slice(read),
            }
        }
    }

    /// The first byte that the client sends. `None` if it closes the connection first.
    ///
    /// # Errors
    ///
    /// If the connection is broken.
    #[cfg(feature = "hyper-tls")]
    pub(super) async fn first(&mut self) -> io::Result<Option<u8>> {
        if self.begun.is_empty() {
            let mut bytes = [0];
            let mut buffer = ReadBuf::new(&mut bytes);
            poll_fn(|cx| forward!(self, stream => stream.poll_read(cx, &mut buffer))).await?;
            self.begun.extend_from_slice(buffer.filled());
        }
        Ok(self.begun.first().copied())
    }

    fn sent(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = result {
            self.state.row().add_sent(count as u64);
            self.exchange.sent();
        }
        result
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.stream {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.state.closed();
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.begun.is_empty() {
            return forward!(self, stream => stream.poll_read(cx, buffer));
        }
        let len = self.begun.len().min(buffer.remaining());
        buffer.put_slice(&self.begun[..len]);
        self.begun.drain(..len);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = forward!(self, stream => stream.poll_write(cx, bytes));
        self.sent(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = forward!(self, stream => stream.poll_write_vectored(cx, parts));
        self.sent(result)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = forward!(self, stream => stream.poll_flush(cx));
        if let Poll::Ready(Ok(())) = flushed {
            self.exchange.flushed();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.exchange.is_leaving() {
            return Poll::Ready(Ok(()));
        }
        forward!(self, stream => stream.poll_shutdown(cx))
    }
}
