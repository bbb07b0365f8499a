//! PURE. HTTPS.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::time::Duration;

use super::kind::{not_empty, Choice, FilePath, Kind, Number, Optional, Timeout, YesNo};
use super::{Section, Setting};
use crate::shared::config::values::list;
use crate::shared::config::Address;

const SECTION: Section = Section("HTTPS");

pub(super) const SETTINGS: &[Setting] = &[
    Setting::new(
        SECTION,
        "tls-listen",
        "ADDR",
        at!(listening.tls.addresses, TcpAddresses),
        "TCP address to listen on for HTTPS, in a form of --listen. Without --listen, the pool then listens on no \
         other address. May be given several times",
    )
    .list(',')
    .of_the_server()
    .on_upgrade(),
    Setting::new(
        SECTION,
        "tls-certificate",
        "FILE",
        at!(listening.tls.identity.certificates, FilePaths),
        "Certificate chain in PEM, the server's own first, such as certbot's fullchain.pem. The parent reads it \
         with its own rights at the start and at each restart. May be given several times, each time with --tls-key: a \
         client gets the first that is for the name it asks for, or else the very first",
    )
    .list(',')
    .of_the_server(),
    Setting::new(
        SECTION,
        "tls-key",
        "FILE",
        at!(listening.tls.identity.keys, FilePaths),
        "Private key in PEM, not encrypted, such as certbot's privkey.pem, of the --tls-certificate in the same \
         position. May be given several times",
    )
    .list(',')
    .of_the_server(),
    Setting::new(
        SECTION,
        "tls-client-ca",
        "FILE",
        at!(listening.tls.identity.client_ca, Optional(FilePath)),
        "Certificates in PEM of the authorities that sign clients' certificates",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "tls-client-auth",
        "no|optional|require",
        at!(listening.tls.identity.client_auth, Choice::new()),
        "Whether clients show a certificate of --tls-client-ca. optional admits those without one, and no others",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "tls-min",
        "1.2|1.3",
        at!(listening.tls.identity.min, Choice::new()),
        "Lowest version of TLS to accept",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "tls-max-handshakes",
        "N",
        at!(server.capacity.max_handshakes, Number { least: 1, most: 1_000_000 }),
        "Maximum number of handshakes in progress per worker. At the limit, new connections wait in the queue, and the \
         handshake that has waited longest for its client, for at least a second, is ended to make room",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "https-redirect",
        "yes|no",
        at!(listening.tls.redirect, YesNo),
        "Redirect requests that come without TLS to the first --tls-listen (308), except those that a trusted proxy \
         says came by https, and those under /.well-known/acme-challenge/",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "tls-ticket-period",
        "DURATION",
        at!(listening.tls.tickets.period, Timeout { least: Duration::from_secs(1) }),
        "How long the secret of session tickets is used for new ones. Clients resume their sessions with any worker \
         for as long again, across restarts and upgrades. 0 issues no tickets",
    )
    .of_the_server()
    .on_upgrade(),
    Setting::new(
        SECTION,
        "tls-ticket-secret",
        "FILE",
        at!(listening.tls.tickets.secret, Optional(FilePath)),
        "File of at least 32 random bytes from which the secrets of session tickets are derived, so that clients \
         resume with any of several hosts that have the same file. Their clocks must agree. By default, the parent \
         draws secrets at random",
    )
    .of_the_server()
    .on_upgrade(),
];

/// TCP addresses, separated by commas.
#[derive(Debug)]
pub(super) struct TcpAddresses;

impl Kind for TcpAddresses {
    type Value = Vec<Address>;

    fn parse(&self, text: &str) -> Result<Vec<Address>, String> {
        list(text).map(|item| item.parse().map_err(|problem| format!("{item} {problem}"))).collect()
    }

    fn check(&self, value: &Vec<Address>) -> Result<(), String> {
        match value.iter().find(|address| matches!(address, Address::Unix(_))) {
            Some(address) => Err(format!("{address} is no TCP address; TLS is for those")),
            None => Ok(()),
        }
    }

    fn show(&self, value: &Vec<Address>) -> Option<String> {
        let shown: Vec<String> = value.iter().map(Address::to_string).collect();
        (!shown.is_empty()).then(|| shown.join(","))
    }
}

/// Paths, separated by commas.
#[derive(Debug)]
pub(super) struct FilePaths;

impl Kind for FilePaths {
    type Value = Vec<PathBuf>;

    fn parse(&self, text: &str) -> Result<Vec<PathBuf>, String> {
        Ok(text.split(',').map(|path| path.trim().into()).collect())
    }

    fn check(&self, value: &Vec<PathBuf>) -> Result<(), String> {
        value.iter().try_for_each(|path| not_empty(path.as_os_str().is_empty()))
    }

    fn show(&self, value: &Vec<PathBuf>) -> Option<String> {
        let shown: Vec<String> = value.iter().map(|path| path.display().to_string()).collect();
        (!shown.is_empty()).then(|| shown.join(","))
    }
}
