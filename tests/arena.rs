//! The entry for HttpArena passes what that benchmark asks before it measures: each profile's answers, with numbers
//! that nobody can know in advance, in requests that arrive in pieces, and files that change while they are served.

mod support;

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;

use serde_json::{json, Value};
use support::{example, fresh_path, Server};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::CloseFrame;
use tungstenite::Message;

/// The entry, with data of its own: as many items as the benchmark has, and some files.
fn entry(name: &str) -> (Server, PathBuf) {
    let data = fresh_path(name);
    fs::create_dir_all(data.join("static")).expect("a directory");
    let items: Vec<Value> = (1..=50).map(item).collect();
    fs::write(data.join("dataset.json"), Value::from(items).to_string()).expect("a file");
    for (name, content) in [("reset.css", "* {}"), ("app.js", "go();"), ("manifest.json", "{}")] {
        fs::write(data.join("static").join(name), content).expect("a file");
    }
    let mut command = example("arena");
    command.env("ARENA_DATA", &data).env("FORKPOOL_LISTEN", "127.0.0.1:0").env("FORKPOOL_WORKERS", "2");
    (Server::start_silent(command), data)
}

fn item(id: u64) -> Value {
    let (name, price, quantity) = (format!("Item \"{id}\""), id * 31 % 500, id * 7 % 40);
    let (tags, rating) = (json!(["fast", "new"]), json!({ "score": id % 50, "count": id * 3 }));
    json!({ "id": id, "name": name, "category": "tools", "price": price, "quantity": quantity, "active": id % 3 > 0,
            "tags": tags, "rating": rating })
}

/// A number of three digits that no other run has.
fn random() -> u64 {
    let bytes = fs::read("/proc/sys/kernel/random/uuid").expect("the kernel has random numbers");
    bytes.iter().fold(0, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add((*byte).into())) % 900 + 100
}

fn post(path: &str, field: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n{field}\r\n\r\n{body}")
}

#[test]
fn numbers_are_added_and_pipelines_answered() {
    let (mut server, data) = entry("arena-baseline");
    let mut client = server.connect();
    let (a, b, body) = (random(), random(), random());
    for (a, b) in [(13, 42), (a, b)] {
        let (path, sum) = (format!("/baseline11?a={a}&b={b}"), a + b);
        let answer = client.get(&path);
        assert_eq!(
            (answer.status, answer.text(), answer.field("content-type")),
            (200, &*sum.to_string(), Some("text/plain"))
        );
        for body in [20, body] {
            let (text, sum) = (body.to_string(), (sum + body).to_string());
            client.send(post(&path, &format!("Content-Length: {}", text.len()), &text));
            let answer = client.answer();
            assert_eq!((answer.text(), answer.field("content-type")), (&*sum, Some("text/plain")));
            let chunk = format!("{:x}\r\n{text}\r\n0\r\n\r\n", text.len());
            client.send(post(&path, "Transfer-Encoding: chunked", &chunk));
            assert_eq!(client.answer().text(), sum);
        }
    }
    // In pieces of one byte, each a packet of its own.
    for request in [
        post("/baseline11?a=13&b=42", "Content-Length: 2\r\nConnection: close", "20"),
        "GET /baseline11?a=33&b=42 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".to_owned(),
    ] {
        let mut client = server.connect();
        client.stream().set_nodelay(true).expect("a socket");
        request.bytes().for_each(|byte| client.send([byte]));
        let answer = client.answer();
        assert_eq!((answer.text(), answer.closes(), client.is_closed()), ("75", true, true));
    }
    client.send("GET /pipeline HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(16));
    for _ in 0..16 {
        let answer = client.answer();
        assert_eq!((answer.status, answer.text(), answer.field("content-type")), (200, "ok", Some("text/plain")));
    }
    for (path, status) in [("/baseline11?a=x", 400), ("/nothing", 404), ("/json/51?m=1", 404), ("/json/x", 404)] {
        assert_eq!(client.get(path).status, status, "{path}");
    }
    fs::remove_dir_all(data).expect("ours");
}

#[test]
fn items_have_totals() {
    let (mut server, data) = entry("arena-json");
    let mut client = server.connect();
    for (count, multiplier) in [(12, 3), (22, 7), (31, 2), (50, 5), (1, random())] {
        let answer = client.get(&format!("/json/{count}?m={multiplier}"));
        assert_eq!(answer.field("content-type"), Some("application/json"));
        let expected = (1..=count).map(|id| {
            let mut item = item(id);
            let total = item["price"].as_u64().zip(item["quantity"].as_u64()).map(|(price, quantity)| price * quantity);
            item["total"] = (total.expect("numbers") * multiplier).into();
            item
        });
        let answer: Value = serde_json::from_str(answer.text()).expect("JSON");
        assert_eq!(answer, json!({ "items": expected.collect::<Vec<_>>(), "count": count }));
    }
    fs::remove_dir_all(data).expect("ours");
}

#[test]
fn files_are_those_of_the_directory_and_up_to_date() {
    let (mut server, data) = entry("arena-static");
    let mut client = server.connect();
    for (name, media_type) in
        [("reset.css", "text/css"), ("app.js", "text/javascript; charset=utf-8"), ("manifest.json", "application/json")]
    {
        let answer = client.get(&format!("/static/{name}"));
        let content = fs::read_to_string(data.join("static").join(name)).expect("a file");
        assert_eq!((answer.text(), answer.field("content-type")), (&*content, Some(media_type)));
    }
    assert_eq!(client.get("/static/nonexistent.txt").status, 404);
    // Often enough that the file stays open.
    (0..9).for_each(|_| drop(client.get("/static/reset.css")));
    for content in ["/* another, written in place */", "/* shorter */"] {
        fs::write(data.join("static/reset.css"), content).expect("a file");
        assert_eq!(client.get("/static/reset.css").text(), content);
    }
    fs::remove_dir_all(data).expect("ours");
}

#[test]
fn uploads_are_counted() {
    let (mut server, data) = entry("arena-upload");
    let mut client = server.connect();
    for length in [17, 48, 512_000, 2_097_152, 20_971_520] {
        client.send(post("/upload", &format!("Content-Length: {length}"), &"x".repeat(length)));
        let answer = client.answer();
        assert_eq!((answer.status, answer.text()), (200, &*length.to_string()));
    }
    fs::remove_dir_all(data).expect("ours");
}

#[test]
fn messages_come_back() {
    let (mut server, data) = entry("arena-ws");
    let port = server.port();
    let random = format!("validate-{}-{}", random(), random());
    let binary: Vec<u8> = (0..=u8::MAX).collect();
    for _ in 0..2 {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("open");
        // It checks the Sec-WebSocket-Accept.
        let (mut socket, response) =
            tungstenite::client(format!("ws://127.0.0.1:{port}/ws"), stream).expect("a handshake");
        assert_eq!(response.status(), 101);
        let mut messages = vec![Message::text(random.clone()), Message::binary(binary.clone())];
        messages.extend((0..5).map(|number| Message::text(format!("{random}-{number}"))));
        messages.iter().for_each(|message| socket.send(message.clone()).expect("open"));
        messages.iter().for_each(|message| assert_eq!(&socket.read().expect("an echo"), message));
        let close = CloseFrame { code: CloseCode::Normal, reason: "validate done".into() };
        socket.close(Some(close)).expect("open");
        let Message::Close(Some(answer)) = socket.read().expect("a close") else { panic!("no close") };
        assert_eq!(answer.code, CloseCode::Normal);
        assert_eq!(server.get("/ws").status, 426);
    }
    fs::remove_dir_all(data).expect("ours");
}
