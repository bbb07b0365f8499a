//! cargo run --release --example hello: a whole server, on http://127.0.0.1:8000 with a worker per CPU.

use forkpool::{Pool, Response};

fn main() -> forkpool::Result<()> {
    Pool::bind("127.0.0.1:8000").env().serve(|_request| Response::text("hello world\n"))
}
