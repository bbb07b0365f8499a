//! cargo run --example count_requests: workers send the parent a message for each request, and it prints the number
//! once a second, as in the example of Node's `cluster`. `status` does the same without messages.

use std::cell::Cell;
use std::time::Duration;

use forkpool::{Event, Pool, Response};

fn main() -> forkpool::Result<()> {
    env_logger::init();
    let mut requests: u64 = 0;
    Pool::bind("127.0.0.1:8000")
        .env()
        .tick(Duration::from_secs(1))
        .on_event(move |event, _pool| match event {
            Event::Message { message, .. } => {
                requests += <[u8; 8]>::try_from(*message).map_or(0, u64::from_le_bytes);
            }
            Event::Tick => println!("numReqs = {requests}"),
            _ => {}
        })
        .run(|worker| {
            let unsent = Cell::new(0_u64);
            worker.serve(|_request| {
                unsent.set(unsent.get() + 1);
                // If the parent is behind, the next message includes this request.
                if worker.send(&unsent.get().to_le_bytes()).is_ok() {
                    unsent.set(0);
                }
                Response::text("hello world\n")
            })
        })
}
