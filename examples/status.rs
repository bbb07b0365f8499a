//! cargo run --example status: prints the number of requests once a second. Workers count them in memory that they
//! share with the parent, so this needs no messages.

use std::time::Duration;

use forkpool::{Event, Pool, Response};

fn main() -> forkpool::Result<()> {
    env_logger::init();
    Pool::bind("127.0.0.1:8000")
        .env()
        .tick(Duration::from_secs(1))
        .on_event(|event, pool| {
            if let Event::Tick = event {
                println!("numReqs = {}", pool.status().requests);
            }
        })
        .serve(|_request| Response::text("hello world\n"))
}
