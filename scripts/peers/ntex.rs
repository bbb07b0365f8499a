//! ntex on tokio with one worker: peer-ntex PORT

use ntex::http::{header, HttpService, Response};
use ntex::util::{Bytes, Ready};

#[ntex::main]
async fn main() -> std::io::Result<()> {
    let port = std::env::args().nth(1).expect("a port");
    let service = async |_: _| {
        HttpService::new(|_| {
            let mut response = Response::Ok();
            response.header(header::SERVER, "ntex").header(header::CONTENT_TYPE, "text/plain");
            Ready::Ok::<_, std::io::Error>(response.body(Bytes::from_static(b"Hello, World!")))
        })
    };
    ntex::server::build().workers(1).backlog(4096).bind("hello", format!("127.0.0.1:{port}"), service)?.run().await
}
