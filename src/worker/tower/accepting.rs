//! Accepts connections.

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::os::unix::net::UnixListener as StdUnixListener;
#[cfg(feature = "hyper-tls")]
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http_body::Body;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::{spawn_local, JoinHandle};
use tower_service::Service;

use super::connection::serve;
use super::service::Client;
use super::socket::{Socket, Stream};
use super::state::{draining, unless, State};
#[cfg(feature = "hyper-tls")]
use super::tls::Endpoint;
use super::{BoxError, Call};
use crate::shared::listener::never_linger;

/// How long to wait when accept(2) fails, perhaps because no descriptor is free.
const RETRY_DELAY: Duration = Duration::from_millis(50);

/// How many connections to accept from a queue when the worker is to finish; they would be lost if the pool stops.
/// Bounded, since during a rolling restart the replacement accepts from the same queue, which might never be empty.
const WAITING_MAX: u32 = 1024;

/// The worker's listening sockets.
pub(super) struct Accepting {
    tcp: Vec<TcpListener>,
    unix: Vec<UnixListener>,
    #[cfg(feature = "hyper-tls")]
    tls: Option<Rc<Endpoint>>,
}

impl Accepting {
    pub(super) fn new(tcp: Vec<StdTcpListener>, unix: Vec<StdUnixListener>) -> io::Result<Accepting> {
        Ok(Accepting {
            tcp: tcp.into_iter().map(TcpListener::from_std).collect::<io::Result<_>>()?,
            unix: unix.into_iter().map(UnixListener::from_std).collect::<io::Result<_>>()?,
            #[cfg(feature = "hyper-tls")]
            tls: None,
        })
    }

    /// With TLS on the addresses of the endpoint.
    #[cfg(feature = "hyper-tls")]
    pub(super) fn secured_by(self, tls: Option<Rc<Endpoint>>) -> Accepting {
        Accepting { tls, ..self }
    }

    /// How to begin with the connections of a listener.
    fn greeting(&self, listener: &TcpListener) -> Greeting {
        #[cfg(feature = "hyper-tls")]
        if let Some(tls) = &self.tls {
            // A socket whose address is unknown has no clients.
            if listener.local_addr().is_ok_and(|address| tls.is_for(address)) {
                return Greeting::Tls(Rc::clone(tls));
            }
        }
        let _ = listener;
        Greeting::None
    }

    /// Accepts from each socket in a task of its own, which ends when the worker is to finish.
    pub(super) fn start<S, B>(self, service: &S, state: &Arc<State>) -> Vec<JoinHandle<()>>
    where
        S: Service<Call, Response = http::Response<B>, Error: Into<BoxError>, Future: 'static> + Clone + 'static,
        B: Body<Error: Into<BoxError>> + 'static,
    {
        let greetings: Vec<_> = self.tcp.iter().map(|listener| self.greeting(listener)).collect();
        let tcp =
            self.tcp.into_iter().zip(greetings).map(|(listener, greeting)| {
                spawn_local(accept(listener, greeting, service.clone(), Arc::clone(state)))
            });
        let tcp: Vec<_> = tcp.collect();
        let unix = self
            .unix
            .into_iter()
            .map(|listener| spawn_local(accept(listener, Greeting::None, service.clone(), Arc::clone(state))));
        tcp.into_iter().chain(unix).collect()
    }
}

/// What comes before the first request.
#[derive(Clone)]
enum Greeting {
    None,
    #[cfg(feature = "hyper-tls")]
    Tls(Rc<Endpoint>),
}

impl Greeting {
    async fn serve<S, B>(self, socket: Socket, peer: Option<SocketAddr>, service: S, state: Arc<State>)
    where
        S: Service<Call, Response = http::Response<B>, Error: Into<BoxError>, Future: 'static> + Clone + 'static,
        B: Body<Error: Into<BoxError>> + 'static,
    {
        match self {
            Greeting::None => serve(socket, Client { peer, tls: None }, service, state).await,
            #[cfg(feature = "hyper-tls")]
            Greeting::Tls(endpoint) => {
                if let Some((socket, tls)) = endpoint.shake_hands(socket, &state).await {
                    serve(socket, Client { peer, tls: Some(tls) }, service, state).await;
                }
            }
        }
    }
}

/// A listening socket.
trait Listener {
    async fn accept(&self) -> io::Result<(Stream, Option<SocketAddr>)>;

    /// Accepts a queued connection, whatever the reactor knows of it.
    fn accept_now(&self) -> io::Result<(Stream, Option<SocketAddr>)>;
}

impl Listener for TcpListener {
    async fn accept(&self) -> io::Result<(Stream, Option<SocketAddr>)> {
        let (stream, peer) = TcpListener::accept(self).await?;
        Ok(prepared(stream, peer))
    }

    fn accept_now(&self) -> io::Result<(Stream, Option<SocketAddr>)> {
        let (stream, peer) = socket2::SockRef::from(self).accept()?;
        let peer = peer.as_socket().ok_or_else(|| io::Error::other("the peer has no IP address"))?;
        let stream = std::net::TcpStream::from(stream);
        stream.set_nonblocking(true)?;
        Ok(prepared(TcpStream::from_std(stream)?, peer))
    }
}

/// TCP_NODELAY is inherited from the listener; neighbours may have set SO_LINGER there.
fn prepared(stream: TcpStream, peer: SocketAddr) -> (Stream, Option<SocketAddr>) {
    never_linger(&stream);
    (Stream::Tcp(stream), Some(peer))
}

impl Listener for UnixListener {
    async fn accept(&self) -> io::Result<(Stream, Option<SocketAddr>)> {
        let (stream, _) = UnixListener::accept(self).await?;
        Ok((Stream::Unix(stream), None))
    }

    fn accept_now(&self) -> io::Result<(Stream, Option<SocketAddr>)> {
        let (stream, _) = socket2::SockRef::from(self).accept()?;
        let stream = std::os::unix::net::UnixStream::from(stream);
        stream.set_nonblocking(true)?;
        Ok((Stream::Unix(UnixStream::from_std(stream)?), None))
    }
}

/// Accepts until the worker is to finish, and then what is queued.
async fn accept<S, B>(listener: impl Listener, greeting: Greeting, service: S, state: Arc<State>)
where
    S: Service<Call, Response = http::Response<B>, Error: Into<BoxError>, Future: 'static> + Clone + 'static,
    B: Body<Error: Into<BoxError>> + 'static,
{
    let start = |(stream, peer)| {
        let socket = Socket::new(stream, Arc::clone(&state));
        spawn_local(greeting.clone().serve(socket, peer, service.clone(), Arc::clone(&state)));
    };
    loop {
        let next = async {
            state.room().await;
            listener.accept().await
        };
        match unless(next, draining()).await {
            None => break,
            Some(Ok(accepted)) => start(accepted),
            // The client has gone again.
            Some(Err(error)) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Some(Err(_)) => tokio::time::sleep(RETRY_DELAY).await,
        }
    }
    for _ in 0..WAITING_MAX {
        match listener.accept_now() {
            Ok(accepted) => start(accepted),
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(_) => return,
        }
    }
}
