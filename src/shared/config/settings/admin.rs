//! PURE. The admin process, and who may control the pool.
#![forbid(unsafe_code)]

use super::kind::{FilePath, HostNames, OneAddress, Optional};
use super::{Section, Setting};

const SECTION: Section = Section("Admin");

pub(super) const SETTINGS: &[Setting] = &[
    Setting::new(
        SECTION,
        "admin",
        "ADDR",
        at!(admin.address, Optional(OneAddress)),
        "Address of the admin process, which serves status, metrics, health checks and control: 127.0.0.1:9000, or \
         unix:/run/x.admin (mode 0600). Over TCP it is read-only without a token",
    ),
    Setting::new(
        SECTION,
        "admin-host",
        "HOST",
        at!(admin.hosts, HostNames),
        "Host name that TCP clients may use for the admin process, besides IP addresses and localhost. /metrics, \
         /healthz and /readyz accept any name. May be given several times",
    )
    .list(','),
    Setting::new(
        SECTION,
        "admin-token-file",
        "PATH",
        at!(admin.token_file, Optional(FilePath)),
        "File with the token that lets TCP clients control the pool, sent as Authorization: Bearer TOKEN. The file \
         must not be readable by everybody",
    ),
];
