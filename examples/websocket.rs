//! cargo run --example websocket: WebSocket echo (RFC 6455) with tungstenite, and a thread for each connection. When
//! the worker drains, it closes one connection after the other with "service restart", and the clients reconnect to
//! another worker.

use std::io::ErrorKind;
use std::thread;
use std::time::{Duration, Instant};

use forkpool::{Pool, Request, Response, Upgraded};
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role, WebSocket};
use tungstenite::Error;

/// How long a client may take to answer our Close.
const PATIENCE: Duration = Duration::from_secs(2);

fn main() -> forkpool::Result<()> {
    Pool::bind("127.0.0.1:8000").env().serve(handshake)
}

/// RFC 6455 section 4.2.
fn handshake(request: &Request<'_>) -> Response {
    if request.method() != "GET" {
        return Response::new(405).header("Allow", "GET");
    }
    if request.header("Sec-WebSocket-Version") != Some("13") {
        return Response::new(426).header("Upgrade", "websocket").header("Sec-WebSocket-Version", "13");
    }
    match request.header("Sec-WebSocket-Key") {
        Some(key) if is_key(key) => {
            let response = Response::upgrade("websocket", |stream| drop(thread::spawn(move || echo(stream))));
            response.header("Sec-WebSocket-Accept", &derive_accept_key(key.as_bytes()))
        }
        _ => Response::new(400),
    }
}

/// Whether the key is 16 bytes in base64.
fn is_key(key: &str) -> bool {
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.len() == 24 && key.ends_with("==") && key[..22].bytes().all(is_base64)
}

fn echo(mut stream: Upgraded) {
    // Without this, the connection would be cut at the end of the drain.
    if stream.interrupt_on_drain().is_err() {
        return;
    }
    let mut socket = WebSocket::from_raw_socket(stream, Role::Server, None);
    // Ends when the client closes or breaks the protocol.
    loop {
        match socket.read() {
            Ok(message) if message.is_text() || message.is_binary() => {
                if socket.send(message).is_err() {
                    return;
                }
            }
            Ok(_) => {}
            Err(Error::Io(error)) if error.kind() == ErrorKind::Interrupted => return leave(socket),
            Err(_) => return,
        }
    }
}

/// Sends a Close, then nothing more, and waits for the client's Close.
fn leave(mut socket: WebSocket<Upgraded>) {
    let end = Instant::now() + PATIENCE;
    let close = CloseFrame { code: CloseCode::Restart, reason: "the server restarts".into() };
    if socket.close(Some(close)).is_err() {
        return;
    }
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        socket.get_mut().set_read_timeout(Some(left));
        if socket.read().is_err() {
            return;
        }
    }
}
