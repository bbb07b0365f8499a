//! Connections that the built-in server did not accept itself.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::server::mailbox::Mailbox;
use crate::shared::listener;

/// Passes connections to the built-in server of a worker; see [`Worker::adopter`](crate::Worker::adopter).
#[derive(Clone, Debug)]
pub struct Adopter(pub(crate) Arc<Adoptions>);

/// The connections that wait to be adopted.
#[derive(Debug, Default)]
pub(crate) struct Adoptions {
    streams: Mutex<Vec<(TcpStream, SocketAddr)>>,
    /// Set once the server runs.
    server: OnceLock<Arc<Mailbox>>,
}

impl Adoptions {
    /// Notifies the server through this mailbox from now on.
    pub(crate) fn adopt_by(&self, mailbox: &Arc<Mailbox>) {
        // A second server in the same worker gets none.
        let _ = self.server.set(Arc::clone(mailbox));
        if !self.streams().is_empty() {
            mailbox.wake();
        }
    }

    pub(crate) fn take(&self) -> Vec<(TcpStream, SocketAddr)> {
        std::mem::take(&mut *self.streams())
    }

    fn streams(&self) -> MutexGuard<'_, Vec<(TcpStream, SocketAddr)>> {
        // The list is consistent even after a panic.
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Adopter {
    /// Passes a connection to the server, which reads requests from it as if it had accepted it. If the worker no
    /// longer serves, the connection is closed.
    ///
    /// # Errors
    ///
    /// If the socket is not connected, or cannot be made non-blocking.
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
