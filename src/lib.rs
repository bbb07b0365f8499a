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
//! - **One thread.** fork(2) copies only the calling thread, together with locks that other threads may hold. A pool
//!   therefore refuses to start in a process with a second thread ([`Error::Threads`]). Start threads, runtimes and
//!   connection pools in the worker: in the closure passed to [`Builder::run`], or on the first call of the handler.
//! - **Everything that exists before the fork is copied.** Memory is shared until it is written. File descriptors and
//!   their file offsets stay shared. Open a database connection in the worker; otherwise all workers talk on one.
//! - **The pool handles signals** while it runs: TERM, QUIT, INT, HUP, USR1, USR2, TTIN, TTOU and CHLD in the parent;
//!   TERM, QUIT and INT in a worker, where they end the stream of [`Worker::shutdown_signal`]. It unblocks them even if
//!   the process had blocked or ignored them, and it ignores SIGXFSZ unless that has a handler. A worker that installs
//!   its own handlers still drains when the parent tells it to. Before [`Builder::run`], HUP, USR1 and USR2 end the
//!   process; if your start takes long, block them at the beginning of `main`, and they are handled later.
//! - **A handler blocks its worker.** The worker's other connections wait meanwhile; other workers go on. Move long
//!   work to a thread, with [`Response::deferred`]. A worker whose handler hangs for the stall timeout is killed.
//! - **What can be lost**: requests in progress in a worker that crashes or reaches the drain timeout, and a request
//!   that a client sends at the very moment when a drain closes its idle connection.
//! - **An upgrade starts the program again** (SIGUSR2, [`Handle::upgrade`]) with the same arguments. The old pool
//!   serves until the new one does, then drains, so both exist for a while. The new pool is not told when the old one
//!   has ended. Take a resource that must not exist twice, such as a lock file, in a worker, and wait for it there.
//! - **The built-in server has no HTTP/2**: put a proxy in front, or use a server that has it, such as
//!   `Builder::serve_tower` (feature `hyper`, and `hyper-tls` for TLS).
//!
//! # What a broken worker can do
//!
//! Whatever a worker writes to shared memory, sends to the parent, or does to its sockets, the parent and the other
//! workers go on, and a new worker takes its place. A worker that runs as the parent's user can still signal and trace
//! them all. A worker of [another user](Builder::user) can signal other workers of that user, which are then replaced.
//! A worker of another user in the [strict sandbox](Sandbox::Strict) can do neither. Any worker can send its own
//! clients wrong responses, drop the connections that it accepts, and use as much memory and processor time as its user
//! may.
//!
//! # Three levels
//!
//! 1. [`Builder::serve`] with a handler, `FnMut(&Request) -> Response`. It need not be `Send`, `Sync` or `'static`.
//! 2. [`Builder::run`] with [`Worker::serve`]: the same, after some code of yours in each worker.
//! 3. [`Builder::run`] with a server of yours. [`Worker::take_listener`], [`Worker::ready`] and
//!    [`Worker::shutdown_signal`] use types of the standard library, which every runtime accepts. [`Worker::incoming`]
//!    is a blocking accept loop. Ask [`is_draining`] for each response whether to add `Connection: close`. A tower
//!    service, such as an axum router, is served by `Builder::serve_tower` with the feature `hyper`.
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
//! # Tests
//!
//! A handler is an ordinary function: call it with a request from [`Request::builder`], and look at the response with
//! [`Response::status_code`], [`Response::header_value`] and [`Response::body_bytes`].
//!
//! A whole pool needs a process of its own, since a test has several threads and a pool must have one. So start your
//! program from a test in `tests/`, on a port that the kernel picks. Here `main` prints the address once the pool
//! serves:
//!
//! ```no_run
//! use forkpool::{Event, Pool};
//!
//! fn main() -> forkpool::Result<()> {
//!     let mut addresses = Vec::new();
//!     Pool::bind("127.0.0.1:8000")
//!         .env()
//!         .on_event(move |event, _pool| match event {
//!             Event::Listening { addresses: found, .. } => addresses = found.to_vec(),
//!             Event::Serving => println!("serving {addresses:?}"),
//!             _ => {}
//!         })
//!         .serve(|_request| "hello world\n")
//! }
//! ```
//!
//! The test reads that line, talks to the pool, and kills it in the end; workers do not outlive their parent:
//!
//! ```no_run
//! # #[cfg(any())]
//! # mod integration {
//! use std::io::{BufRead, BufReader, Read, Write};
//! use std::net::TcpStream;
//! use std::process::{Command, Stdio};
//!
//! #[test]
//! fn it_greets() {
//!     let mut program = Command::new(env!("CARGO_BIN_EXE_my-server"));
//!     let program = program.env("FORKPOOL_LISTEN", "127.0.0.1:0").env("FORKPOOL_WORKERS", "2").stdout(Stdio::piped());
//!     let mut pool = program.spawn().expect("it starts");
//!     let mut line = String::new();
//!     BufReader::new(pool.stdout.take().expect("a pipe")).read_line(&mut line).expect("it serves");
//!     let address = line.trim().trim_start_matches("serving [").trim_end_matches(']');
//!
//!     let mut client = TcpStream::connect(address).expect("it listens");
//!     client.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("sent");
//!     let mut response = String::new();
//!     client.read_to_string(&mut response).expect("it closes");
//!     pool.kill().and_then(|()| pool.wait()).expect("it ends");
//!     assert!(response.ends_with("hello world\n"), "{response}");
//! }
//! # }
//! ```
//!
//! # The parent's side
//!
//! [`Builder::on_event`] reports to a hook in the parent what happens to workers and to the pool. Its [`Handle`]
//! restarts, scales, upgrades and stops the pool, and returns its [`Status`]. [`Builder::on_exit`] decides when to
//! replace a worker that has died.
//!
//! # Words
//!
//! The *parent* forks *workers*. A *slot* is a place in the pool with its listening sockets. Slots are numbered from 0
//! and outlive the workers that serve them. The *generation* counts how often a slot has been started. A worker is
//! *ready* when it serves, *drains* when it finishes its connections, and then *exits*. A *stall* is a request that
//! hangs. *Backoff* is the delay before a slot that keeps failing is started again.
//!
//! # Logs
//!
//! Parent and workers log through the crate `log`: `error` needs attention, `warn` is a problem that the pool has
//! handled, `info` is one line for each change of the pool and its workers (`worker=0 gen=1 pid=4242 ready`), and
//! `debug` is the rest.
//!
//! Without a logger, the parent writes its first warning or error to stderr, and says that there is none.
//!
//! A logger that waits for its reader blocks the process that logs. A parent blocked in write(2) replaces no worker and
//! handles no signal. The binary therefore writes through [`LogWriter`], which drops lines instead and counts them. Use
//! it for your own logger, or choose a logger that never waits. The standard library's panic hook writes to stderr and
//! may block in the same way; the binary installs a hook that logs instead.
//!
//! # Features
//!
//! - `cli` (default): the binary `forkpool`. Turn it off to embed the library without an argument parser and a logger.
//! - `tls` (default): HTTPS, with rustls and ring, which needs a C compiler: [`Builder::bind_tls`], [`Request::tls`],
//!   `Worker::tls_config`. Without it, settings of TLS are refused.
//! - `serde`: values of your types as JSON, in responses and requests (`Response::json`, `Request::json`) and as
//!   messages (`Worker::send_typed`, `Handle::send_typed`, `encode`, `decode`).
//! - `hyper`: serves tower services, such as those of axum and tonic, with hyper on a tokio runtime of one thread in
//!   each worker: `Builder::serve_tower`.
//! - `hyper-tls`: the same over TLS, with the pool's certificates and session tickets, by tokio-rustls.
//! - `http`: converts requests and responses from and to those of the crate `http`.

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

#[doc(hidden)] // for the binary, which shows the same by itself
pub use admin::status::{shown_span, shown_time};
pub use error::{Error, Result};
pub use parent::event::{Event, Exit, Process};
pub use parent::handle::{Handle, Status, Target, WorkerStatus};
pub use parent::supervisor::{PoolState, Respawn};
#[cfg(feature = "serde")]
pub use pool::{decode, encode, TypedError};
pub use pool::{Builder, Pool};
pub use server::adoption::Adopter;
pub use server::answer::guard::UpgradeGuard;
pub use server::answer::into_response::IntoResponse;
pub use server::answer::reader::BodyReader;
pub use server::answer::responder::Responder;
pub use server::answer::response::Response;
pub use server::answer::stream::BodyWriter;
pub use server::answer::upgrade::{Socket, Upgraded};
pub use server::files::Files;
pub use server::http::{
    media_type_of as media_type, Headers, InvalidHeader, Pairs, Request, RequestBuilder, TlsInfo, Version,
};
#[cfg(feature = "tls")]
pub use server::tls::TlsSocket;
#[doc(hidden)] // for the binary, whose options they are
pub use shared::config::{duration, settings, Setting};
pub use shared::config::{
    AccessLogFormat, Adopt, Balance, ForwardedHeader, OnPanic, OnStall, Probe, Readiness, Rebalance, Sandbox,
    StopSignal, Symlinks,
};
pub use shared::log_writer::LogWriter;
pub use shared::message::{MessageError, MESSAGE_MAX};
pub use shared::metrics::{Counter, Gauge, Histogram, Metrics};
pub use shared::state::WorkerState;
pub use shared::tls::{TlsClientAuth, TlsVersion};
pub use worker::incoming::Incoming;
pub use worker::meter::{BusyGuard, ConnectionGuard, Meter};
#[cfg(feature = "hyper")]
pub use worker::tower::draining;
pub use worker::{is_draining, worker_id, Message, Messages, NotHandedOver, Sender, TakenOver, Worker};
