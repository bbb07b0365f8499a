//! PURE. Where the pool listens, and who gets what comes.
#![forbid(unsafe_code)]

use super::field::Listen;
use super::kind::{Choice, Mode, Number};
use super::{Alias, Section, Setting};

const SECTION: Section = Section("Listening");

pub(super) const SETTINGS: &[Setting] = &[
    Setting::new(
        SECTION,
        "listen",
        "ADDR",
        &Listen,
        "Address to listen on: 127.0.0.1:8000, [::1]:8000, :8000 for every interface, port 0 for a free one, \
         unix:/run/x.sock; may be given several times",
    )
    .also_read(&[Alias { variable: "PORT", prefix: ":" }])
    .list(),
    Setting::new(
        SECTION,
        "unix-mode",
        "MODE",
        at!(unix_mode, Mode),
        "Permission bits of Unix sockets, octal; by default every local user may connect, as to a port on \
         127.0.0.1, whatever user the proxy in front runs as",
    ),
    Setting::new(
        SECTION,
        "backlog",
        "N",
        at!(backlog, Number { least: 1, most: i32::MAX as u32 }),
        "Connections that may wait in a worker's queue to be accepted; the kernel caps it at net.core.somaxconn",
    ),
    Setting::new(
        SECTION,
        "balance",
        "METHOD",
        at!(balance, Choice::new()),
        "Who gets a new TCP connection: auto, hash (blind, as without this), random (of the workers that are free), \
         least-connections (by eBPF: needs CAP_BPF and CAP_NET_ADMIN), cpu (the worker on the CPU that received \
         it; pins workers), client (the same worker for the same address); auto is least-connections where it \
         is allowed, else random",
    ),
    Setting::new(
        SECTION,
        "neighbours",
        "N",
        at!(neighbours, Number { least: 0, most: 16 }),
        "Other workers that take from a worker's queue what it leaves there, because it is busy or gone",
    )
    .of_the_server()
    .on_upgrade(),
];
