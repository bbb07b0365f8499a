//! A connection of a load client: a socket, or TLS on it. Both behave as a socket that does not block.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientSessionMemoryCache, Resumption};
use rustls::crypto::{ring, CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::{TLS12, TLS13};
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, DigitallySignedStruct, Error, HandshakeKind, SignatureScheme,
};

/// How a client speaks TLS. Every server gets the same offer: AES-128-GCM and X25519.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tls {
    /// Keep tickets, and resume with them.
    pub(crate) resumes: bool,
    /// Version 1.2 instead of 1.3.
    pub(crate) is_12: bool,
}

impl Tls {
    /// A client with tickets of its own. Each may be used once, so clients that share them would run out of them.
    pub(crate) fn client(self) -> Result<Arc<ClientConfig>, Error> {
        let mut provider = ring::default_provider();
        provider.kx_groups = vec![ring::kx_group::X25519];
        if self.is_12 {
            // OpenSSL takes it for the curves of certificates, too (RFC 8422 section 5.1.1).
            provider.kx_groups.push(ring::kx_group::SECP256R1);
        }
        provider.cipher_suites.retain(|suite| {
            matches!(
                suite.suite(),
                CipherSuite::TLS13_AES_128_GCM_SHA256
                    | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
                    | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
            )
        });
        let verifier = Arc::new(Trusting(provider.signature_verification_algorithms));
        let config = ClientConfig::builder_with_provider(Arc::<CryptoProvider>::new(provider));
        let config = config.with_protocol_versions(&[if self.is_12 { &TLS12 } else { &TLS13 }])?;
        let mut config = config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
        config.resumption = match self.resumes {
            true => Resumption::store(Arc::new(ClientSessionMemoryCache::new(1))),
            false => Resumption::disabled(),
        };
        Ok(Arc::new(config))
    }
}

/// Trusts every certificate, if its owner has the key.
#[derive(Debug)]
struct Trusting(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// A connection, with TLS if it has a session.
pub(crate) struct Wire<S> {
    socket: S,
    session: Option<Box<ClientConnection>>,
}

impl<S> fmt::Debug for Wire<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("is_tls", &self.session.is_some()).finish_non_exhaustive()
    }
}

impl<S: Read + Write> Wire<S> {
    /// The first write makes the handshake.
    ///
    /// # Errors
    /// If the library refuses the configuration.
    pub(crate) fn new(socket: S, client: Option<&Arc<ClientConfig>>) -> io::Result<Wire<S>> {
        let begin = |client: &Arc<ClientConfig>| {
            let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
            ClientConnection::new(Arc::clone(client), name).map(Box::new).map_err(io::Error::other)
        };
        Ok(Wire { socket, session: client.map(begin).transpose()? })
    }

    #[allow(dead_code, reason = "kept and flood shake hands first")]
    /// Makes the handshake, on a socket that blocks, and changes the socket then.
    pub(crate) fn open<T>(mut self, change: impl FnOnce(S) -> io::Result<T>) -> io::Result<Wire<T>> {
        if let Some(session) = &mut self.session {
            while session.is_handshaking() {
                session.complete_io(&mut self.socket)?;
            }
        }
        Ok(Wire { socket: change(self.socket)?, session: self.session })
    }

    #[allow(dead_code, reason = "load shows its address")]
    pub(crate) fn socket(&self) -> &S {
        &self.socket
    }

    #[allow(dead_code, reason = "load and kept register it")]
    pub(crate) fn socket_mut(&mut self) -> &mut S {
        &mut self.socket
    }

    #[allow(dead_code, reason = "load and flood count them")]
    /// Whether its session goes on with one from before. `None` without TLS, and before that is known.
    pub(crate) fn is_resumed(&self) -> Option<bool> {
        let kind = self.session.as_ref()?.handshake_kind()?;
        Some(kind == HandshakeKind::Resumed)
    }
}

impl<S: Read + Write> Write for Wire<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(session) = &mut self.session else { return self.socket.write(bytes) };
        while session.is_handshaking() {
            send(session, &mut self.socket)?;
            if !session.is_handshaking() {
                break;
            }
            if session.read_tls(&mut self.socket)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            process(session, &mut self.socket)?;
        }
        let count = session.writer().write(bytes)?;
        match send(session, &mut self.socket) {
            // The next read or write sends the rest.
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => Ok(count),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<S: Read + Write> Read for Wire<S> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let Some(session) = &mut self.session else { return self.socket.read(room) };
        loop {
            match send(session, &mut self.socket) {
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
            match session.reader().read(room) {
                // It has said that nothing more comes, but it is the server that closes.
                Ok(0) => return self.socket.read(&mut [0]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // An end without this word is one, too: what misses then is seen by its length.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                result => return result,
            }
            session.read_tls(&mut self.socket)?;
            process(session, &mut self.socket)?;
        }
    }
}

fn process(session: &mut ClientConnection, socket: &mut impl Write) -> io::Result<()> {
    match session.process_new_packets() {
        Ok(_) => Ok(()),
        Err(error) => {
            // The alert, as far as it fits.
            let _ = session.write_tls(socket);
            Err(io::Error::new(ErrorKind::InvalidData, error))
        }
    }
}

fn send(session: &mut ClientConnection, socket: &mut impl Write) -> io::Result<()> {
    while session.wants_write() {
        session.write_tls(socket)?;
    }
    Ok(())
}
