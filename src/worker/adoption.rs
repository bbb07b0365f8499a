//! Connections that the built-in server has not accepted itself.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::Worker;
use crate::server::mailbox::Mailbox;
use crate::shared::listener;

/// Gives the built-in server of a worker connections: see [`Worker::adopter`].
#[derive(Clone, Debug)]
pub struct Adopter(Arc<Waiting>);

/// What waits to be adopted.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    streams: Mutex<Vec<(TcpStream, SocketAddr)>>,
    /// Set once the server runs.
    server: OnceLock<Arc<Mailbox>>,
}

impl Worker {
    /// The way to give the built-in server connections that it has not accepted itself: one that came with a message
    /// ([`on_message_with`](Worker::on_message_with)), or one that the application has listened for. It can be used from
    /// any thread, before and while the worker [serves](Worker::serve).
    pub fn adopter(&self) -> Adopter {
        Adopter(Arc::clone(&self.waiting))
    }

    /// Has the server hear of what is to be adopted.
    pub(crate) fn adopt_by(&self, mailbox: &Arc<Mailbox>) {
        // A second server in one worker gets nothing.
        let _ = self.waiting.server.set(Arc::clone(mailbox));
        if !self.waiting.streams().is_empty() {
            mailbox.wake();
        }
    }

    pub(crate) fn take_adopted(&self) -> Vec<(TcpStream, SocketAddr)> {
        std::mem::take(&mut *self.waiting.streams())
    }
}

impl Waiting {
    fn streams(&self) -> MutexGuard<'_, Vec<(TcpStream, SocketAddr)>> {
        // A list is whole whenever somebody panics.
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Adopter {
    /// Has the server go on with a connection, from the beginning of a request, as with one that it has accepted. When
    /// the worker does not serve any more, the connection is closed.
    ///
    /// # Errors
    ///
    /// When the socket is not connected, or the system refuses to make it non-blocking.
    pub fn adopt(&self, stream: TcpStream) -> io::Result<()> {
        let peer = stream.peer_addr()?;
        listener::prepare(&stream)?;
        self.0.streams().push((stream, peer));
        if let Some(server) = self.0.server.get() {
            server.wake();
        }
        Ok(())
    }
}
