//! Sessions in memory, with a client of the library.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};

use super::endpoint::Endpoint;
use super::fuzzing;
use super::session::{TlsSession, OVERHEAD, RECORD};
use super::stream::Stream;
use crate::shared::random::random_below;
use crate::shared::tls::TlsVersion;

fn client(version: &'static SupportedProtocolVersion) -> ClientConnection {
    client_offering(version, &[])
}

fn client_offering(version: &'static SupportedProtocolVersion, protocols: &[&[u8]]) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    let authority = include_bytes!("../../../tests/certificates/ca.pem");
    roots.add(CertificateDer::from_pem_slice(authority).expect("PEM")).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).expect("a version");
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let name = ServerName::try_from("X.a.example").expect("a name");
    ClientConnection::new(Arc::new(config), name).expect("a configuration")
}

/// What a client wants to send.
fn sent(client: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).expect("memory");
    }
    bytes
}

fn give(client: &mut ClientConnection, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        client.read_tls(&mut bytes).expect("memory");
        client.process_new_packets().expect("valid records");
    }
}

/// Passes bytes to the session in pieces; returns the plaintext.
fn pass(session: &mut TlsSession, bytes: &[u8], piece: usize, room: usize) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut place = vec![0; room];
    for piece in bytes.chunks(piece) {
        let mut fresh = piece.to_vec();
        loop {
            let count = session.receive(&mut fresh, &mut place).expect("valid records");
            plain.extend_from_slice(&place[..count]);
            fresh.clear();
            if !session.has_more() {
                break;
            }
        }
    }
    plain
}

#[test]
fn a_session_lives_in_memory_whatever_the_pieces() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for (piece, room) in [(1, 10), (7, 100), (1000, 16 * 1024), (100_000, 1), (100_000, 100_000)] {
            let (mut client, mut session) = (client(version), fuzzing::session());
            while client.is_handshaking() {
                let bytes = sent(&mut client);
                assert_eq!(pass(&mut session, &bytes, piece, room), b"");
                give(&mut client, &session.take_outgoing());
            }
            assert_eq!(pass(&mut session, &sent(&mut client), piece, room), b"");
            give(&mut client, &session.take_outgoing());
            let info = session.info().expect("the handshake is done").clone();
            let is_13 = info.version() == TlsVersion::Tls13;
            assert_eq!(
                (info.server_name(), is_13),
                (Some("x.a.example"), client.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3))
            );
            assert_eq!((session.held(), session.has_more()), (0, false), "an idle session holds nothing");
            // There and back.
            let text: Vec<u8> = (0..50_000_u32).map(|at| at as u8).collect();
            client.writer().write_all(&text).expect("memory");
            assert!(pass(&mut session, &sent(&mut client), piece, room) == text);
            assert_eq!(session.held(), 0);
            let mut rest = &text[..];
            let mut got = Vec::new();
            while !rest.is_empty() {
                let mut out = vec![0; 2 * (RECORD + OVERHEAD)];
                let (taken, len) = session.seal(rest, &mut out).expect("an open session");
                rest = &rest[taken..];
                give(&mut client, &out[..len]);
                got.resize(got.len() + taken, 0);
                let start = got.len() - taken;
                client.reader().read_exact(&mut got[start..]).expect("plaintext");
            }
            assert!(got == text);
            // Both say goodbye.
            client.send_close_notify();
            assert_eq!(pass(&mut session, &sent(&mut client), piece, room), b"");
            assert!(session.is_closed());
            let mut alert = Vec::new();
            session.close(&mut alert).expect("an open session");
            give(&mut client, &alert);
            assert_eq!(client.reader().read(&mut [0]).expect("an end"), 0);
        }
    }
}

#[test]
fn a_client_may_change_the_keys_of_a_session() {
    let (mut client, mut session) = (client(&rustls::version::TLS13), fuzzing::session());
    let mut room = [0; 1000];
    while client.is_handshaking() || session.is_handshaking() {
        session.receive(&mut sent(&mut client), &mut room).expect("valid records");
        give(&mut client, &session.take_outgoing());
    }
    for turn in 0..3 {
        client.refresh_traffic_keys().expect("TLS 1.3");
        client.writer().write_all(b"ping").expect("memory");
        let count = session.receive(&mut sent(&mut client), &mut room).expect("valid records");
        assert_eq!(&room[..count], b"ping", "{turn}");
        // The answer to the change comes before what is sealed by its keys.
        let mut sealed = [0; 1000];
        let (_, len) = session.seal(b"pong", &mut sealed).expect("an open session");
        give(&mut client, &[&session.take_outgoing()[..], &sealed[..len]].concat());
        let mut got = [0; 4];
        client.reader().read_exact(&mut got).expect("plaintext");
        assert_eq!(&got, b"pong");
    }
}

/// What was there when an error came goes out as well: here the server has said hello already.
#[test]
fn an_alert_comes_after_what_was_there_before_it() {
    let (mut client, mut session) = (client_offering(&rustls::version::TLS13, &[b"h3"]), fuzzing::session());
    session.receive(&mut sent(&mut client), &mut [0; 10]).expect_err("nothing in common");
    let outgoing = session.take_outgoing();
    let mut out = &outgoing[..];
    client.read_tls(&mut out).expect("memory");
    let error = client.process_new_packets().expect_err("an alert");
    assert_eq!(error, rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol));
}

#[test]
fn damage_anywhere_is_an_error_or_waits_and_never_a_panic() {
    let mut draw = random_below(7);
    let mut random = move |below: usize| draw(below as u64) as usize;
    for round in 0..300 {
        let version = [&rustls::version::TLS12, &rustls::version::TLS13][round % 2];
        let (mut client, mut session) = (client(version), fuzzing::session());
        let mut flights = random(4);
        let mut room = vec![0; 1 + random(20_000)];
        let mut is_failed = false;
        for _ in 0..6 {
            let mut bytes = if client.is_handshaking() { sent(&mut client) } else { Vec::new() };
            if flights == 0 && !bytes.is_empty() {
                for _ in 0..1 + random(3) {
                    let at = random(bytes.len());
                    match random(3) {
                        0 => bytes[at] ^= 1 << random(8),
                        1 => bytes.truncate(at + 1),
                        _ => bytes.insert(at, random(256) as u8),
                    }
                }
            }
            flights = flights.wrapping_sub(1);
            for piece in bytes.chunks(1 + random(2000)) {
                let received = session.receive(&mut piece.to_vec(), &mut room);
                is_failed |= received.is_err();
            }
            let mut out = session.take_outgoing();
            while !is_failed && !out.is_empty() {
                let mut rest = &out[..];
                client.read_tls(&mut rest).expect("memory");
                out = rest.to_vec();
                if client.process_new_packets().is_err() {
                    is_failed = true;
                }
            }
            if is_failed {
                // A failed session seals nothing, and does not panic.
                let _ = session.seal(b"x", &mut vec![0; RECORD]);
                let _ = session.close(&mut Vec::new());
                break;
            }
        }
    }
}

#[test]
fn the_fuzzer_s_target_runs() {
    let hello = [&[20, 60][..], &sent(&mut client(&rustls::version::TLS13))].concat();
    fuzzing::fuzz(&hello);
    for at in 0..hello.len() {
        fuzzing::fuzz(&hello[..at]);
        let mut damaged = hello.clone();
        damaged[at] ^= 0x81;
        fuzzing::fuzz(&damaged);
    }
}

/// A stream whose handshake is done, with its client.
fn connected() -> (Stream, ClientConnection, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("an address");
    let mut socket = TcpStream::connect(listener.local_addr().expect("an address")).expect("it listens");
    let (accepted, _) = listener.accept().expect("a connection");
    accepted.set_nonblocking(true).expect("a socket");
    let endpoint = Rc::new(Endpoint::new(fuzzing::config(), Vec::new(), 1, String::new()));
    let mut stream = Stream::new(mio::net::TcpStream::from_std(accepted), Rc::clone(&endpoint)).expect("a session");
    let mut client = client(&rustls::version::TLS13);
    while client.is_handshaking() {
        socket.write_all(&sent(&mut client)).expect("sent");
        let mut bytes = vec![0; 16 * 1024];
        let count = until(&mut stream, &endpoint, |stream| {
            assert_eq!(stream.read(&mut [0; 10]).expect_err("no data").kind(), ErrorKind::WouldBlock);
            socket.set_nonblocking(true).expect("a socket");
            let count = socket.read(&mut bytes);
            socket.set_nonblocking(false).expect("a socket");
            count.ok()
        });
        give(&mut client, &bytes[..count]);
    }
    socket.write_all(&sent(&mut client)).expect("sent");
    until(&mut stream, &endpoint, |stream| {
        assert_eq!(stream.read(&mut [0; 10]).expect_err("no data").kind(), ErrorKind::WouldBlock);
        stream.info().is_some().then_some(())
    });
    (stream, client, socket)
}

/// Asks in each turn until there is an answer.
fn until<T>(stream: &mut Stream, endpoint: &Endpoint, mut ask: impl FnMut(&mut Stream) -> Option<T>) -> T {
    loop {
        endpoint.begin_turn();
        if let Some(answer) = ask(stream) {
            return answer;
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_goodbye_waits_for_a_socket_that_is_full() {
    let (mut stream, mut client, mut socket) = connected();
    let mut filler = TcpStream::from(stream.as_fd().try_clone_to_owned().expect("a descriptor"));
    let mut filled = 0;
    while let Ok(count) = filler.write(&[0; 1000]) {
        filled += count;
    }
    stream.shutdown(Shutdown::Write).expect("an open socket");
    assert!(stream.wants_write());
    socket.read_exact(&mut vec![0; filled]).expect("what fills it");
    while stream.wants_write() {
        assert_eq!(stream.read(&mut [0; 10]).expect_err("no data").kind(), ErrorKind::WouldBlock);
    }
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).expect("the end");
    give(&mut client, &rest);
    assert_eq!(client.reader().read(&mut [0]).expect("a clean end"), 0);
}
