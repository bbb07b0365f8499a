//! A tower service for tests/tower.rs.

use std::process;

use http::{Request, Response};
use hyper::body::Incoming;

fn main() -> forkpool::Result<()> {
    env_logger::init();
    forkpool::Pool::bind("127.0.0.1:8000").env().serve_tower(|| tower::service_fn(answer))
}

async fn answer(request: Request<Incoming>) -> Result<Response<String>, http::Error> {
    let peer = request.extensions().get::<std::net::SocketAddr>().map(ToString::to_string);
    let text = match request.uri().path() {
        "/panic" => panic!("as asked"),
        // On the only thread.
        "/wait" => {
            log::info!("serves /wait");
            let path = request.uri().query().unwrap_or_default();
            while !std::path::Path::new(path).exists() {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            "waited".to_owned()
        }
        // After the runtime has looked at the sockets so many times.
        "/turns" => {
            for _ in 0..request.uri().query().and_then(|count| count.parse().ok()).unwrap_or(1) {
                tokio::task::yield_now().await;
            }
            "some turns later".to_owned()
        }
        "/draining" => {
            forkpool::draining().await;
            "it drains".to_owned()
        }
        "/tls" => {
            let tls = request.extensions().get::<forkpool::TlsInfo>();
            let name = tls.and_then(forkpool::TlsInfo::server_name).unwrap_or("no name");
            format!("{:?} of {name} over {:?}", tls.map(forkpool::TlsInfo::version), request.version())
        }
        "/peer" => peer.unwrap_or_default(),
        "/missing" => return Response::builder().status(404).body(String::new()),
        _ => "hello world\n".to_owned(),
    };
    Response::builder().header("x-pid", process::id()).body(text)
}
