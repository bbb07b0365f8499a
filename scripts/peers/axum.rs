//! axum on one current-thread runtime: peer-axum PORT

use axum::http::header::{CONTENT_TYPE, SERVER};
use axum::routing::get;
use axum::serve::ListenerExt;
use axum::Router;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let port = std::env::args().nth(1).expect("a port");
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await.expect("the port is free");
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    let hello = || async { ([(SERVER, "axum"), (CONTENT_TYPE, "text/plain")], "Hello, World!") };
    axum::serve(listener, Router::new().route("/plaintext", get(hello))).await.expect("it serves until it is killed");
}
