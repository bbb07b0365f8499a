//! Reads the certificates and keys of a pool, and checks that they fit.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use ring::digest;
use rustls::crypto::{ring as provider, CryptoProvider};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ServerConfig, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::RootCertStore;
use zeroize::Zeroizing;

use super::choice::Choice;
use super::der;
use super::files::read;
use super::pem;
use super::secrets::Secrets;
use super::settings::{IdentityConfig, TlsClientAuth, TlsVersion};
use super::tickets::Tickets;
use crate::error::{Error, Result};
use crate::sys::clock;

/// The protocols of the built-in server (RFC 7301).
const ALPN: &[u8] = b"http/1.1";

/// The keys that the library takes.
const SUPPORTED: &str = "ECDSA with P-256 or P-384, Ed25519, or RSA with 2048 to 8192 bits";

/// The certificates of a pool with their keys, and how clients are authenticated.
pub(crate) struct Keyring {
    certificates: Vec<Certificate>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
    min: TlsVersion,
    /// A digest of what a session must not outlive: the certificates' names, and how clients are authenticated.
    binding: [u8; 32],
}

/// A certificate with its key.
struct Certificate {
    file: PathBuf,
    key: Arc<CertifiedKey>,
    names: Vec<String>,
    /// In seconds since 1970.
    until: u64,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files: Vec<&PathBuf> = self.certificates.iter().map(|it| &it.file).collect();
        f.debug_struct("Keyring").field("certificates", &files).finish_non_exhaustive()
    }
}

impl Keyring {
    /// # Errors
    ///
    /// [`Error::File`] if a file cannot be read, [`Error::Config`] if it does not hold what it should.
    pub(crate) fn load(config: &IdentityConfig) -> Result<Keyring> {
        let provider = Arc::new(provider::default_provider());
        let pairs = config.certificates.iter().zip(&config.keys);
        let certificates =
            pairs.map(|(file, key)| Certificate::load(file, key, &provider)).collect::<Result<Vec<_>>>()?;
        let mut binding = digest::Context::new(&digest::SHA256);
        let mut names: Vec<&str> = certificates.iter().flat_map(|it| &it.names).map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        names.iter().for_each(|name| binding.update(format!("{name}\n").as_bytes()));
        binding.update(&[config.client_auth as u8]);
        let clients = match &config.client_ca {
            Some(path) => Some(authorities(path, config.client_auth, &provider, &mut binding)?),
            None => None,
        };
        let mut keyring = Keyring { certificates, clients, min: config.min, binding: [0; 32] };
        keyring.binding.copy_from_slice(binding.finish().as_ref());
        Ok(keyring)
    }

    /// The configuration of a server that shows these certificates, and lets sessions resume by these secrets.
    ///
    /// # Errors
    ///
    /// If the library refuses it.
    pub(crate) fn server_config(&self, secrets: Option<Secrets>) -> Result<Arc<ServerConfig>> {
        let versions: &[_] = match self.min {
            TlsVersion::Tls12 => &[&TLS13, &TLS12],
            TlsVersion::Tls13 => &[&TLS13],
        };
        let provider = Arc::new(provider::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions).map_err(refused)?;
        let config = match &self.clients {
            Some(clients) => config.with_client_cert_verifier(Arc::clone(clients)),
            None => config.with_no_client_auth(),
        };
        let certificates = self.certificates.iter().map(|it| (Arc::clone(&it.key), it.names.clone()));
        let mut config = config.with_cert_resolver(Arc::new(Choice::new(certificates)));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        match secrets {
            Some(secrets) => config.ticketer = Arc::new(Tickets::new(secrets, self.binding)),
            None => config.send_tls13_tickets = 0,
        }
        Ok(Arc::new(config))
    }

    /// The certificates' files, each with the end of its validity in seconds since 1970.
    pub(crate) fn expiries(&self) -> impl Iterator<Item = (&Path, u64)> {
        self.certificates.iter().map(|it| (it.file.as_path(), it.until))
    }
}

/// The configuration of a server with this certificate alone, for tests.
#[cfg(any(fuzzing, test))]
pub(crate) fn server_config_for(key: CertifiedKey) -> Arc<ServerConfig> {
    let certificate = Certificate { file: PathBuf::new(), key: Arc::new(key), names: Vec::new(), until: u64::MAX };
    let keyring = Keyring { certificates: vec![certificate], clients: None, min: TlsVersion::Tls12, binding: [0; 32] };
    keyring.server_config(None).expect("the library takes it")
}

fn refused(error: rustls::Error) -> Error {
    Error::config("tls-certificate", format!("the TLS library refuses the configuration: {error}"))
}

impl Certificate {
    fn load(file: &Path, key_file: &Path, provider: &CryptoProvider) -> Result<Certificate> {
        let refuse = |problem: String| Err(Error::config("tls-certificate", format!("{} {problem}", file.display())));
        let chain = chain("tls-certificate", file)?;
        let mut names = None;
        let mut until = u64::MAX;
        let mut issuer: Option<Vec<u8>> = None;
        let now = clock::unix_millis() / 1000;
        for (number, certificate) in (1..).zip(&chain) {
            let Some(said) = der::read(certificate) else {
                return refuse(format!("is damaged: certificate {number} of it cannot be parsed; get it again"));
            };
            if issuer.is_some_and(|issuer| issuer != said.subject) {
                let previous = number - 1;
                return refuse(format!(
                    "is out of order: certificate {number} has not signed certificate {previous}; the server's own \
                     must come first, and each is signed by the next"
                ));
            }
            if said.until < now {
                let date = date(said.until);
                return refuse(format!("has expired: certificate {number} of it was valid until {date}; renew it"));
            }
            if said.from > now {
                let date = date(said.from);
                return refuse(format!(
                    "is not valid yet: certificate {number} of it begins at {date}; check the clock, or wait"
                ));
            }
            issuer = Some(said.issuer.to_vec());
            until = until.min(said.until);
            names.get_or_insert(said.names);
        }
        let key = private_key(key_file)?;
        let key = provider.key_provider.load_private_key(key).map_err(|error| {
            let problem =
                format!("{} holds a key that is not supported ({error}); use {SUPPORTED}", key_file.display());
            Error::config("tls-key", problem)
        })?;
        let key = CertifiedKey::new(chain, key);
        if let Err(error) = key.keys_match() {
            let problem = match error {
                rustls::Error::InconsistentKeys(_) => format!("is not the key of {}; give its own", file.display()),
                error => format!("does not fit {}: {error}", file.display()),
            };
            return Err(Error::config("tls-key", format!("{} {problem}", key_file.display())));
        }
        let names = names.unwrap_or_default();
        Ok(Certificate { file: file.to_owned(), key: Arc::new(key), names, until })
    }
}

/// Reads a chain of certificates.
fn chain(setting: &'static str, file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let shown = file.display().to_string();
    let bytes = read(file, "read the certificate in", setting)?;
    pem::certificates(&bytes, &shown).map_err(|problem| Error::config(setting, format!("{shown} {problem}")))
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>> {
    let shown = file.display().to_string();
    let bytes = Zeroizing::new(read(file, "read the key in", "tls-key")?);
    pem::private_key(&bytes, &shown).map_err(|problem| Error::config("tls-key", format!("{shown} {problem}")))
}

/// Who verifies clients.
fn authorities(
    file: &Path,
    auth: TlsClientAuth,
    provider: &Arc<CryptoProvider>,
    binding: &mut digest::Context,
) -> Result<Arc<dyn ClientCertVerifier>> {
    let problem = |error: &dyn fmt::Display| {
        Error::config("tls-client-ca", format!("{} cannot be used: {error}; get it again", file.display()))
    };
    let mut roots = RootCertStore::empty();
    let mut authorities = chain("tls-client-ca", file)?;
    authorities.sort_by(|one, other| one.as_ref().cmp(other.as_ref()));
    for certificate in authorities {
        binding.update(&certificate);
        roots.add(certificate).map_err(|error| problem(&error))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let verifier = if auth == TlsClientAuth::Optional { verifier.allow_unauthenticated() } else { verifier };
    verifier.build().map_err(|error| problem(&error))
}

fn date(seconds: u64) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds.min(253_402_300_799)))
}
