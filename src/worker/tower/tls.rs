//! TLS before the service (feature `hyper-tls`).

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::io::AsyncWriteExt;
use tokio_rustls::server::TlsStream;
use tokio_rustls::TlsAcceptor;

use super::handshakes::{Handshakes, InProgress};
use super::socket::Socket;
use super::state::{grace_over, unless, State};
use crate::server::http::TlsInfo;
use crate::server::tls::{completed, describe, ended_by, NO_TLS};
use crate::shared::counters::{Handshake, HandshakeCounts};
use crate::worker::Worker;

/// The protocols to offer (RFC 7301), the best first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// What the handshakes of a worker share.
pub(super) struct Endpoint {
    acceptor: TlsAcceptor,
    /// The addresses on which clients expect TLS.
    addresses: Vec<SocketAddr>,
    counts: HandshakeCounts,
    handshakes: Rc<Handshakes>,
}

impl Endpoint {
    /// Returns `None` if the pool has no certificates.
    pub(super) fn new(worker: &Worker, state: &Arc<State>) -> Option<Rc<Endpoint>> {
        let mut config = ServerConfig::clone(&*worker.tls_config()?);
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let addresses = worker.tls_addresses().to_vec();
        let handshakes = Handshakes::new(worker.serving.config().capacity.max_handshakes, state);
        Some(Rc::new(Endpoint { acceptor, addresses, counts: HandshakeCounts::default(), handshakes }))
    }

    /// Whether connections to this address begin with a handshake.
    pub(super) fn is_for(&self, address: SocketAddr) -> bool {
        self.addresses.contains(&address)
    }

    pub(super) fn handshakes(&self) -> &Rc<Handshakes> {
        &self.handshakes
    }

    /// Returns `None` if there is no session: the client has gone, was too slow, or speaks something else.
    pub(super) async fn shake_hands(
        &self,
        handshake: InProgress,
        mut socket: Socket,
        state: &State,
    ) -> Option<(TlsStream<Socket>, TlsInfo)> {
        let mut accepting = pin!(async {
            let first = socket.first().await;
            handshake.has_begun();
            match first {
                Ok(Some(first)) if first.is_ascii_uppercase() => Err(socket),
                // The handshake notices an end, too.
                _ => Ok(handshake.stepwise(self.acceptor.accept(socket)).await),
            }
        });
        // A step takes long, and a client makes only a few: each counts as progress.
        let accepted = poll_fn(|cx| {
            state.works();
            accepting.as_mut().poll(cx)
        });
        let accepted = unless(state.within_head_timeout(accepted), async {
            unless(grace_over(), handshake.gives_way()).await;
        });
        let accepted = accepted.await.flatten();
        handshake.end();
        match accepted {
            Some(Err(socket)) => {
                self.count(Handshake::Plain, state);
                // It is closed anyway.
                let _ = state.within_head_timeout(refuse_plain(socket)).await;
                None
            }
            Some(Ok(Ok(stream))) => {
                let connection = stream.get_ref().1;
                let info = describe(connection, connection.server_name().map(Into::into));
                self.count(completed(&info), state);
                Some((stream, info))
            }
            Some(Ok(Err(error))) => {
                log::debug!("{} TLS failed: {error}", state.tag);
                self.count(outcome(&error), state);
                None
            }
            None if handshake.has_given_way() => {
                self.count(Handshake::Crowded, state);
                None
            }
            None => {
                self.count(Handshake::Unfinished, state);
                None
            }
        }
    }

    fn count(&self, outcome: Handshake, state: &State) {
        self.counts.add(outcome);
        state.row().set_handshakes(&self.counts.all());
    }
}

/// Tells a client that speaks HTTP without TLS what to do, and discards what it still sends, which would reset the
/// connection.
async fn refuse_plain(mut socket: Socket) -> io::Result<()> {
    socket.write_all(NO_TLS).await?;
    socket.shutdown().await?;
    tokio::io::copy(&mut socket, &mut tokio::io::sink()).await?;
    Ok(())
}

/// The outcome of a handshake that failed with this error.
fn outcome(error: &io::Error) -> Handshake {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(error) => ended_by(error),
        // The client has gone.
        None => Handshake::Unfinished,
    }
}
