//! A client of rustls that keeps tickets, and the testbed with HTTPS.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, NamedGroup, RootCertStore, StreamOwned, SupportedProtocolVersion,
};

use crate::support::{testbed_command, Client, Server, DEADLINE};

/// A file of `tests/certificates/`.
pub(crate) fn file(name: &str) -> String {
    format!("{}/tests/certificates/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// The testbed with HTTPS, and without TLS beside it.
pub(crate) fn testbed(variables: &[(&str, &str)]) -> Server {
    Server::start(testbed_with_tls(variables))
}

pub(crate) fn testbed_with_tls(variables: &[(&str, &str)]) -> Command {
    let mut command = testbed_command(&[]);
    command
        .env("FORKPOOL_TLS_LISTEN", "127.0.0.1:0")
        .env("FORKPOOL_TLS_CERTIFICATE", file("a.pem"))
        .env("FORKPOOL_TLS_KEY", file("a.key"))
        .envs(variables.iter().copied());
    command
}

/// The address on which a pool speaks TLS.
pub(crate) fn address(server: &mut Server) -> SocketAddr {
    let said = "listening on https://";
    let line = server.log().iter().find(|line| line.contains(said)).cloned();
    let line = line.unwrap_or_else(|| server.wait_for(said));
    let (_, rest) = line.split_once(said).expect("HTTPS");
    rest.split([' ', ',']).next().expect("an address").parse().expect("an address")
}

pub(crate) type Tls = Client<StreamOwned<ClientConnection, TcpStream>>;

/// A client that keeps tickets.
pub(crate) struct Browser(pub(crate) Arc<ClientConfig>);

/// Tickets that are offered whatever the name of the server is, so that it has to refuse those for another name.
#[derive(Debug)]
struct Tickets(ClientSessionMemoryCache);

impl Tickets {
    fn name() -> ServerName<'static> {
        ServerName::try_from("any.example").expect("a name")
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, name: ServerName<'static>, group: NamedGroup) {
        self.0.set_kx_hint(name, group);
    }

    fn kx_hint(&self, name: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.kx_hint(name)
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.0.set_tls12_session(Tickets::name(), value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.tls12_session(&Tickets::name())
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.0.remove_tls12_session(&Tickets::name());
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(Tickets::name(), value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(&Tickets::name())
    }
}

impl Browser {
    pub(crate) fn new(versions: &[&'static SupportedProtocolVersion]) -> Browser {
        Browser::with(versions, None)
    }

    /// With a certificate of its own.
    pub(crate) fn with(versions: &[&'static SupportedProtocolVersion], own: Option<&str>) -> Browser {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(file("ca.pem")).expect("PEM")).expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).expect("versions");
        let config = config.with_root_certificates(roots);
        let mut config = match own {
            Some(own) => {
                let chain = CertificateDer::pem_file_iter(file(&format!("{own}.pem"))).expect("a file");
                let key = PrivateKeyDer::from_pem_file(file(&format!("{own}.key"))).expect("a key");
                config.with_client_auth_cert(chain.collect::<Result<_, _>>().expect("PEM"), key).expect("they fit")
            }
            None => config.with_no_client_auth(),
        };
        config.resumption = Resumption::store(Arc::new(Tickets(ClientSessionMemoryCache::new(64))));
        Browser(Arc::new(config))
    }

    pub(crate) fn try_connect(&self, address: SocketAddr, name: &str) -> io::Result<Tls> {
        let socket = TcpStream::connect_timeout(&address, DEADLINE)?;
        socket.set_read_timeout(Some(DEADLINE))?;
        self.shake_hands(socket, name)
    }

    pub(crate) fn shake_hands(&self, mut socket: TcpStream, name: &str) -> io::Result<Tls> {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let mut connection = ClientConnection::new(Arc::clone(&self.0), name).expect("a configuration");
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        Ok(Client::new(StreamOwned::new(connection, socket)))
    }

    #[track_caller]
    pub(crate) fn connect(&self, address: SocketAddr) -> Tls {
        self.try_connect(address, "localhost").expect("a handshake")
    }

    /// Makes a request on a connection of its own; returns whether the session was resumed.
    #[track_caller]
    pub(crate) fn visit(&self, address: SocketAddr) -> bool {
        let mut client = self.connect(address);
        assert_eq!(client.get("/").status, 200);
        client.stream().conn.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The certificate that is shown for a name.
    #[track_caller]
    pub(crate) fn shown(&self, address: SocketAddr, name: &str) -> Vec<u8> {
        let client = self.try_connect(address, name).expect("a handshake");
        client.stream().conn.peer_certificates().expect("a chain")[0].to_vec()
    }
}

/// What a client sends first.
pub(crate) fn hello(browser: &Browser) -> Vec<u8> {
    let name = ServerName::try_from("localhost").expect("a name");
    let mut connection = ClientConnection::new(Arc::clone(&browser.0), name).expect("a configuration");
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).expect("memory");
    hello
}

pub(crate) fn connect(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut socket = TcpStream::connect(address).expect("it listens");
    socket.set_read_timeout(Some(DEADLINE)).expect("a socket");
    socket.write_all(bytes).expect("sent");
    socket
}

/// Whether the server has answered.
pub(crate) fn has_answer(socket: &TcpStream) -> bool {
    socket.set_nonblocking(true).expect("a socket");
    let is_answered = socket.peek(&mut [0]).is_ok();
    socket.set_nonblocking(false).expect("a socket");
    is_answered
}

/// Whether the server has closed a connection on which nothing is to be read.
pub(crate) fn has_ended(socket: &TcpStream) -> bool {
    socket.set_nonblocking(true).expect("a socket");
    let peeked = socket.peek(&mut [0; 4096]);
    socket.set_nonblocking(false).expect("a socket");
    !peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

pub(crate) const BOTH: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

pub(crate) fn certificate(name: &str) -> Vec<u8> {
    CertificateDer::from_pem_file(file(name)).expect("PEM").to_vec()
}

/// The address of the admin process.
pub(crate) fn admin_address(server: &mut Server) -> SocketAddr {
    let line = server.log().iter().find_map(|line| line.split_once("admin on http://"));
    line.expect("an admin process").1.trim().parse().expect("an address")
}

/// For how long the only worker has been busy.
pub(crate) fn busy(admin: SocketAddr) -> Duration {
    let seconds = shown(admin, "forkpool_worker_busy_seconds", "worker=\"0\"");
    seconds.and_then(|it| it.parse().ok()).map_or(Duration::ZERO, Duration::from_secs_f64)
}

/// A number that the admin process shows.
pub(crate) fn metric(admin: SocketAddr, name: &str, labels: &str) -> Option<u64> {
    shown(admin, name, labels)?.parse().ok()
}

fn shown(admin: SocketAddr, name: &str, labels: &str) -> Option<String> {
    let socket = TcpStream::connect(admin).expect("it listens");
    socket.set_read_timeout(Some(DEADLINE)).expect("a socket");
    let metrics = Client::new(socket).get("/metrics");
    let line = format!("{name}{{{labels}}} ");
    metrics.text().lines().find_map(|found| found.strip_prefix(&line).map(str::to_owned))
}
