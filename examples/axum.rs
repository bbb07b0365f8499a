//! cargo run --example axum --features hyper: axum in each worker.

use std::{process, time::Duration};

use axum::{routing::get, Router};
use tokio::time::sleep;

fn main() -> forkpool::Result<()> {
    env_logger::init();
    forkpool::Pool::bind("127.0.0.1:8000").env().serve_tower(|| {
        let slow = || async { sleep(Duration::from_millis(300)).await };
        let hello = || async { ([("x-pid", process::id().to_string())], "hello world\n") };
        Router::new().route("/", get(hello)).route("/slow", get(slow))
    })
}
