//! A pre-fork worker pool for Linux: a parent forks one worker per CPU, each worker listens on its own SO_REUSEPORT
//! socket, so that the kernel distributes connections, and the parent respawns workers that die.
//!
//! ```no_run
//! use forkpool::{Pool, Response};
//!
//! fn main() -> forkpool::Result<()> {
//!     Pool::bind("127.0.0.1:8000").serve(|_request| Response::text("hello world\n"))
//! }
//! ```
//!
//! # Know before you fork
//!
//! - **One thread.** fork(2) copies the thread that calls it and no other, with the locks that the others hold. A
//!   pool therefore refuses to start in a process that has a second thread ([`Error::Threads`]). Start threads,
//!   runtimes and connection pools in the worker: in the closure given to [`Builder::run`], or when the handler is
//!   first called.
//! - **What exists before the fork is copied.** Memory is shared until written; file descriptors, and the file
//!   offsets behind them, are shared for good. Open a database connection in the worker, or all workers speak on one.
//! - **Signals are the pool's** while it runs: TERM, QUIT, INT, HUP, USR1, USR2, TTIN, TTOU and CHLD in the parent;
//!   TERM, QUIT and INT in a worker, where they end [`Worker::shutdown_signal`]'s stream. It unblocks them, whoever has
//!   blocked or ignored them, and ignores SIGXFSZ where that has its default action. A worker that installs its own
//!   handlers drains by the lifeline alone. Before [`Builder::run`] nobody hears HUP, USR1 and USR2, which then end the
//!   process: block them first of all in `main` if your start takes long, and they wait.
//! - **A handler blocks its worker.** Its other connections wait meanwhile; other workers do not. What takes long
//!   belongs on a thread, with [`Response::deferred`]. One that hangs for the stall time-out is killed with its
//!   worker.
//! - **What can be lost**: the requests that a worker has begun when it crashes, what is unfinished at the drain
//!   time-out, and a request that a client sends at the very moment when its idle connection is closed by a drain.
//! - **An upgrade starts the program again** (SIGUSR2, [`Handle::upgrade`]): with the same arguments, while this one
//!   serves, and for a while when it drains. Nothing tells the new pool when the old one has ended. What must not exist
//!   twice, such as a lock file, is to be waited for in a worker, not taken before [`Builder::run`].
//! - **No TLS and no HTTP/2**: put a proxy in front, or bring a server that has them.
//!
//! # What a broken worker can do
//!
//! Whatever a worker writes to shared memory, sends to the parent, or does to its sockets, the parent and the other
//! workers go on, and a new worker takes its place. A worker of the parent's own user can still signal and trace them
//! all; one of [another user](Builder::user) can signal other workers of that user, which are then replaced; one in the
//! [strict sandbox](Sandbox::Strict) as well can do neither. It may always lie to its own clients, drop what it
//! accepts, and use as much memory and processor time as its user may.
//!
//! # Three levels
//!
//! 1. [`Builder::serve`]: a handler, `Fn(&Request) -> Response`. It need not be `Send`, `Sync` or `'static`.
//! 2. [`Builder::run`] with [`Worker::serve`]: the same, after some code of yours in each worker.
//! 3. [`Builder::run`] with a server of yours: [`Worker::take_listener`], [`Worker::ready`] and [`Worker::shutdown_signal`] are
//!    of the standard library's types, which every runtime takes; [`Worker::incoming`] is the blocking loop. In the
//!    place where it answers, [`is_draining`] says whether to add `Connection: close`.
//!
//! ```no_run
//! use std::io::Write;
//!
//! fn main() -> forkpool::Result<()> {
//!     forkpool::Pool::bind("127.0.0.1:8000").env().run(|worker| {
//!         for stream in worker.incoming() {
//!             stream?.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nhi\n")?;
//!         }
//!         Ok::<(), std::io::Error>(())
//!     })
//! }
//! ```
//!
//! # The parent's side
//!
//! [`Builder::on_event`] tells what happens to workers and the pool, in the parent, and its [`Handle`] restarts,
//! scales, upgrades and stops the pool and tells its [`Status`]. [`Builder::on_exit`] decides when the slot of a worker
//! that has died gets another one.
//!
//! # Words
//!
//! The *parent* forks *workers*. A *slot* is a place in the pool with its listening sockets; it is numbered from 0
//! and outlives the workers that serve it. Its *generation* counts how often it was started. A worker is *ready* when
//! it serves, *drains* when it finishes what it has, *exits*; a *stall* is a request that hangs; *backoff* is the
//! wait before a slot that keeps failing is started again.
//!
//! # Logs
//!
//! By the `log` facade, from the process that speaks: `error` asks for somebody, `warn` is what the pool has dealt
//! with, `info` is the life of the pool and its workers, one line each (`worker=0 gen=1 pid=4242 ready`), `debug` is
//! the rest.
//!
//! A logger that waits for whoever reads its output stops the process that logs: a parent that is stuck in write(2)
//! replaces no worker and hears no signal. The binary therefore writes through [`LogWriter`], which loses lines instead,
//! and says how many. Use it for a logger of your own as well, or make sure by other means that it never waits. What the
//! standard library's panic hook prints is such a log, too: the binary has a hook that logs instead.
//!
//! # Features
//!
//! - `cli` (default): the binary `forkpool`. Turn it off to embed the library: no argument parser, no log writer.
//! - `serde`: messages that are values of your types, as JSON: `Worker::send_typed`, `Handle::send_typed`, `encode` and
//!   `decode`.

mod admin;
mod error;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(all(test, not(fuzzing)))]
mod fuzzing;
mod parent;
mod pool;
mod server;
mod shared;
mod sys;
mod time;
mod worker;

pub use error::{Error, Result};
pub use parent::event::{Event, Exit, Process};
pub use parent::handle::{Handle, Status, Target, WorkerStatus};
pub use parent::supervisor::{PoolState, Respawn};
#[cfg(feature = "serde")]
pub use pool::{decode, encode, TypedError};
pub use pool::{Builder, Pool};
pub use server::adoption::Adopter;
pub use server::answer::guard::UpgradeGuard;
pub use server::answer::responder::Responder;
pub use server::answer::response::Response;
pub use server::answer::stream::BodyWriter;
pub use server::answer::upgrade::{Socket, Upgraded};
pub use server::files::Files;
pub use server::http::{Headers, InvalidHeader, Request, Version};
#[doc(hidden)] // for the binary, whose options they are
pub use shared::config::{duration, settings, Setting};
pub use shared::config::{AccessLogFormat, Balance, ForwardedHeader, OnPanic, OnStall, Readiness, Sandbox, Symlinks};
pub use shared::log_writer::LogWriter;
pub use shared::message::{MessageError, MESSAGE_MAX};
pub use shared::state::WorkerState;
pub use worker::incoming::Incoming;
pub use worker::meter::{BusyGuard, ConnectionGuard, Meter};
pub use worker::{is_draining, worker_id, Message, Messages, Sender, Worker};
