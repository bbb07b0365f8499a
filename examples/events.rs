//! cargo run --example events, then curl -N http://127.0.0.1:8000: server-sent events, the time once a second.

use std::io::Write;
use std::thread;
use std::time::{Duration, SystemTime};

use forkpool::{Pool, Response};

fn main() -> forkpool::Result<()> {
    Pool::bind("127.0.0.1:8000").env().serve(|_request| {
        let (mut events, response) = Response::stream("text/event-stream");
        thread::spawn(move || {
            let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
            // Ends when the client has gone.
            while write!(events, "event: time\ndata: {}\n\n", now()).is_ok() {
                thread::sleep(Duration::from_secs(1));
            }
        });
        response.header("Cache-Control", "no-store")
    })
}
