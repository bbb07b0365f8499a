//! Serves a tower service with hyper, on a tokio runtime of one thread (feature `hyper`).
//!
//! Its input: the worker's sockets and a `tower_service::Service`. Its output: served connections, and what the pool
//! wants to know about them. It does not know the service's framework.
//!
//! - `state.rs`: what the connections share: counts, and whether the worker is to finish
//! - `accepting.rs`: accepts connections, and those of other workers, and when the worker is to finish, the queued ones
//! - `connection.rs`: one connection, until its end
//! - `exchange.rs`: whether a connection is between two requests
//! - `socket.rs`: a client's socket, which counts itself and its bytes
//! - `service.rs`: the service as hyper calls it
//! - `tls.rs`: the handshake before it; `handshakes.rs`: how many there may be at a time (feature `hyper-tls`)
//!
//! # Decisions
//!
//! - **Connections of HTTP/1 outlive the worker**, as those of the built-in server: between two requests, hyper gives
//!   the socket back with what it has read. A connection whose last request had a body stays, since the application may
//!   still read from it.
//! - **A drain without other workers first asks, then closes.** hyper closes idle connections at once when it is told
//!   to finish, even if a request is on its way. So for [`GRACE`], each response only carries `Connection: close`.
//!   HTTP/2 needs no such delay: GOAWAY says which requests were not taken.
//! - **The worker is busy while its runtime does not wait.** The hooks of the runtime see all tasks, also those of the
//!   application. A turn of a connection restarts the time, as in the built-in server, so only a turn that hangs counts
//!   as a stall.

mod accepting;
mod connection;
mod exchange;
#[cfg(feature = "hyper-tls")]
mod handshakes;
mod service;
mod socket;
mod state;
#[cfg(feature = "hyper-tls")]
mod tls;

use std::error::Error as StdError;
use std::future::Future;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use http_body::Body;
use hyper::body::Incoming;
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::task::{spawn_local, LocalSet};
use tower_service::Service;

use crate::error::{Error, Result};
use crate::shared::handover::Record;
use crate::worker::Worker;

use self::accepting::Accepting;
use self::connection::{serve, Leaver};
pub use self::state::draining;
use self::state::{unless, State};

/// How long a drain only asks clients of HTTP/1 to leave.
const GRACE: Duration = Duration::from_secs(1);

type BoxError = Box<dyn StdError + Send + Sync>;

/// A request as hyper passes it on.
type Call = http::Request<Incoming>;

impl Worker {
    /// Serves a tower service on all addresses until this worker is to finish and has drained: an axum `Router`, the
    /// routes of tonic, or any other `Service` of `http` requests. Feature `hyper`.
    ///
    /// `make` makes the service in this worker, on a tokio runtime of one thread, where it may spawn tasks. The service
    /// need not be `Send`. Connections speak HTTP/1.1, or HTTP/2 if the client begins with it ("prior knowledge"). The
    /// peer's address is an extension of the request, of type `SocketAddr`; there is none on a Unix socket.
    ///
    /// With the feature `hyper-tls`, addresses of [`bind_tls`](crate::Builder::bind_tls) speak TLS with the pool's
    /// certificates and session tickets, and offer HTTP/2 and HTTP/1.1 (ALPN). Their requests have a
    /// [`TlsInfo`](crate::TlsInfo) as an extension. Handshakes are limited by `tls-max-handshakes` and take turns with
    /// other connections, as in [`serve`](Worker::serve).
    ///
    /// When the worker is to finish, it accepts what waits in its queues, passes its connections on to other workers
    /// between two requests, as [`serve`](Worker::serve) does, and returns when all connections have ended. Connections
    /// of HTTP/2 get GOAWAY instead. When the pool ends, and for a connection with TLS or whose last request had a
    /// body, it adds `Connection: close` to its responses for a second, and then closes idle connections. Tasks that
    /// take over a connection, such as WebSockets, learn about it from [`draining`]. Tasks without a connection are
    /// then dropped.
    ///
    /// Of the settings of the built-in server, these apply: `max-connections`, above which new connections wait;
    /// `header-timeout`, also between two requests; `max-head`; `max-fields`; `on-panic`, though a request whose
    /// handler panics gets no response. There is no access log.
    ///
    /// # Errors
    ///
    /// When the system refuses what the runtime needs (epoll(7)), if a handler has panicked and `on-panic` is `exit`,
    /// or if the pool has addresses for TLS and the feature `hyper-tls` is off.
    pub fn serve_tower<S, B>(&self, make: impl FnOnce() -> S) -> Result<()>
    where
        S: Service<Call, Response = http::Response<B>, Error: Into<BoxError>, Future: 'static> + Clone + 'static,
        B: Body<Error: Into<BoxError>> + 'static,
    {
        let runtime = self.runtime()?;
        LocalSet::new().block_on(&runtime, async { self.drive(make()).await })
    }

    /// As [`serve_tower`](Worker::serve_tower), with a service that is made asynchronously, or not at all: a worker
    /// that cannot connect to its database ends here, and is started again with a backoff.
    ///
    /// ```no_run
    /// # use std::{convert::Infallible, io};
    /// # type Service = fn() -> Infallible;
    /// # async fn connect() -> io::Result<()> { Ok(()) }
    /// use axum::{routing::get, Router};
    ///
    /// fn main() -> forkpool::Result<()> {
    ///     forkpool::Pool::bind("127.0.0.1:8000").run(|worker| {
    ///         worker.serve_tower_from(async {
    ///             let database = connect().await?;
    ///             Ok::<_, io::Error>(Router::new().route("/", get("hello world\n")).with_state(database))
    ///         })
    ///     })
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// That of `service`, and as [`serve_tower`](Worker::serve_tower).
    pub fn serve_tower_from<S, B, E>(
        &self,
        service: impl Future<Output = Result<S, E>>,
    ) -> Result<(), Box<dyn StdError>>
    where
        E: Into<Box<dyn StdError>>,
        S: Service<Call, Response = http::Response<B>, Error: Into<BoxError>, Future: 'static> + Clone + 'static,
        B: Body<Error: Into<BoxError>> + 'static,
    {
        let runtime = self.runtime()?;
        LocalSet::new().block_on(&runtime, async {
            let service = service.await.map_err(Into::into)?;
            Ok(self.drive(service).await?)
        })
    }

    /// A runtime that tells the pool when it works.
    fn runtime(&self) -> Result<Runtime> {
        let (working, waiting) = (self.meter(), self.meter());
        let runtime = Builder::new_current_thread()
            .enable_all()
            .on_thread_unpark(move || working.leaves_wait())
            .on_thread_park(move || waiting.waits())
            .build();
        runtime.map_err(|source| Error::system("start a tokio runtime with epoll_create1(2)", source))
    }

    /// Serves until all connections have ended.
    async fn drive<S, B>(&self, service: S) -> Result<()>
    where
        S: Service<Call, Response = http::Response<B>, Error: Into<BoxError>, Future: 'static> + Clone + 'static,
        B: Body<Error: Into<BoxError>> + 'static,
    {
        #[cfg(all(feature = "tls", not(feature = "hyper-tls")))]
        self.check_tls()?;
        let watch = |source| Error::system("watch the worker's sockets with epoll_ctl(2)", source);
        let shutdown = self.shutdown_signal().and_then(UnixStream::from_std).map_err(watch)?;
        let (leavers, mut leave) = mpsc::unbounded_channel();
        let state = Arc::new(State::new(self.page.clone(), self.tag(), self.serving.config()));
        let taken_over = self.take_over();
        let accepting = Accepting::new(self.take_listeners(), self.take_unix_listeners(), taken_over).map_err(watch)?;
        #[cfg(feature = "hyper-tls")]
        let accepting = accepting.secured_by(tls::Endpoint::new(self, &state));
        let ready = self.ready();
        ready.map_err(|source| Error::system("tell the parent that the worker is ready with write(2)", source))?;
        let accepting = accepting.start(&service, &state, &leavers);
        // An error of the stream would be its end as well.
        let shut_down = async { _ = shutdown.readable().await };
        if state.unless_failed(shut_down).await.is_some() {
            state.drain(self.has_destinations());
            let passing = async {
                while let Some(leaver) = leave.recv().await {
                    if !self.pass_on(&leaver) {
                        let Leaver { socket, client, .. } = leaver;
                        spawn_local(serve(socket, client, service.clone(), Arc::clone(&state), true));
                    }
                }
            };
            let all = async {
                for task in accepting {
                    let _ = task.await;
                }
                state.all_closed().await;
            };
            if state.unless_failed(unless(passing, all)).await.is_some() {
                return Ok(());
            }
        }
        Err(Error::system("go on after a handler has panicked (on-panic)", std::io::Error::other("the worker exits")))
    }

    /// Returns whether somebody takes a connection over.
    fn pass_on(&self, leaver: &Leaver) -> bool {
        let record = Record { is_new: leaver.is_new, unread: leaver.socket.begun(), ..Record::default() };
        let is_passed_on = self.pass(&record, leaver.socket.as_fd());
        if is_passed_on {
            self.row().count_handed();
        }
        is_passed_on
    }
}
