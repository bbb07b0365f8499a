//! cargo run --release --example raw_tls -- PORT CERTIFICATE KEY: the limit for any server on rustls. Like `raw` it
//! answers whatever ends in an empty line, takes flights of the handshake and requests to come whole, and checks
//! nothing.

use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;

use memchr::memmem;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use nix::sys::resource::{getrlimit, setrlimit, Resource};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::ServerConfig;
use slab::Slab;

const LISTENER: Token = Token(usize::MAX);
const RECORD: usize = 16 * 1024;
/// So much is sealed before it is sent.
const ROOM: usize = 4 * (RECORD + 128);

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, port, certificate, key] = &arguments[..] else { return Err("usage: raw_tls PORT CERTIFICATE KEY".into()) };
    let (_, limit) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, limit, limit)?;
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<Vec<_>, _>>()?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions()?.with_no_client_auth();
    let mut config = config.with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    config.ticketer = ring::Ticketer::new()?;
    let config = Arc::new(config);
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    listener.set_reuse_address(true)?;
    listener.set_nonblocking(true)?;
    // Accepted sockets inherit it (tcp(7)).
    listener.set_tcp_nodelay(true)?;
    listener.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], port.parse()?)).into())?;
    listener.listen(4096)?;
    let mut listener = TcpListener::from_std(listener.into());
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(1024));
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let answers = [("/16k ", 16 << 10), ("/1m ", 1 << 20), ("", 13)].map(|(path, len)| (path, answer(len)));
    let mut connections: Slab<Connection> = Slab::new();
    let mut buffers = Buffers { input: vec![0; 64 * 1024], output: vec![0; ROOM] };
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result?,
        }
        for event in &events {
            match event.token() {
                LISTENER => accept(&listener, &poll, &mut connections, &config)?,
                Token(index) => {
                    let connection = connections.get_mut(index);
                    if connection.is_some_and(|it| !it.proceed(&answers, &mut buffers)) {
                        connections.remove(index);
                    }
                }
            }
        }
    }
}

type Answers = [(&'static str, Vec<u8>)];

fn answer(len: usize) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nServer: raw\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Type: text/plain\r\n\
        Content-Length: {len}\r\n\r\n"
    );
    [head.as_bytes(), &vec![b'x'; len]].concat()
}

fn accept(
    listener: &TcpListener,
    poll: &Poll,
    connections: &mut Slab<Connection>,
    config: &Arc<ServerConfig>,
) -> Result<(), Box<dyn Error>> {
    loop {
        match listener.accept() {
            Ok((mut stream, _)) => {
                let entry = connections.vacant_entry();
                let interest = Interest::READABLE | Interest::WRITABLE;
                poll.registry().register(&mut stream, Token(entry.key()), interest)?;
                let session = UnbufferedServerConnection::new(Arc::clone(config))?;
                let (pending, rest, is_last) = (Vec::new(), None, false);
                entry.insert(Connection { stream, session, pending, rest, is_last });
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

struct Buffers {
    input: Vec<u8>,
    output: Vec<u8>,
}

struct Connection {
    stream: TcpStream,
    session: UnbufferedServerConnection,
    /// Records that the socket has not accepted.
    pending: Vec<u8>,
    /// The answer that is not sealed whole: which one, and from where on.
    rest: Option<(usize, usize)>,
    is_last: bool,
}

impl Connection {
    /// Returns whether it stays open.
    fn proceed(&mut self, answers: &Answers, buffers: &mut Buffers) -> bool {
        if !self.pending.is_empty() || self.rest.is_some() {
            let pending = std::mem::take(&mut self.pending);
            if !self.send(&pending) {
                return false;
            }
            if !self.pending.is_empty() {
                return true;
            }
            if self.rest.is_some() {
                return self.process(0, answers, buffers);
            }
            if self.is_last {
                return false;
            }
        }
        match self.stream.read(&mut buffers.input) {
            Ok(len @ 1..) => self.process(len, answers, buffers),
            Err(error) if error.kind() == ErrorKind::WouldBlock => true,
            _ => false,
        }
    }

    fn process(&mut self, mut len: usize, answers: &Answers, Buffers { input, output }: &mut Buffers) -> bool {
        loop {
            let (mut start, mut sealed) = (0, 0);
            loop {
                let UnbufferedStatus { discard, state } = self.session.process_tls_records(&mut input[start..len]);
                match state {
                    Ok(ConnectionState::EncodeTlsData(mut data)) => {
                        sealed += data.encode(&mut output[sealed..]).unwrap_or(0);
                    }
                    Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                    Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                        while let Some(Ok(record)) = traffic.next_record() {
                            let text = record.payload;
                            self.is_last = memmem::find(text, b"\r\nConnection: close\r\n").is_some();
                            let path = text.get(4..).unwrap_or_default();
                            let which = answers.iter().position(|(prefix, _)| path.starts_with(prefix.as_bytes()));
                            self.rest = which.filter(|_| text.ends_with(b"\r\n\r\n")).map(|which| (which, 0));
                        }
                    }
                    Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                        while let Some((which, from)) = self.rest {
                            let answer = &answers[which].1;
                            let end = answer.len().min(from + RECORD);
                            let Ok(written) = traffic.encrypt(&answer[from..end], &mut output[sealed..]) else { break };
                            sealed += written;
                            self.rest = (end < answer.len()).then_some((which, end));
                        }
                        if self.is_last && self.rest.is_none() {
                            sealed += traffic.queue_close_notify(&mut output[sealed..]).unwrap_or(0);
                        }
                        break;
                    }
                    Ok(ConnectionState::BlockedHandshake) => break,
                    _ => return false,
                }
                start += discard;
            }
            if !self.send(&output[..sealed]) {
                return false;
            }
            if self.rest.is_none() || !self.pending.is_empty() {
                return !self.is_last || self.rest.is_some() || !self.pending.is_empty();
            }
            len = 0;
        }
    }

    fn send(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.pending = bytes.to_vec();
                    return true;
                }
                Err(_) => return false,
            }
        }
        true
    }
}
