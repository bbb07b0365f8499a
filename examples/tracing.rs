//! cargo run --example tracing: log lines of the pool, and a span for each request, with the crate tracing.

use forkpool::{Pool, Response};
use tracing::{info, info_span};

fn main() -> forkpool::Result<()> {
    // Before the fork, so that parent and workers have it. It also gets the pool's lines, which come through the crate
    // log. A writer with a thread, such as tracing-appender's, must start in the worker, since a pool only starts in a
    // process with one thread.
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    Pool::bind("127.0.0.1:8000").env().serve(|request| {
        let _span = info_span!("request", worker = request.worker(), path = request.path()).entered();
        info!("answering");
        Response::text("hello world\n")
    })
}
