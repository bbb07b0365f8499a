//! Hostile clients.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use rustls::{ClientConnection, StreamOwned};

use crate::browser::{address, testbed, Browser};
use crate::support::{Client, DEADLINE};

#[test]
fn damage_ends_its_own_connection_only() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "1")]);
    let address = address(&mut server);
    let browser = Browser::new(&[&TLS13]);
    let mut kept = browser.connect(address);
    assert_eq!(kept.get("/").status, 200);
    let long = [&[22, 3, 1, 0x40, 0][..], &[1, 0, 0x3f, 0xfc], &[3; 16 * 1024]].concat();
    for bytes in [
        &b""[..],
        b"\x16",
        b"\x16\x03\x01\xff\xff",
        b"\x16\x03\x01\x00\x05hello",
        b"\x80\x2e\x01\x03\x01",
        b"\x00\x00\x00",
        b"\x15\x03\x01\x00\x02\x02\x28",
        &long,
    ] {
        let mut socket = TcpStream::connect(address).expect("it listens");
        socket.set_read_timeout(Some(DEADLINE)).expect("a socket");
        socket.write_all(bytes).expect("sent");
        // It may have been reset meanwhile.
        let _ = socket.shutdown(Shutdown::Write);
        // An alert, or the end; a reset is one, too.
        let mut rest = Vec::new();
        let _ = socket.read_to_end(&mut rest);
        assert!(rest.len() < 100, "{rest:?}");
    }
    // A record is damaged within a connection.
    let mut client = browser.connect(address);
    assert_eq!(client.get("/").status, 200);
    let mut socket = client.stream().sock.try_clone().expect("a descriptor");
    socket.write_all(b"\x17\x03\x03\x00\x20aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa").expect("sent");
    assert!(client.try_answer(false).is_err());
    // Byte by byte, a handshake takes longer and succeeds.
    let slow = Dribble(TcpStream::connect(address).expect("it listens"));
    slow.0.set_read_timeout(Some(DEADLINE)).expect("a socket");
    let name = ServerName::try_from("localhost").expect("a name");
    let connection = ClientConnection::new(Arc::clone(&browser.0), name).expect("a configuration");
    let mut client = Client::new(StreamOwned::new(connection, slow));
    assert_eq!(client.get("/").status, 200);
    assert!(browser.visit(address));
    assert_eq!(kept.get("/").status, 200);
    let counted = server.log().iter().filter(|line| line.contains("panicked")).count();
    assert_eq!(counted, 0);
}

#[test]
fn a_handshake_has_the_time_of_a_head() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "1"), ("FORKPOOL_HEAD_TIMEOUT", "1s")]);
    let address = address(&mut server);
    for bytes in [&b""[..], b"\x16", b"\x16\x03\x01\x40\x00", b"\x16\x03\x01\x00\x30\x01"] {
        let mut socket = TcpStream::connect(address).expect("it listens");
        socket.set_read_timeout(Some(DEADLINE)).expect("a socket");
        socket.write_all(bytes).expect("sent");
        let mut rest = Vec::new();
        let _ = socket.read_to_end(&mut rest);
        assert!(rest.is_empty(), "{rest:?}");
    }
}

/// Writes one byte at a time.
struct Dribble(TcpStream);

impl Read for Dribble {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read(bytes)
    }
}

impl Write for Dribble {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(&bytes[..1.min(bytes.len())])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
