//! cargo run --example events, then curl -N http://127.0.0.1:8000: server-sent events, the time once a second.

use std::io::Write;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, SystemTime};

use forkpool::{Pool, Response};

fn main() -> forkpool::Result<()> {
    Pool::bind("127.0.0.1:8000").env().serve(|_request| {
        let (mut events, response) = Response::stream("text/event-stream");
        // A message comes when the client disconnects, or should reconnect to another worker because this one drains.
        let (told, ending) = mpsc::channel();
        let told_too = told.clone();
        events.on_gone(move || _ = told.send(()));
        events.on_drain(move || _ = told_too.send(()));
        thread::spawn(move || {
            let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
            while write!(events, "event: time\ndata: {}\n\n", now()).is_ok() {
                if ending.recv_timeout(Duration::from_secs(1)) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        });
        response.header("Cache-Control", "no-store")
    })
}
