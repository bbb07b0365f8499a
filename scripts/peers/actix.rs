//! actix-web with one worker: peer-actix PORT

use std::time::Duration;

use actix_web::http::{header, KeepAlive};
use actix_web::{web, App, HttpResponse, HttpServer};

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    let port = std::env::args().nth(1).expect("a port");
    let hello = || async {
        HttpResponse::Ok()
            .insert_header((header::SERVER, "actix"))
            .insert_header((header::CONTENT_TYPE, "text/plain"))
            .body(web::Bytes::from_static(b"Hello, World!"))
    };
    HttpServer::new(move || App::new().route("/plaintext", web::get().to(hello)))
        .workers(1)
        .backlog(4096)
        .keep_alive(KeepAlive::Os)
        .client_request_timeout(Duration::ZERO)
        .bind(format!("127.0.0.1:{port}"))?
        .run()
        .await
}
