//! The entry point of a fuzzer ([`crate::fuzzing`]).

use std::sync::{Arc, OnceLock};

use rustls::crypto::ring as provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::ServerConfig;

use super::session::{TlsSession, RECORD};

/// A session with a certificate of the tests.
pub(super) fn session() -> TlsSession {
    TlsSession::new(config()).expect("a configuration")
}

pub(super) fn config() -> Arc<ServerConfig> {
    static CONFIG: OnceLock<Arc<ServerConfig>> = OnceLock::new();
    let config = CONFIG.get_or_init(|| {
        let chain = CertificateDer::pem_slice_iter(include_bytes!("../../../tests/certificates/a.pem"));
        let key = PrivateKeyDer::from_pem_slice(include_bytes!("../../../tests/certificates/a.key")).expect("PEM");
        let chain = chain.collect::<Result<_, _>>().expect("PEM");
        let key = rustls::sign::CertifiedKey::from_der(chain, key, &provider::default_provider()).expect("they fit");
        crate::shared::tls::server_config_for(key)
    });
    Arc::clone(config)
}

/// Passes bytes to a session: the first two say how, the others come in pieces.
#[allow(missing_docs, unreachable_pub)]
pub fn fuzz(bytes: &[u8]) {
    let Some((head, bytes)) = bytes.split_first_chunk::<2>() else { return };
    let mut session = session();
    let mut room = vec![0; 1 + usize::from(head[0]) * 64];
    for piece in bytes.chunks(1 + usize::from(head[1])) {
        let received = session.receive(&mut piece.to_vec(), &mut room);
        assert!(session.held() <= 2 * (bytes.len() + 64 * 1024), "what it holds is bounded by what has come");
        let alert = session.take_outgoing();
        let is_error = received.map_or(true, |count| {
            assert!(count <= room.len());
            false
        });
        if is_error {
            assert!(alert.len() < RECORD, "an alert is short");
            let _ = session.seal(b"x", &mut [0; 100]);
            return;
        }
    }
    let _ = session.close(&mut Vec::new());
}
