//! What user code gets in a worker, and how a worker starts and ends.
//!
//! Its input: a seed, through the fork, with sockets, a lifeline and a page of the scoreboard. Its output: reports over
//! the lifeline's channel, and an exit code. It does not know the parent: a worker trusts what it was started with, and
//! asks for things only through its channel.
//!
//! # Files
//!
//! - `birth.rs`: the seed, and the way from the fork to user code and to the exit
//! - `handover.rs`: connections that outlive their worker, for servers of one's own
//! - `messages.rs`: its side of the messages
//! - `sockets.rs`: the sockets that user code takes from it
//! - `serving.rs`: what servers need from it
//! - `confinement.rs`: entering the sandbox
//! - `meter.rs`: reports of the application's own server
//! - `exec.rs`: runs another program with the worker's sockets
//! - `keeper/`: supervises that program until its end
//! - `incoming.rs`: the blocking accept loop for plain `std` servers
//! - `tower/`: serves a tower service with hyper (feature `hyper`)
//! - `sandbox/`: the rights that a worker gives up once it is ready. `program.rs` (PURE) is the seccomp program,
//!   `calls.rs` the list of allowed calls
//!
//! # Decisions
//!
//! - **The sandbox costs time only when a file is opened**, since landlock checks every directory up to `/`: a third of
//!   a microsecond, except for files that are held open. The calls of the hot path are allowed by their number alone,
//!   which the kernel caches in a bitmap. Since 5.16, the kernel does not slow down speculation because of a filter.
//! - **The sandbox begins at `ready`**, when everything is open. It does not confine what user code does before, nor
//!   what that code has started by then. A worker with a second thread is not confined at all, since landlock applies
//!   to one thread and those that it starts.
//! - **A refused call fails with EPERM**, which a handler can report. Executing a program or accessing another process
//!   does not happen by mistake, so it ends the worker by SIGSYS, which the log shows. clone3(2) fails with ENOSYS: its
//!   flags are behind a pointer, and libraries then use clone(2).
//! - **A confined worker may set the options that servers set on connections**, from a list. The kernel does not tell
//!   the filter whether a descriptor is a connection or a listener, which the replacement inherits. So nothing on the
//!   list outlasts the worker: the parent resets it before the next start. O_NONBLOCK can be set and not cleared, and
//!   only by fcntl(2), whose argument is not a pointer. The library does not use ioctl(2) for it, and an upgraded
//!   connection waits by poll(2). shutdown(2) is allowed for the writing side, which a listener does not have. For the
//!   reading side it is allowed on the worker's two sockets to the parent. They are recognized by their numbers, which
//!   an intruder cannot reuse, since the sockets can be neither closed nor replaced. Standard streams that are sockets,
//!   such as a service manager's journal, can be neither shut down nor copied, since the parent writes to them as well.
//!   O_DIRECT cannot be set, since a file then refuses lines; outside of the sandbox, a log clears it. Nothing protects
//!   the writing side of a slot's UDP socket: the parent cannot see that it was shut down.
//! - **A confined worker can use what it has open**, also for writing: pwrite(2), fsync(2), ftruncate(2), flock(2) and
//!   the like only act on open descriptors. Socket pairs are refused all the same, since much code of the kernel is
//!   behind them.
//! - **A confined worker may read its own executable**, for the names in a backtrace, and with `--symlinks anywhere`
//!   every file.
//! - **Landlock and seccomp are called directly.** That takes three calls and a BPF program like those for steering,
//!   while the crates bring a tree of dependencies with procedural macros.
//! - **SIGALRM limits the drain of a worker without a parent**, because alarm(2) may be called in a signal handler and
//!   needs no thread.
//! - **The sockets of a program are non-blocking.** It shares them with its predecessor, whose accept loop may rely on
//!   EAGAIN, and the flag belongs to the socket.

mod birth;
mod confinement;
pub(crate) mod exec;
mod handover;
pub(crate) mod incoming;
pub(crate) mod keeper;
mod messages;
pub(crate) mod meter;
pub(crate) mod sandbox;
mod serving;
mod sockets;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "hyper")]
pub(crate) mod tower;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::error::{Error, Result};
use crate::server::adoption::Adopter;
use crate::server::answer::into_response::IntoResponse;
use crate::server::event_loop::Server;
use crate::server::http::{InvalidHeader, Request};
use crate::server::redirect::redirect;
use crate::shared::channel::WorkerEnd;
use crate::shared::scoreboard::RowPage;
use crate::sys;
use crate::worker::incoming::Incoming;
use crate::worker::keeper::KeeperOptions;
use crate::worker::meter::Meter;

pub(crate) use self::birth::{start, Identity, Main, Place, Seed, Setup};
use self::confinement::Confinement;
pub use self::handover::{NotHandedOver, TakenOver};
use self::messages::Messaging;
pub use self::messages::{Message, Messages, Sender};
pub(crate) use self::serving::Serving;
use self::serving::Streams;
pub(crate) use self::sockets::Listening;
use self::sockets::Sockets;

/// The slot of this process if it is a worker.
static SLOT: AtomicUsize = AtomicUsize::new(NO_SLOT);
pub(crate) const NO_SLOT: usize = usize::MAX;

/// The lifeline of this process if it is a worker.
static LIFELINE: RwLock<Option<Arc<UnixStream>>> = RwLock::new(None);

/// Returns the [id](Worker::id) of this worker, or `None` in the parent and in a process without a pool.
///
/// Any thread of the worker may call it. Programs that a worker starts find the id in the environment variable
/// `FORKPOOL_WORKER_ID`, besides `FORKPOOL_UNIQUE_ID`.
pub fn worker_id() -> Option<usize> {
    Some(SLOT.load(Ordering::Relaxed)).filter(|slot| *slot != NO_SLOT)
}

/// Returns whether this process is a worker that is to finish, as the stream of [`Worker::shutdown_signal`] tells;
/// `false` in the parent, and in a process without a pool.
///
/// A server of your own calls this for each response. From then on it adds `Connection: close` to its responses, so
/// that clients disconnect (RFC 9112, section 9.6). It can be called anywhere in the worker, on any thread, and costs
/// one poll(2). The built-in server does this by itself.
///
/// ```
/// let close = forkpool::is_draining().then_some("Connection: close\r\n");
/// assert_eq!(close, None, "this process is no worker");
/// ```
pub fn is_draining() -> bool {
    let lifeline = LIFELINE.read().unwrap_or_else(PoisonError::into_inner);
    // poll(2) on one descriptor only fails if memory is short. Then the next response gets the field.
    lifeline.as_ref().is_some_and(|lifeline| serving::is_over(lifeline).unwrap_or(false))
}

/// The worker in this process. User code gets it from [`Builder::run`](crate::Builder::run).
///
/// It belongs to one process and one thread. What it returns are types of the standard library, which any runtime can
/// use.
#[derive(Debug)]
pub struct Worker {
    identity: Identity,
    lifeline: WorkerEnd,
    messaging: Messaging,
    sockets: Sockets,
    page: RowPage,
    serving: Serving,
    keeper_options: KeeperOptions,
    confinement: Confinement,
    place: Place,
    /// Who takes over the connections of a server of one's own.
    destinations: RefCell<VecDeque<handover::Destination>>,
    is_ready: Cell<bool>,
    quit: Arc<AtomicBool>,
}

impl Worker {
    /// The slot that this worker serves: a number from 0. Its replacement has the same.
    pub fn id(&self) -> usize {
        self.identity.slot
    }

    /// How many times the slot has been started: 1 for its first worker.
    pub fn generation(&self) -> u64 {
        self.identity.generation
    }

    /// A number from 1 that no other process of the pool has or ever had. Programs find it in `FORKPOOL_UNIQUE_ID`.
    pub fn unique_id(&self) -> u64 {
        self.identity.unique
    }

    /// Tells the parent that this worker is ready to serve. In a [`Sandbox`](crate::Sandbox), the confinement begins
    /// here.
    ///
    /// Call it when requests can be answered: a worker that does not within the boot timeout is replaced. Further calls
    /// do nothing. [`serve`](Worker::serve) and [`incoming`](Worker::incoming) call it.
    ///
    /// # Errors
    ///
    /// When the parent has died, the worker cannot be confined, or clients expect TLS that its server does not speak.
    pub fn ready(&self) -> io::Result<()> {
        if self.is_ready.get() {
            return Ok(());
        }
        #[cfg(feature = "tls")]
        self.check_tls().map_err(|error| {
            // A server may not tell what it gets.
            log::error!("{}: {}", self.tag(), error.report());
            io::Error::other(error)
        })?;
        self.confine().map_err(io::Error::other)?;
        self.lifeline.ready()?;
        self.is_ready.set(true);
        Ok(())
    }

    /// Returns a meter, by which a server of your own reports connections and requests, so that new connections avoid
    /// this worker while it is busy.
    pub fn meter(&self) -> Meter {
        Meter::new(self.page.clone(), self.lifeline.waking())
    }

    /// Restarts the stall timeout. Call it from time to time in a handler that takes long, so that its worker does not
    /// count as hung.
    pub fn progress(&self) {
        self.row().count_progress();
    }

    /// Returns a stream that becomes readable, at its end of file, when this worker is to finish its connections and
    /// return.
    ///
    /// This happens when the parent asks for it, when the parent has died, and on SIGTERM, SIGQUIT or SIGINT. It is a
    /// stream because every reactor can wait for one. It never carries data: do not write to it.
    ///
    /// # Errors
    ///
    /// When no descriptor is free.
    pub fn shutdown_signal(&self) -> io::Result<UnixStream> {
        let stream = self.lifeline.stream().try_clone()?;
        sys::fds::set_nonblocking(&stream, true)?;
        Ok(stream)
    }

    /// Returns an iterator over connections to all TCP addresses, which ends when this worker is to finish: the accept
    /// loop of a plain `std` server. Calls [`ready`](Worker::ready).
    ///
    /// The streams are blocking. An error of accept(2) is returned and does not end the loop; one of
    /// [`ready`](Worker::ready) ends it.
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming::new(self)
    }

    /// Adds a header field to every response that [`serve`](Worker::serve) sends, its own errors included. It costs
    /// nothing per request.
    ///
    /// # Errors
    ///
    /// When the name or the value is invalid, or when the server sets the field itself.
    pub fn add_header(&self, name: &str, value: &str) -> Result<(), InvalidHeader> {
        self.serving.common.borrow_mut().add(name, value)
    }

    /// Selects requests whose handler is called before the body has arrived, to receive the body by
    /// [`Response::receive`](crate::Response::receive). The body of all other requests is collected first, up to
    /// `max-body`.
    ///
    /// A client that sends `Expect: 100-continue` with such a request gets 100 only if the response receives the body.
    /// Any other response refuses the body before it is sent.
    ///
    /// `choose` runs on the worker's only thread, for each request that has a body.
    pub fn stream_bodies(&self, choose: impl FnMut(&Request<'_>) -> bool + 'static) {
        self.serving.streams.replace(Some(Streams(Box::new(choose))));
    }

    /// Returns a handle that passes connections to the built-in server which it has not accepted itself: one that came
    /// with a message ([`on_message_with`](Worker::on_message_with)), or one that the application has accepted.
    ///
    /// Any thread may use it, before and while the worker [serves](Worker::serve).
    pub fn adopter(&self) -> Adopter {
        Adopter(Arc::clone(&self.serving.adoptions))
    }

    /// Serves HTTP/1.1 on all addresses until this worker is to finish and has drained.
    ///
    /// `handler` runs on this thread, for one request at a time; meanwhile this worker does nothing else. It returns a
    /// [`Response`](crate::Response), or whatever [`IntoResponse`] accepts, such as text or a [`Result`]. If it panics,
    /// the client gets a 500 and the connection is closed, but the worker goes on, unless
    /// [`on_panic`](crate::Builder::on_panic) says otherwise.
    ///
    /// # Errors
    ///
    /// When the system refuses what the loop needs (epoll(7)). Nothing that a client does is an error.
    pub fn serve<H, R>(&self, mut handler: H) -> Result<()>
    where
        H: FnMut(&Request<'_>) -> R,
        R: IntoResponse,
    {
        let (station, resources) = self.station()?;
        let https_port = self.serving.https_port();
        #[cfg(feature = "tls")]
        let https_port = https_port.map(|port| self.https_port(port));
        let handler = |request: &Request<'_>| match https_port.and_then(|port| redirect(request, port)) {
            Some(response) => response,
            None => handler(request).into_response(),
        };
        let mut server = Server::new(station, resources, handler)?;
        self.row().watches();
        self.confine()?;
        let told = self.ready();
        told.map_err(|source| Error::system("tell the parent that the worker is ready with write(2)", source))?;
        server.run()
    }
}
