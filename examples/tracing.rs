//! cargo run --example tracing: the pool's own log lines and a span for each request, by the crate tracing.

use forkpool::{Pool, Response};
use tracing::{info, info_span};

fn main() -> forkpool::Result<()> {
    // Before the fork, so that parent and workers have it. It takes the pool's lines too, which come by the crate log. A writer
    // with a thread, as tracing-appender's, belongs into the worker: a pool starts in a process of one thread.
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    Pool::bind("127.0.0.1:8000").env().serve(|request| {
        let _span = info_span!("request", worker = request.worker(), path = request.path()).entered();
        info!("answering");
        Response::text("hello world\n")
    })
}
