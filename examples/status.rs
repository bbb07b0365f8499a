//! cargo run --example status: prints once a second how many requests there were. Workers count them in memory that
//! they share with the parent, so it costs no message.

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
