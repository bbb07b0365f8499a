//! cargo run --example websocket: WebSocket echo (RFC 6455) by tungstenite, each connection on a thread of its own.

use std::thread;

use forkpool::{Pool, Request, Response, Upgraded};
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::{Role, WebSocket};

fn main() -> forkpool::Result<()> {
    Pool::bind("127.0.0.1:8000").env().serve(|request| handshake(request).unwrap_or_else(|| Response::new(400)))
}

fn handshake(request: &Request<'_>) -> Option<Response> {
    let key = request.header_bytes("Sec-WebSocket-Key")?;
    let response = Response::upgrade("websocket", |stream| drop(thread::spawn(move || echo(stream))));
    response.try_header("Sec-WebSocket-Accept", &derive_accept_key(key)).ok()
}

fn echo(stream: Upgraded) {
    let mut socket = WebSocket::from_raw_socket(stream, Role::Server, None);
    // Ends when the client closes or breaks the protocol.
    while let Ok(message) = socket.read() {
        if (message.is_text() || message.is_binary()) && socket.send(message).is_err() {
            return;
        }
    }
}
