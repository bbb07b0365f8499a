//! Accepts connections.

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener as StdUnixListener;
#[cfg(feature = "hyper-tls")]
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http_body::Body;
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::{spawn_local, JoinHandle};
use tower_service::Service;

#[cfg(feature = "hyper-tls")]
use super::connection::serve_secured;
use super::connection::{serve, Leaver};
#[cfg(feature = "hyper-tls")]
use super::handshakes::InProgress;
use super::service::Client;
use super::socket::{Socket, Stream};
use super::state::{draining, unless, State};
#[cfg(feature = "hyper-tls")]
use super::tls::Endpoint;
use super::{BoxError, Call};
use crate::shared::handover::Admitted;
use crate::shared::listener::never_linger;
use crate::worker::TakenOver;

/// How long to wait when accept(2) fails, perhaps because no descriptor is free.
const RETRY_DELAY: Duration = Duration::from_millis(50);

/// How many connections to accept from a queue when the worker is to finish; they would be lost if the pool stops.
/// Bounded, since during a rolling restart the replacement accepts from the same queue, which might never be empty.
const WAITING_MAX: u32 = 1024;

/// The worker's listening sockets.
pub(super) struct Accepting {
    tcp: Vec<TcpListener>,
    unix: Vec<UnixListener>,
    /// The connections that other workers pass on.
    taken_over: Option<Taken>,
    #[cfg(feature = "hyper-tls")]
    tls: Option<Rc<Endpoint>>,
}

impl Accepting {
    pub(super) fn new(
        tcp: Vec<StdTcpListener>,
        unix: Vec<StdUnixListener>,
        taken_over: Option<TakenOver>,
    ) -> io::Result<Accepting> {
        Ok(Accepting {
            taken_over: taken_over.map(Taken::new).transpose()?,
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

    /// Accepts from each source in a task of its own, which ends when the worker is to finish.
    /// What is to be passed on goes to `leavers`.
    pub(super) fn start<S, B>(
        self,
        service: &S,
        state: &Arc<State>,
        leavers: &UnboundedSender<Leaver>,
    ) -> Vec<JoinHandle<()>>
    where
        S: Service<Call, Response = http::Response<B>, Error: Into<BoxError>, Future: 'static> + Clone + 'static,
        B: Body<Error: Into<BoxError>> + 'static,
    {
        let greetings: Vec<_> = self.tcp.iter().map(|listener| self.greeting(listener)).collect();
        let to = || (service.clone(), Arc::clone(state), leavers.clone());
        let tcp = self.tcp.into_iter().zip(greetings);
        let tcp: Vec<_> = tcp.map(|(listener, greeting)| spawn_local(accept(listener, greeting, to()))).collect();
        let plain = Greeting::None;
        let unix = self.unix.into_iter().map(|listener| spawn_local(accept(listener, plain.clone(), to())));
        let unix: Vec<_> = unix.collect();
        let taken = self.taken_over.map(|taken| spawn_local(accept(taken, plain, to())));
        tcp.into_iter().chain(unix).chain(taken).collect()
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
    /// Waits until no connection waits for a turn of what comes first.
    async fn calm(&self) {
        #[cfg(feature = "hyper-tls")]
        if let Greeting::Tls(endpoint) = self {
            endpoint.handshakes().calm().await;
        }
    }

    /// Waits until one more connection may begin.
    async fn room(&self) {
        #[cfg(feature = "hyper-tls")]
        if let Greeting::Tls(endpoint) = self {
            endpoint.handshakes().room().await;
        }
    }

    /// One more connection begins.
    fn begin(&self) -> Begun {
        match self {
            Greeting::None => Begun::None,
            #[cfg(feature = "hyper-tls")]
            Greeting::Tls(endpoint) => Begun::Tls(Rc::clone(endpoint), endpoint.handshakes().begin()),
        }
    }
}

/// What has begun before the first request.
enum Begun {
    None,
    #[cfg(feature = "hyper-tls")]
    Tls(Rc<Endpoint>, InProgress),
}

impl Begun {
    /// Returns a connection that is to be passed on.
    async fn serve<S, B>(
        self,
        socket: Socket,
        peer: Option<SocketAddr>,
        service: S,
        state: Arc<State>,
    ) -> Option<Leaver>
    where
        S: Service<Call, Response = http::Response<B>, Error: Into<BoxError>, Future: 'static> + Clone + 'static,
        B: Body<Error: Into<BoxError>> + 'static,
    {
        match self {
            Begun::None => serve(socket, Client { peer, tls: None }, service, state, false).await,
            #[cfg(feature = "hyper-tls")]
            Begun::Tls(endpoint, handshake) => {
                let (socket, tls) = endpoint.shake_hands(handshake, socket, &state).await?;
                serve_secured(socket, Client { peer, tls: Some(tls) }, service, state).await;
                None
            }
        }
    }
}

/// A connection, the address of its client, and what was read of it.
type Accepted = (Stream, Option<SocketAddr>, Vec<u8>);

/// A listening socket, or another source of connections.
trait Listener {
    async fn accept(&mut self) -> io::Result<Accepted>;

    /// Accepts a queued connection, without waiting for an event of the reactor.
    fn accept_now(&mut self) -> io::Result<Accepted>;
}

impl Listener for TcpListener {
    async fn accept(&mut self) -> io::Result<Accepted> {
        let (stream, peer) = TcpListener::accept(self).await?;
        Ok(prepared(stream, peer))
    }

    fn accept_now(&mut self) -> io::Result<Accepted> {
        let (stream, peer) = socket2::SockRef::from(&*self).accept()?;
        let peer = peer.as_socket().ok_or_else(|| io::Error::other("the peer has no IP address"))?;
        let stream = std::net::TcpStream::from(stream);
        stream.set_nonblocking(true)?;
        Ok(prepared(TcpStream::from_std(stream)?, peer))
    }
}

/// TCP_NODELAY is inherited from the listener; neighbours may have set SO_LINGER there.
fn prepared(stream: TcpStream, peer: SocketAddr) -> Accepted {
    never_linger(&stream);
    (Stream::Tcp(stream), Some(peer), Vec::new())
}

impl Listener for UnixListener {
    async fn accept(&mut self) -> io::Result<Accepted> {
        let (stream, _) = UnixListener::accept(self).await?;
        Ok((Stream::Unix(stream), None, Vec::new()))
    }

    fn accept_now(&mut self) -> io::Result<Accepted> {
        let (stream, _) = socket2::SockRef::from(&*self).accept()?;
        let stream = std::os::unix::net::UnixStream::from(stream);
        stream.set_nonblocking(true)?;
        Ok((Stream::Unix(UnixStream::from_std(stream)?), None, Vec::new()))
    }
}

/// What other workers pass on.
#[derive(Debug)]
struct Taken {
    taken_over: TakenOver,
    /// The same socket. It keeps message boundaries, and is only used to wait.
    source: UnixStream,
}

impl Taken {
    fn new(taken_over: TakenOver) -> io::Result<Taken> {
        let source = std::os::unix::net::UnixStream::from(taken_over.as_fd().try_clone_to_owned()?);
        source.set_nonblocking(true)?;
        Ok(Taken { taken_over, source: UnixStream::from_std(source)? })
    }
}

impl Listener for Taken {
    async fn accept(&mut self) -> io::Result<Accepted> {
        loop {
            self.source.readable().await?;
            match self.source.try_io(Interest::READABLE, || self.taken_over.next()) {
                Ok(taken) => return begun(taken),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn accept_now(&mut self) -> io::Result<Accepted> {
        begun(self.taken_over.next()?)
    }
}

fn begun((admitted, source, unread): (Admitted, Option<SocketAddr>, Vec<u8>)) -> io::Result<Accepted> {
    Ok(match admitted {
        Admitted::Tcp(fd, peer) => (Stream::Tcp(TcpStream::from_std(fd.into())?), Some(source.unwrap_or(peer)), unread),
        Admitted::Unix(fd) => (Stream::Unix(UnixStream::from_std(fd.into())?), source, unread),
    })
}

/// Accepts until the worker is to finish, and then what is queued.
async fn accept<S, B>(
    mut listener: impl Listener,
    greeting: Greeting,
    (service, state, leavers): (S, Arc<State>, UnboundedSender<Leaver>),
) where
    S: Service<Call, Response = http::Response<B>, Error: Into<BoxError>, Future: 'static> + Clone + 'static,
    B: Body<Error: Into<BoxError>> + 'static,
{
    let start = |(stream, peer, begun): Accepted| {
        let socket = Socket::new(stream, begun, Arc::clone(&state));
        let served = greeting.begin().serve(socket, peer, service.clone(), Arc::clone(&state));
        let leavers = leavers.clone();
        spawn_local(async move {
            // The receiver lives as long as the runtime.
            if let Some(leaver) = served.await {
                let _ = leavers.send(leaver);
            }
        });
    };
    loop {
        let next = async {
            state.room().await;
            greeting.calm().await;
            listener.accept().await
        };
        match unless(next, draining()).await {
            None => break,
            Some(Ok(accepted)) => {
                // A worker that is to finish begins with all that it has accepted.
                unless(greeting.room(), draining()).await;
                start(accepted);
            }
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
