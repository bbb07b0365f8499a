//! may_minihttp, one worker: peer-may PORT

use may_minihttp::{HttpServer, HttpService, Request, Response};

#[derive(Clone)]
struct Hello;

impl HttpService for Hello {
    fn call(&mut self, _: Request<'_, '_, '_>, response: &mut Response<'_>) -> std::io::Result<()> {
        response.header("Content-Type: text/plain").body("Hello, World!");
        Ok(())
    }
}

fn main() {
    let port = std::env::args().nth(1).expect("a port");
    may::config().set_workers(1).set_pool_capacity(1000).set_stack_size(0x1000);
    let server = HttpServer(Hello).start(format!("127.0.0.1:{port}")).expect("the port is free");
    server.join().expect("it serves until it is killed");
}
