//! Bodies that a thread of the application reads as they arrive.

use std::io::{ErrorKind, Write};

use super::support::{example, Server};

fn reader(variables: &[(&str, &str)]) -> Server {
    let mut command = example("reader");
    command.env("FORKPOOL_WORKERS", "1").envs(variables.iter().copied());
    Server::start_silent(command)
}

fn head(target: &str, length: usize) -> String {
    format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n")
}

#[test]
fn a_thread_reads_bodies_of_every_framing_on_one_connection() {
    let mut server = reader(&[]);
    let mut client = server.connect();
    client.send(head("/count", 0) + &head("/count", 3) + "abc");
    assert_eq!(client.answer().text(), "0 bytes");
    assert_eq!(client.answer().text(), "3 bytes");
    client.send("POST /count HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.answer().status, 100);
    let piece = "x".repeat(1 << 20);
    (0..8).for_each(|_| client.send(format!("{:x}\r\n{piece}\r\n", piece.len())));
    client.send("0\r\n\r\n");
    assert_eq!(client.answer().text(), format!("{} bytes", 8 << 20));
    // A body that has arrived with its head, of a request that was not chosen.
    client.send("PUT /count HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nabcd");
    assert_eq!(client.answer().text(), "4 bytes");
}

#[test]
fn a_client_waits_for_a_reader_that_pauses() {
    let mut server = reader(&[]);
    let mut client = server.connect();
    client.send("POST /gated HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    let piece = [b'x'; 1 << 16];
    client.stream().set_nonblocking(true).expect("a socket");
    // Until no buffer between the client and the reader has space: the kernel's are limited, and so is the worker's.
    let (mut sent, mut refusals, mut rest) = (0_usize, 0, Vec::new());
    while refusals < 20 {
        if rest.is_empty() {
            rest = [format!("{:x}\r\n", piece.len()).as_bytes(), &piece, b"\r\n"].concat();
        }
        match client.stream().write(&rest) {
            Ok(count) => {
                rest.drain(..count);
                (sent, refusals) = (sent + count, 0);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                refusals += 1;
                // A request of another client shows that the worker is not blocked, and has had its turns.
                assert_eq!(server.get("/nothing").status, 404);
            }
            Err(error) => panic!("{error}"),
        }
        assert!(sent < 256 << 20, "the worker reads although nobody takes it");
    }
    client.stream().set_nonblocking(false).expect("a socket");
    assert_eq!(server.get("/open").text(), "open\n");
    client.send(&rest);
    client.send("0\r\n\r\n");
    let answer = client.answer();
    assert_eq!(answer.status, 200);
    let read: usize = answer.text().trim_end_matches(" bytes").parse().expect("a number");
    assert!(read >= sent / (piece.len() + 16) * piece.len() && read % piece.len() == 0, "{read} of {sent}");
    assert_eq!(server.get("/nothing").status, 404);
}

#[test]
fn a_reader_that_is_dropped_refuses_the_rest() {
    let mut server = reader(&[]);
    let mut client = server.connect();
    client.send(head("/first", 1 << 30) + "one\ntwo\n");
    let answer = client.answer();
    assert_eq!((answer.text(), answer.closes()), ("one\n", true));
    let mut client = server.connect();
    client.send(head("/none", 1 << 30));
    let answer = client.answer();
    assert_eq!((answer.text(), answer.closes()), ("unread", true));
    client.stream().shutdown(std::net::Shutdown::Write).expect("connected");
    assert!(client.is_closed());
}

#[test]
fn half_a_body_never_looks_whole() {
    let mut server = reader(&[("FORKPOOL_BODY_TIMEOUT", "300ms")]);
    let mut client = server.connect();
    client.send("POST /count HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nx\r\n");
    assert_eq!(client.answer().status, 400);
    server.wait_for("not sent the whole body");
    let mut client = server.connect();
    client.send(head("/count", 9) + "abc");
    assert_eq!(client.answer().status, 408);
    server.wait_for("for nobody");
    let mut client = server.connect();
    client.send(head("/count", 9) + "abc");
    drop(client);
    server.wait_for("not sent the whole body");
}

#[test]
fn a_reader_that_pauses_too_long_costs_its_client_a_504() {
    let mut server = reader(&[("FORKPOOL_ANSWER_TIMEOUT", "300ms")]);
    let mut client = server.connect();
    client.send(head("/gated", 1 << 30));
    client.send("x".repeat(1 << 20));
    let answer = client.answer();
    assert_eq!((answer.status, answer.closes()), (504, true));
    assert_eq!(server.get("/open").status, 200);
    server.wait_for("not sent the whole body");
}

#[test]
fn reading_in_the_handler_is_an_error_that_names_the_cure() {
    let mut server = reader(&[]);
    assert!(server.get("/here").text().contains("move the BodyReader to another thread"));
}

#[test]
fn a_form_with_files_goes_through_a_multipart_parser() {
    let mut command = example("multipart");
    command.env("FORKPOOL_WORKERS", "1");
    let mut server = Server::start_silent(command);
    let file = "x".repeat(3 << 20);
    let form = format!(
        "--b\r\nContent-Disposition: form-data; name=\"title\"\r\n\r\nhello\r\n--b\r\n\
         Content-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n{file}\r\n--b--\r\n"
    );
    let mut client = server.connect();
    for _ in 0..2 {
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: {}\r\n\r\n{form}",
            form.len()
        ));
        assert_eq!(client.answer().text(), format!("title: 5 bytes\nfile: {} bytes\n", file.len()));
    }
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.answer().status, 415);
}
