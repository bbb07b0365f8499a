//! PURE. Addresses, balancing and proxies.
#![forbid(unsafe_code)]

use super::field::Listen;
use super::kind::{Choice, Mode, Networks, Number, YesNo};
use super::{Alias, Section, Setting};

const SECTION: Section = Section("Listening");

pub(super) const SETTINGS: &[Setting] = &[
    Setting::new(
        SECTION,
        "listen",
        "ADDR",
        &Listen,
        "Address to listen on: 127.0.0.1:8000, [::1]:8000, :8000 for every interface, or unix:/run/x.sock. Port 0 \
         picks a free port. May be given several times",
    )
    .also_read(&[Alias { variable: "PORT", prefix: ":" }])
    .list(','),
    Setting::new(
        SECTION,
        "unix-mode",
        "MODE",
        at!(listening.unix_mode, Mode),
        "Permission bits of Unix sockets, in octal. The default lets every local user connect, as to a port on \
         127.0.0.1",
    ),
    Setting::new(
        SECTION,
        "backlog",
        "N",
        at!(listening.backlog, Number { least: 1, most: i32::MAX as u32 }),
        "Length of each worker's accept queue. The kernel caps it at net.core.somaxconn",
    ),
    Setting::new(
        SECTION,
        "balance",
        "METHOD",
        at!(workers.balance, Choice::new()),
        "How a new TCP connection is assigned to a worker: auto, hash, random, least-connections, cpu or client. hash \
         is the kernel's own choice, whether that worker is free or not. random picks a random free worker. \
         least-connections picks the free worker with the fewest connections; it uses eBPF and needs CAP_BPF and \
         CAP_NET_ADMIN. cpu picks the worker on the CPU that received the connection, and pins workers. client sends \
         the same client address to the same worker. auto is least-connections where permitted, else random",
    ),
    Setting::new(
        SECTION,
        "neighbours",
        "N",
        at!(workers.neighbours, Number { least: 0, most: 16 }),
        "How many other workers accept connections from a worker's queue while it is busy or gone",
    )
    .of_the_server()
    .on_upgrade(),
    Setting::new(
        SECTION,
        "trusted-proxies",
        "CIDR",
        at!(server.proxies, Networks),
        "Proxies to believe about their clients: networks such as 10.0.0.0/8, addresses, and unix for Unix sockets; \
         they must set or remove X-Forwarded-For, -Proto and -Host (or Forwarded) in every request",
    )
    .list(',')
    .of_the_server(),
    Setting::new(
        SECTION,
        "forwarded-header",
        "HEADER",
        at!(server.forwarded_header, Choice::new()),
        "Header that trusted proxies set: x-forwarded-for (with -Proto and -Host), forwarded (RFC 7239), or auto for \
         X-Forwarded-For if present, else Forwarded; use forwarded if your proxies set only that, since clients can \
         send the other",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "proxy-protocol",
        "yes|no",
        at!(server.proxy_protocol, YesNo),
        "Require the PROXY protocol (version 1 or 2) at the start of every TCP connection, within head-timeout, and \
         close any other; with trusted-proxies, also close peers that are not listed, and require it on Unix sockets, \
         which need unix in the list",
    )
    .of_the_server(),
];
