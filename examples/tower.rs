//! cargo run --example tower --features hyper: a service without a framework in each worker, for HTTP/1.1 and HTTP/2.

use std::{process, time::Duration};

use http::{Error, Request, Response};
use hyper::body::Incoming;
use tokio::time::sleep;

fn main() -> forkpool::Result<()> {
    env_logger::init();
    forkpool::Pool::bind("127.0.0.1:8000").env().serve_tower(|| tower::service_fn(answer))
}

async fn answer(request: Request<Incoming>) -> Result<Response<String>, Error> {
    if request.uri().path() == "/slow" {
        sleep(Duration::from_millis(300)).await;
    }
    Response::builder().header("x-pid", process::id()).body("hello world\n".to_owned())
}
