//! PURE. Where the pool shows itself, and who may control it.
#![forbid(unsafe_code)]

use super::kind::{FilePath, HostNames, OneAddress, Optional};
use super::{Section, Setting};

const SECTION: Section = Section("Admin");

pub(super) const SETTINGS: &[Setting] = &[
    Setting::new(
        SECTION,
        "admin",
        "ADDR",
        at!(admin, Optional(OneAddress)),
        "Address of a process for status, metrics, health and control: 127.0.0.1:9000, or unix:/run/x.admin (mode \
         0600); over TCP it is read-only without a token",
    ),
    Setting::new(
        SECTION,
        "admin-host",
        "HOST",
        at!(admin_hosts, HostNames),
        "Host name by which the admin process may be asked over TCP, besides IP addresses and localhost; /metrics, \
         /healthz and /readyz answer to any name; may be given several times",
    )
    .list(),
    Setting::new(
        SECTION,
        "admin-token-file",
        "PATH",
        at!(admin_token_file, Optional(FilePath)),
        "File with a token that lets TCP clients control the pool, sent as Authorization: Bearer TOKEN; not to be \
         readable by everybody",
    ),
];
