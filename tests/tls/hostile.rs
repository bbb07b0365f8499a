//! Clients that send at the wrong time, too little, or too much.

use std::io::{Read, Write};
use std::net::TcpStream;

use nix::sys::signal::Signal;
use rustls::version::TLS13;
use rustls::{AlertDescription, Error};

use crate::browser::{address, file, testbed, Browser, BOTH};
use crate::support::{example, fresh_path, Client, Server, DEADLINE};

#[test]
fn a_client_that_still_sends_http_learns_that_it_lacks_tls() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "1")]);
    let mut socket = TcpStream::connect(address(&mut server)).expect("it listens");
    socket.set_read_timeout(Some(DEADLINE)).expect("a socket");
    let body = vec![b'x'; 4_000_000];
    socket
        .write_all(format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes())
        .expect("sent");
    socket.write_all(&body).expect("it is read");
    assert_eq!(Client::new(socket).answer().status, 400);
}

#[test]
fn a_client_that_still_sends_learns_that_its_certificate_is_missing() {
    for version in BOTH {
        let ca = file("ca.pem");
        let mut server = testbed(&[
            ("FORKPOOL_WORKERS", "1"),
            ("FORKPOOL_TLS_CLIENT_CA", &ca),
            ("FORKPOOL_TLS_CLIENT_AUTH", "require"),
        ]);
        let address = address(&mut server);
        let error = match Browser::new(&[version]).try_connect(address, "localhost") {
            // With TLS 1.3 the client is through before the server is.
            Ok(client) => {
                let mut tls = client.into_stream();
                tls.write_all(&vec![b'x'; 20_000_000]).expect("it is read");
                tls.read(&mut [0]).expect_err("it is refused")
            }
            Err(error) => error,
        };
        let error = error.into_inner().and_then(|inner| inner.downcast::<Error>().ok()).expect("an alert");
        assert_eq!(*error, Error::AlertReceived(AlertDescription::CertificateRequired));
    }
}

#[test]
fn a_part_of_a_record_delays_no_drain_of_an_upgraded_connection() {
    let path = fresh_path("tls.websocket");
    let mut command = example("websocket");
    command
        .env("FORKPOOL_WORKERS", "1")
        .env("FORKPOOL_LISTEN", format!("unix:{}", path.display()))
        .env("FORKPOOL_TLS_LISTEN", "127.0.0.1:0")
        .env("FORKPOOL_TLS_CERTIFICATE", file("a.pem"))
        .env("FORKPOOL_TLS_KEY", file("a.key"))
        .env("FORKPOOL_DRAIN_TIMEOUT", "1h");
    let mut server = Server::start_silent(command);
    let mut client = Browser::new(&[&TLS13]).connect(([127, 0, 0, 1], server.port()).into());
    client.send(
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    assert_eq!(client.answer_to_head().status, 101);
    // An empty text comes back, so the application reads.
    client.send([0x81, 0x80, 0, 0, 0, 0]);
    let mut head = [0; 2];
    client.read(&mut head);
    assert_eq!(head, [0x81, 0]);
    (&client.stream().sock).write_all(b"\x17\x03\x03\x01\x00half").expect("sent");
    server.signal(Signal::SIGHUP);
    client.read(&mut head);
    assert_eq!(head[0], 0x88, "the application was told, and says that it leaves");
}
