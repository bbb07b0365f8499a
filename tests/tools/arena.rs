//! cargo run --profile dist --example arena: what the HTTP benchmark HttpArena asks of an entry, in its profiles
//! baseline, limited-conn, pipelined, json, static, upload and echo-ws. Configured by FORKPOOL_* variables;
//! ARENA_DATA names another directory than /data.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::thread;

use forkpool::{Files, Pool, Request, Response, Upgraded, Worker};
use serde::{Deserialize, Serialize};
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::{Role, WebSocket};

/// An item of the data set.
#[derive(Deserialize, Serialize)]
struct Item {
    id: u64,
    name: String,
    category: String,
    price: u64,
    quantity: u64,
    active: bool,
    tags: Vec<String>,
    rating: Rating,
}

#[derive(Deserialize, Serialize)]
struct Rating {
    score: u64,
    count: u64,
}

/// An item as it is answered.
#[derive(Serialize)]
struct Priced<'a> {
    #[serde(flatten)]
    item: &'a Item,
    total: u64,
}

#[derive(Serialize)]
struct Answer<'a> {
    items: Vec<Priced<'a>>,
    count: usize,
}

fn main() -> forkpool::Result<()> {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    Pool::bind("0.0.0.0:8080").env().run(serve)
}

fn serve(worker: &Worker) -> Result<(), Box<dyn std::error::Error>> {
    let data = env::var_os("ARENA_DATA").map_or_else(|| PathBuf::from("/data"), PathBuf::from);
    let items: Vec<Item> = match fs::read(data.join("dataset.json")) {
        Ok(text) => serde_json::from_slice(&text)?,
        // It is there only for the profiles that need it.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let files = match data.join("static") {
        directory if directory.is_dir() => Some(Files::open(directory)?.prefix("/static").precompressed(true)),
        _ => None,
    };
    worker.stream_bodies(|request| request.path() == "/upload");
    Ok(worker.serve(move |request| match (request.path(), &files) {
        ("/baseline11", _) => baseline(request),
        ("/pipeline", _) => Response::bytes("text/plain", b"ok".as_slice()),
        ("/upload", _) => upload(request),
        ("/ws", _) => websocket(request),
        (path, Some(files)) if path.starts_with("/static/") => files.answer(request),
        (path, _) => match path.strip_prefix("/json/").and_then(|count| count.parse().ok()) {
            Some(count) => json(request, &items, count),
            None => Response::text("no such page\n").status(404),
        },
    })?)
}

/// The sum of all numbers: those of the query, and one in the body.
fn baseline(request: &Request<'_>) -> Response {
    let numbers = request.query_pairs().map(|(_, value)| value.parse::<i64>());
    let body = std::str::from_utf8(request.body()).unwrap_or("?").trim();
    let body = (!body.is_empty()).then(|| body.parse());
    let sum = numbers.chain(body).try_fold(0_i64, |sum, number| number.map(|number| sum.wrapping_add(number)));
    match (request.method(), sum) {
        ("GET" | "POST", Ok(sum)) => Response::bytes("text/plain", sum.to_string().into_bytes()),
        ("GET" | "POST", Err(error)) => Response::text(format!("{error}\n")).status(400),
        _ => Response::new(405).header("Allow", "GET, POST"),
    }
}

/// The first items, with totals for the multiplier in the query.
fn json(request: &Request<'_>, items: &[Item], count: usize) -> Response {
    let multiplier = request.query_pairs().find(|(name, _)| name == "m").map_or(Ok(1), |(_, value)| value.parse());
    let (Some(items), Ok(multiplier)) = (items.get(..count), multiplier) else {
        return Response::text("no such number of items\n").status(404);
    };
    let priced = |item| Priced { item, total: item.price * item.quantity * multiplier };
    let answer = Answer { items: items.iter().map(priced).collect(), count };
    match serde_json::to_vec(&answer) {
        Ok(text) => Response::bytes("application/json", text),
        Err(error) => Response::text(format!("{error}\n")).status(500),
    }
}

/// The length of the body, of which nothing is kept.
fn upload(request: &Request<'_>) -> Response {
    if request.method() != "POST" {
        return Response::new(405).header("Allow", "POST");
    }
    let mut length = 0;
    Response::receive(move |piece| match piece {
        Some(piece) => {
            length += piece.len();
            None
        }
        None => Some(Response::bytes("text/plain", length.to_string().into_bytes())),
    })
}

/// RFC 6455 section 4.2.
fn websocket(request: &Request<'_>) -> Response {
    match (request.header("Sec-WebSocket-Version"), request.header("Sec-WebSocket-Key")) {
        (Some("13"), Some(key)) => Response::upgrade("websocket", |stream| drop(thread::spawn(move || echo(stream))))
            .header("Sec-WebSocket-Accept", &derive_accept_key(key.as_bytes())),
        _ => Response::new(426).header("Upgrade", "websocket").header("Sec-WebSocket-Version", "13"),
    }
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
