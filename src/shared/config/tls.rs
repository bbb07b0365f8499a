//! PURE. The settings of TLS, and what they need of each other.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use super::{Address, Config, ServerConfig};
use crate::error::{Error, Result};
use crate::shared::tls::{IdentityConfig, TicketConfig, TlsClientAuth, TlsVersion};

/// The settings of TLS.
#[derive(Clone, Debug, Default)]
pub(crate) struct TlsConfig {
    pub(crate) addresses: Vec<Address>,
    /// Whether requests without TLS are redirected.
    pub(crate) redirect: bool,
    pub(crate) identity: IdentityConfig,
    pub(crate) tickets: TicketConfig,
}

impl TlsConfig {
    /// Whether servers of this pool speak TLS: it listens for that, or the application takes the configuration.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.identity.certificates.is_empty()
    }

    /// A setting that was made, if there is one.
    fn given(&self, handshakes: usize) -> Option<&'static str> {
        let given = [
            ("tls-listen", !self.addresses.is_empty()),
            ("tls-certificate", !self.identity.certificates.is_empty()),
            ("tls-key", !self.identity.keys.is_empty()),
            ("tls-client-ca", self.identity.client_ca.is_some()),
            ("tls-client-auth", self.identity.client_auth != TlsClientAuth::No),
            ("tls-min", self.identity.min != TlsVersion::default()),
            ("tls-max-handshakes", handshakes != ServerConfig::default().capacity.max_handshakes),
            ("https-redirect", self.redirect),
            ("tls-ticket-period", self.tickets.period != TicketConfig::default().period),
            ("tls-ticket-secret", self.tickets.secret.is_some()),
        ];
        given.into_iter().find(|(_, is_given)| *is_given).map(|(name, _)| name)
    }

    /// Refuses settings that lack others; `handshakes` is the limit of handshakes. Reads no file.
    pub(super) fn check(&self, handshakes: usize) -> Result<()> {
        let Some(given) = self.given(handshakes) else { return Ok(()) };
        if cfg!(not(feature = "tls")) {
            return Err(Error::config(given, "this program was built without TLS; build it with the feature tls"));
        }
        let refuse = |setting: &str, problem: String| Err(Error::config(setting, problem));
        let (certificates, keys) = (self.identity.certificates.len(), self.identity.keys.len());
        if certificates == 0 && given == "tls-listen" {
            return refuse(given, "needs a certificate; add tls-certificate and tls-key".to_owned());
        }
        if certificates != keys {
            let setting = if certificates < keys { "tls-certificate" } else { "tls-key" };
            let (certificates, keys) = (counted(certificates, "certificate"), counted(keys, "key"));
            return refuse(setting, format!("{certificates} and {keys} are given; give one key for each certificate"));
        }
        if certificates == 0 {
            return refuse(given, "has no effect without TLS; add tls-listen, tls-certificate and tls-key".to_owned());
        }
        let twice = |(index, path): &(usize, &PathBuf)| self.identity.certificates[..*index].contains(path);
        if let Some((_, path)) = self.identity.certificates.iter().enumerate().find(twice) {
            return refuse("tls-certificate", format!("{} is given twice; leave one out", path.display()));
        }
        match (self.identity.client_auth, &self.identity.client_ca) {
            (TlsClientAuth::No, Some(_)) => {
                refuse("tls-client-ca", "has no effect; add tls-client-auth require or optional".to_owned())
            }
            (TlsClientAuth::Optional | TlsClientAuth::Require, None) => {
                refuse("tls-client-auth", "needs the certificate of an authority; add tls-client-ca".to_owned())
            }
            _ if self.redirect && self.addresses.is_empty() => {
                refuse("https-redirect", "there is no HTTPS to redirect to; add tls-listen".to_owned())
            }
            _ if self.tickets.secret.is_some() && self.tickets.period.is_zero() => {
                refuse("tls-ticket-secret", "has no effect with tls-ticket-period 0; leave one out".to_owned())
            }
            _ => Ok(()),
        }
    }
}

fn counted(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

impl Config {
    /// All addresses to listen on: those without TLS first.
    pub(crate) fn listened(&self) -> Vec<Address> {
        self.listening.addresses.iter().chain(&self.listening.tls.addresses).cloned().collect()
    }

    /// The files of the certificates in use, each with the end of its validity in seconds since 1970.
    pub(crate) fn certificates(&self) -> Vec<(String, u64)> {
        #[cfg(feature = "tls")]
        if let Some(keyring) = &self.server.tls {
            return keyring.expiries().map(|(file, until)| (file.display().to_string(), until)).collect();
        }
        Vec::new()
    }

    /// The port to which requests without TLS are redirected.
    pub(super) fn https_port(&self) -> Option<u16> {
        let first = self.listening.tls.addresses.first().filter(|_| self.listening.tls.redirect)?;
        match first {
            Address::Tcp(address) => Some(address.port()),
            Address::Any(port) => Some(*port),
            Address::Unix(_) => None,
        }
    }
}

#[cfg(all(test, feature = "tls"))]
mod tests {
    use crate::shared::config::{Config, Setting};

    #[test]
    fn settings_that_lack_others_are_refused() {
        for (said, problem) in [
            (&[("tls-listen", ":1")][..], "tls-listen: needs a certificate; add tls-certificate and tls-key"),
            (&[("tls-key", "k")], "tls-certificate: 0 certificates and 1 key are given"),
            (&[("tls-certificate", "a,b"), ("tls-key", "k")], "tls-key: 2 certificates and 1 key are given; give one"),
            (&[("tls-certificate", "a,a"), ("tls-key", "k,k")], "tls-certificate: a is given twice; leave one out"),
            (
                &[("https-redirect", "yes")],
                "https-redirect: has no effect without TLS; add tls-listen, tls-certificate",
            ),
            (&[("tls-client-auth", "require")], "tls-client-auth: has no effect without TLS"),
            (&[("tls-min", "1.3")], "tls-min: has no effect without TLS"),
            (&[("tls-max-handshakes", "7")], "tls-max-handshakes: has no effect without TLS"),
            (&[("tls-ticket-period", "0")], "tls-ticket-period: has no effect without TLS"),
            (
                &[("tls-certificate", "a"), ("tls-key", "k"), ("tls-client-auth", "optional")],
                "tls-client-auth: needs the certificate of an authority; add tls-client-ca",
            ),
            (
                &[("tls-certificate", "a"), ("tls-key", "k"), ("tls-client-ca", "c")],
                "tls-client-ca: has no effect; add tls-client-auth require or optional",
            ),
            (
                &[("tls-certificate", "a"), ("tls-key", "k"), ("https-redirect", "yes")],
                "https-redirect: there is no HTTPS to redirect to; add tls-listen",
            ),
            (
                &[("tls-certificate", "a"), ("tls-key", "k"), ("tls-ticket-period", "0"), ("tls-ticket-secret", "s")],
                "tls-ticket-secret: has no effect with tls-ticket-period 0",
            ),
            (&[("tls-listen", "127.0.0.1:8000"), ("tls-certificate", "a"), ("tls-key", "k")], "is given twice"),
        ] {
            let mut config = Config::default();
            for (name, value) in said {
                Setting::named(name).expect("a setting").apply(&mut config, value).expect("valid alone");
            }
            let error = config.check().expect_err(problem).report();
            assert!(error.contains(problem), "{said:?}: {error}");
        }
    }
}

#[cfg(all(test, not(feature = "tls")))]
mod tests {
    use crate::shared::config::{Config, Setting};

    #[test]
    fn every_setting_of_tls_says_that_the_program_has_none() {
        for (name, value) in [
            ("tls-listen", ":1"),
            ("tls-certificate", "c"),
            ("tls-key", "k"),
            ("tls-client-ca", "c"),
            ("tls-client-auth", "require"),
            ("tls-min", "1.3"),
            ("tls-max-handshakes", "7"),
            ("https-redirect", "yes"),
            ("tls-ticket-period", "1h"),
            ("tls-ticket-secret", "s"),
        ] {
            let mut config = Config::default();
            Setting::named(name).expect("a setting").apply(&mut config, value).expect("valid alone");
            let error = config.check().expect_err(name).report();
            assert_eq!(error, format!("{name}: this program was built without TLS; build it with the feature tls"));
        }
    }
}
