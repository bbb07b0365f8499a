//! Every kind of response that a handler can return, as its client sees it.

#[path = "answers/reading.rs"]
mod reading;
mod support;

use std::io::{ErrorKind, Read};
use std::net::{Shutdown, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;
use support::{example, fresh_path, until, Client, Server};

fn answers(variables: &[(&str, &str)]) -> Server {
    let mut command = example("answers");
    command.env("FORKPOOL_WORKERS", "1").envs(variables.iter().copied());
    Server::start_silent(command)
}

#[test]
fn response_methods_set_their_header_fields() {
    let mut server = answers(&[]);
    let mut client = server.connect();
    for (target, status, field, value) in [
        ("/text", 200, "content-type", "text/plain; charset=utf-8"),
        ("/json", 200, "content-type", "application/json"),
        ("/redirect", 303, "location", "/text"),
    ] {
        let answer = client.get(target);
        assert_eq!((answer.status, answer.field(field)), (status, Some(value)), "{target}");
    }
}

#[test]
fn a_deferred_response_does_not_delay_other_clients() {
    let mut server = answers(&[]);
    let mut late = server.connect();
    // The requests behind it keep their order.
    late.send("GET /deferred?200 HTTP/1.1\r\nHost: a\r\n\r\nGET /json HTTP/1.1\r\nHost: a\r\n\r\n");
    for _ in 0..10 {
        assert_eq!(server.get("/text").text(), "plain\n");
    }
    assert_eq!(late.answer().text(), "made elsewhere\n");
    assert_eq!(late.answer().text(), r#"{"kind":"json"}"#);
    assert_eq!(late.get("/deferred?0").text(), "made elsewhere\n");
}

#[test]
fn early_hints_come_before_the_response_and_not_over_http_1_0() {
    let mut server = answers(&[]);
    for (request, has_hints) in [
        ("GET /hints HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", true),
        ("HEAD /hints HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", true),
        ("GET /hints HTTP/1.0\r\n\r\n", false),
    ] {
        let mut client = server.connect();
        client.send(request);
        let answer = String::from_utf8(client.rest()).expect("text");
        let hints = "HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload; as=style\r\n\r\n";
        let rest = answer.strip_prefix(hints);
        assert_eq!(rest.is_some(), has_hints, "{request}: {answer}");
        let rest = rest.unwrap_or(&answer);
        assert!(rest.starts_with("HTTP/1.1 200 OK\r\n") && !rest.contains("103"), "{request}: {answer}");
        assert_eq!(rest.ends_with("\r\n\r\n<p>hinted\n"), request.starts_with("GET"), "{request}: {answer}");
    }
    // The connection goes on in step.
    let mut client = server.connect();
    client.send("GET /hints HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2));
    for _ in 0..2 {
        assert_eq!(client.answer().status, 103);
        assert_eq!(client.answer().text(), "<p>hinted\n");
    }
    assert_eq!(client.get("/text").text(), "plain\n");
}

#[test]
fn trailers_are_sent_to_clients_that_accept_them() {
    let mut server = answers(&[]);
    for (version, fields, has_trailers) in [
        ("1.1", "TE: trailers\r\nConnection: close, TE\r\n", true),
        ("1.1", "TE: deflate;q=0.5, Trailers\r\nConnection: close, TE\r\n", true),
        ("1.1", "TE: gzip\r\nTE: trailers\r\nConnection: close, TE\r\n", true),
        ("1.1", "TE: gzip\r\nConnection: close, TE\r\n", false),
        ("1.1", "Connection: close\r\n", false),
        ("1.0", "TE: trailers\r\n", false),
    ] {
        let mut client = server.connect();
        client.send(format!("GET /trailers HTTP/{version}\r\nHost: a\r\n{fields}\r\n"));
        let answer = String::from_utf8(client.rest()).expect("text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert_eq!(head.contains("\r\nTrailer: Server-Timing"), has_trailers, "{fields}: {answer}");
        let expected = match (version, has_trailers) {
            ("1.0", _) => "timed\n",
            (_, true) => "6\r\ntimed\n\r\n0\r\nServer-Timing: made;dur=1\r\n\r\n",
            (_, false) => "6\r\ntimed\n\r\n0\r\n\r\n",
        };
        assert_eq!(body, expected, "{fields}: {answer}");
    }
    // Nothing is left over for the next request.
    let mut client = server.connect();
    client.send("GET /trailers HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n");
    client.send("GET /trailers HTTP/1.1\r\nHost: a\r\n\r\nGET /text HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let all = String::from_utf8(client.rest()).expect("text");
    assert_eq!(all.matches("Server-Timing: ").count(), 1, "{all}");
    assert!(all.ends_with("plain\n"), "{all}");
}

#[test]
fn a_handler_s_own_426_names_the_protocol() {
    let mut server = answers(&[]);
    let mut client = server.connect();
    client.send("GET /required HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let answer = String::from_utf8(client.rest()).expect("text");
    assert!(answer.starts_with("HTTP/1.1 426 Upgrade Required\r\n"), "{answer}");
    for line in ["Upgrade: shout", "Connection: Upgrade", "Connection: close"] {
        assert!(answer.contains(&format!("\r\n{line}\r\n")), "{line}: {answer}");
    }
}

#[test]
fn a_client_that_has_sent_its_last_request_gets_every_answer() {
    let (path, bytes) = file(20_000);
    let mut server = answers(&[("ANSWERS_FILE", path.to_str().expect("UTF-8"))]);
    let mut client = server.connect();
    // Its end of file is there before the first of the files, each of which takes more than one step.
    client.send("GET /deferred?100 HTTP/1.1\r\nHost: a\r\n\r\n");
    client.send("GET /file HTTP/1.1\r\nHost: a\r\n\r\n".repeat(4));
    client.stream().shutdown(Shutdown::Write).expect("connected");
    assert_eq!(client.answer().text(), "made elsewhere\n");
    for number in 0..4 {
        assert!(client.answer().body == bytes, "file {number}");
    }
    assert!(client.is_closed());
    std::fs::remove_file(path).expect("the file");
}

#[test]
fn a_forgotten_answer_is_a_500() {
    let mut server = answers(&[]);
    let mut client = server.connect();
    assert_eq!(client.get("/forgotten").status, 500);
    assert_eq!(client.get("/text").status, 200);
}

#[test]
fn a_worker_serves_on_after_clients_have_disconnected() {
    let mut server = answers(&[]);
    for target in ["/deferred?50", "/stream?100000000", "/large"] {
        let mut gone = server.connect();
        gone.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        drop(gone);
        assert_eq!(server.get("/text").text(), "plain\n", "{target}");
    }
}

#[test]
fn a_large_body_arrives_whole() {
    let mut server = answers(&[]);
    let mut client = server.connect();
    client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\nGET /text HTTP/1.1\r\nHost: a\r\n\r\n");
    let large = client.answer();
    assert!(large.body.len() == 8 << 20 && large.body.iter().all(|byte| *byte == b'x'));
    assert_eq!(client.answer().text(), "plain\n");
}

#[test]
fn a_stream_is_chunked_for_1_1_and_ends_with_the_connection_for_1_0() {
    let mut server = answers(&[]);
    let mut client = server.connect();
    for size in [0, 10, 1_000_000] {
        let answer = client.get(&format!("/stream?{size}"));
        assert_eq!(answer.field("transfer-encoding"), Some("chunked"));
        assert!(answer.body.len() == size && answer.body.iter().all(|byte| *byte == b's'), "{size}");
    }
    client.send("HEAD /stream?10 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer_to_head().status, 200);
    client.send("GET /stream?100000 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let answer = client.answer();
    assert!(answer.closes() && answer.field("transfer-encoding").is_none());
    assert_eq!(client.rest().len(), 100_000);
}

#[test]
fn a_broken_stream_does_not_end_like_a_complete_one() {
    let mut server = answers(&[]);
    let mut client = server.connect();
    client.send("GET /broken HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.try_answer(false).is_err());
}

#[test]
fn a_connection_whose_client_reads_nothing_is_reset() {
    let mut server = answers(&[("FORKPOOL_WRITE_TIMEOUT", "50ms")]);
    // By its chunks where it has some; where only the end of the connection would tell, by a reset.
    let mut client = server.connect();
    client.send("GET /stream?8000000 HTTP/1.0\r\n\r\n");
    let error = until("it is broken off", || client.stream().take_error().expect("it is open"));
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_broken_stream_that_only_the_connection_delimits_is_reset() {
    let mut server = answers(&[]);
    let mut client = server.connect();
    client.send("GET /broken HTTP/1.0\r\n\r\n");
    let end = client.into_stream().read_to_end(&mut Vec::new());
    assert_eq!(end.expect_err("it is broken off").kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_drain_waits_for_unfinished_responses() {
    // More each time that the answer has come before the drain has begun.
    let mut millis = 300;
    until("a drain begins before the answer comes", || {
        let mut server = answers(&[("FORKPOOL_DRAIN_TIMEOUT", "1h")]);
        let mut client = server.connect();
        client.send("GET /text HTTP/1.1\r\nHost: a\r\n\r\n");
        client.answer();
        client.send(format!("GET /deferred?{millis} HTTP/1.1\r\nHost: a\r\n\r\n"));
        // Behind a second request on another connection, the first has surely been read.
        server.get("/text");
        server.signal(Signal::SIGTERM);
        let answer = client.answer();
        assert_eq!(answer.text(), "made elsewhere\n");
        assert_eq!(server.wait().code(), Some(0));
        millis *= 2;
        answer.closes().then_some(())
    });
}

/// A file in which each byte depends on its position.
fn file(len: usize) -> (PathBuf, Vec<u8>) {
    let path = fresh_path(&format!("file-{len}.txt"));
    let bytes: Vec<u8> = (0..len).map(|n| b'a' + (n % 26) as u8).collect();
    std::fs::write(&path, &bytes).expect("a file");
    (path, bytes)
}

fn ask(client: &mut Client<TcpStream>, fields: &str) -> support::Answer {
    client.send(format!("GET /file HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    client.answer()
}

#[test]
fn files_are_sent_whole_and_in_ranges() {
    // Small enough to be copied, and large enough to be sent by the kernel.
    for len in [1000, 3_000_000] {
        let (path, bytes) = file(len);
        let mut server = answers(&[("ANSWERS_FILE", path.to_str().expect("UTF-8"))]);
        let mut client = server.connect();
        let whole = ask(&mut client, "");
        assert_eq!((whole.status, whole.field("content-type")), (200, Some("text/plain; charset=utf-8")));
        assert_eq!(whole.field("accept-ranges"), Some("bytes"));
        assert!(whole.body == bytes, "{len}");
        let last = len - 1;
        for (range, start, end) in [("0-0", 0, 1), ("5-", 5, len), ("-7", len - 7, len), ("10-99", 10, 100)] {
            let part = ask(&mut client, &format!("Range: bytes={range}\r\n"));
            assert_eq!(part.status, 206, "{range}");
            let content_range = format!("bytes {start}-{}/{len}", end - 1);
            assert_eq!(part.field("content-range"), Some(content_range.as_str()));
            assert!(part.body == bytes[start..end], "{range}");
        }
        let none = ask(&mut client, &format!("Range: bytes={len}-\r\n"));
        assert_eq!((none.status, none.field("content-range")), (416, Some(format!("bytes */{len}").as_str())));
        let several = ask(&mut client, &format!("Range: bytes=0-1,{last}-\r\n"));
        assert_eq!(several.status, 206);
        let boundary =
            several.field("content-type").and_then(|value| value.strip_prefix("multipart/byteranges; boundary="));
        let boundary = boundary.expect("a multipart type");
        let end = char::from(bytes[last]);
        assert_eq!(
            several.text(),
            format!(
                "\r\n--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Range: bytes 0-1/{len}\r\n\r\nab\
                 \r\n--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Range: bytes {last}-{last}/{len}\r\n\r\n{end}\
                 \r\n--{boundary}--\r\n"
            )
        );
        client.send("HEAD /file HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.answer_to_head().field("content-length"), Some(len.to_string().as_str()));
        std::fs::remove_file(path).expect("the file");
    }
}

#[test]
fn conditions_decide_what_is_sent() {
    let (path, _) = file(100);
    let mut server = answers(&[("ANSWERS_FILE", path.to_str().expect("UTF-8"))]);
    let mut client = server.connect();
    let first = ask(&mut client, "");
    let (etag, modified) = (first.field("etag").expect("a tag"), first.field("last-modified").expect("a date"));
    let old = "Sat, 01 Jan 2000 00:00:00 GMT";
    for (fields, status) in [
        (format!("If-None-Match: {etag}"), 304),
        (format!("If-None-Match: \"x,y\", W/{etag}"), 304),
        ("If-None-Match: *".to_owned(), 304),
        ("If-None-Match: \"x\"".to_owned(), 200),
        (format!("If-Modified-Since: {modified}"), 304),
        (format!("If-Modified-Since: {old}"), 200),
        ("If-Modified-Since: nonsense".to_owned(), 200),
        // The tag decides when both are there.
        (format!("If-None-Match: \"x\"\r\nIf-Modified-Since: {modified}"), 200),
        (format!("If-Match: {etag}"), 200),
        (format!("If-Match: W/{etag}"), 412),
        ("If-Match: \"x\"".to_owned(), 412),
        (format!("If-Unmodified-Since: {old}"), 412),
        (format!("If-Unmodified-Since: {modified}"), 200),
        (format!("Range: bytes=0-1\r\nIf-Range: {etag}"), 206),
        (format!("Range: bytes=0-1\r\nIf-Range: {modified}"), 206),
        ("Range: bytes=0-1\r\nIf-Range: \"x\"".to_owned(), 200),
        (format!("Range: bytes=0-1\r\nIf-Range: {old}"), 200),
        ("Range: lines=0-1".to_owned(), 200),
    ] {
        let answer = ask(&mut client, &format!("{fields}\r\n"));
        assert_eq!(answer.status, status, "{fields}");
        assert_eq!(answer.field("etag"), Some(etag), "{fields}");
    }
    std::fs::remove_file(path).expect("the file");
    assert_eq!(ask(&mut client, "").status, 404);
}

#[test]
fn a_modification_time_in_the_future_is_sent_as_now() {
    let (path, _) = file(10);
    let future = SystemTime::now() + Duration::from_secs(1 << 30);
    std::fs::File::options()
        .append(true)
        .open(&path)
        .and_then(|file| file.set_modified(future))
        .expect("the file is ours");
    let mut server = answers(&[("ANSWERS_FILE", path.to_str().expect("UTF-8"))]);
    let answer = ask(&mut server.connect(), "");
    let modified = answer.field("last-modified").expect("a date");
    assert!(httpdate::parse_http_date(modified).expect("a date") <= SystemTime::now(), "{modified}");
    std::fs::remove_file(path).expect("the file");
}

#[test]
fn only_regular_files_are_sent() {
    for path in ["/", "/dev/null", "/nowhere"] {
        let mut server = answers(&[("ANSWERS_FILE", path)]);
        assert_eq!(server.get("/file").status, 404, "{path}");
    }
    let fifo = fresh_path("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
    let mut server = answers(&[("ANSWERS_FILE", fifo.to_str().expect("UTF-8"))]);
    assert_eq!(server.get("/file").status, 404);
}

#[test]
fn an_upgraded_connection_is_the_applications() {
    let mut server = answers(&[]);
    let mut client = server.connect();
    // What comes behind the request belongs to the other protocol.
    client.send("GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: shout\r\n\r\nfirst ");
    let answer = client.answer();
    assert_eq!((answer.status, answer.field("upgrade")), (101, Some("shout")));
    client.send("second");
    client.stream().shutdown(std::net::Shutdown::Write).expect("connected");
    assert_eq!(client.rest(), b"FIRST SECOND");
    let refused = server.get("/upgrade");
    assert_eq!((refused.status, refused.field("upgrade")), (426, Some("shout")));
}

#[test]
fn events_come_as_they_are_made() {
    let mut server = Server::start_silent(example("events"));
    let mut client = server.connect();
    client.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(client.answer().field("content-type"), Some("text/event-stream"));
    let mut event = [0; 18];
    client.read(&mut event);
    assert_eq!(&event, b"event: time\ndata: ");
}

#[test]
fn websockets_echo() {
    let mut server = Server::start_silent(example("websocket"));
    let port = server.port();
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("open");
    let (mut socket, response) =
        tungstenite::client(format!("ws://127.0.0.1:{port}/"), stream).expect("a WebSocket handshake");
    assert_eq!(response.status(), 101);
    for text in ["hello", "world"] {
        socket.send(text.into()).expect("open");
        assert_eq!(socket.read().expect("an echo").to_text().expect("text"), text);
    }
    socket.close(None).expect("open");
}

/// The upload example with a directory of its own.
fn uploads(name: &str, variables: &[(&str, &str)]) -> (Server, PathBuf) {
    let directory = fresh_path(name);
    std::fs::create_dir_all(&directory).expect("a directory");
    let mut command = example("upload");
    command.env("UPLOADS", &directory).env("FORKPOOL_WORKERS", "1").envs(variables.iter().copied());
    (Server::start_silent(command), directory)
}

#[test]
fn uploads_go_to_disk_in_constant_memory() {
    let (mut server, directory) = uploads("uploads", &[]);
    let worker = server.workers()[0];
    let peak = || {
        let status = std::fs::read_to_string(format!("/proc/{worker}/status")).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a line");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number")
    };
    let mut client = server.connect();
    client.send("PUT /small HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!(client.answer().text(), "3 bytes\n");
    let before = peak();
    // Far beyond what is collected by default, by length and chunked, on one connection.
    let (piece, pieces) = ("x".repeat(1 << 20), 64);
    let length = piece.len() * pieces;
    client.send(format!("PUT /length HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"));
    assert_eq!(client.answer().status, 100);
    (0..pieces).for_each(|_| client.send(&piece));
    let answer = client.answer();
    assert_eq!((answer.status, answer.text()), (201, format!("{length} bytes\n").as_str()));
    client.send("PUT /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    (0..pieces).for_each(|_| client.send(format!("{:x}\r\n{piece}\r\n", piece.len())));
    client.send("0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().text(), format!("{length} bytes\n"));
    assert_eq!(client.answer().status, 405);
    // Each body is 64 MiB. The kernel counts per processor, and so is behind by a little on each of them.
    let more = peak().saturating_sub(before);
    assert!(more < 16 * 1024, "{more} KiB more");
    for name in ["length", "chunked"] {
        assert_eq!(std::fs::metadata(directory.join(name)).expect("a file").len(), length as u64);
    }
    std::fs::remove_dir_all(directory).expect("the directory");
}

#[test]
fn a_body_can_be_refused_before_it_comes() {
    let (mut server, directory) = uploads("refused", &[]);
    let mut client = server.connect();
    client.send("PUT /../x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 99999999\r\n\r\n");
    let answer = client.answer();
    assert_eq!((answer.status, answer.closes()), (400, true));
    assert!(client.is_closed());
    // Nor does a body that comes all the same reset the answer away, or pass for a request.
    let mut client = server.connect();
    client.send("PUT /../x HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n");
    client.send("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n".repeat(1000));
    assert_eq!(client.answer().status, 400);
    client.stream().shutdown(std::net::Shutdown::Write).expect("connected");
    assert!(client.is_closed());
    std::fs::remove_dir_all(directory).expect("the directory");
}

#[test]
fn a_body_that_is_malformed_or_stalls_is_answered() {
    let (mut server, directory) = uploads("stalls", &[("FORKPOOL_BODY_TIMEOUT", "500ms")]);
    let mut client = server.connect();
    client.send("PUT /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nx\r\n");
    assert_eq!(client.answer().status, 400);
    let mut client = server.connect();
    client.send("PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc");
    assert_eq!(client.answer().status, 408);
    std::fs::remove_dir_all(directory).expect("the directory");
}
