//! PURE. How much a client may send and be owed.
#![forbid(unsafe_code)]

use super::kind::{Number, Size};
use super::{Section, Setting};
use crate::shared::config::FIELDS_MAX;

/// Less does not hold the plainest request of a browser: a mistake of unit.
const HEAD_MIN: usize = 256;
/// Every worker's read buffer is longer by the limit.
const HEAD_MAX: usize = 1 << 20;
/// For each connection; more is a mistake of unit.
const OUTPUT_MAX: usize = 1 << 30;

const SECTION: Section = Section("HTTP limits");

pub(super) const SETTINGS: &[Setting] = &[
    Setting::new(
        SECTION,
        "max-target",
        "BYTES",
        at!(server.limits.target, Size { least: 1, most: HEAD_MAX }),
        "Longest request target; beyond it 414. RFC 9112 asks for at least 8000",
    )
        .of_the_server(),
    Setting::new(
        SECTION,
        "max-head",
        "BYTES",
        at!(server.limits.head, Size { least: HEAD_MIN, most: HEAD_MAX }),
        "Longest request head, from the method to the empty line; beyond it 431",
    )
        .of_the_server(),
    Setting::new(
        SECTION,
        "max-fields",
        "N",
        at!(server.limits.fields, Number { least: 1, most: FIELDS_MAX }),
        "Most header fields of a request; beyond it 431",
    )
        .of_the_server(),
    Setting::new(
        SECTION,
        "max-body",
        "BYTES",
        at!(server.limits.body, Size::ANY),
        "Longest request body, as it is held in memory; beyond it 413; 0 refuses bodies",
    )
        .of_the_server(),
    Setting::new(
        SECTION,
        "max-requests-per-connection",
        "N",
        at!(server.limits.requests, Number { least: 0, most: u64::MAX }),
        "Requests on one connection before it is closed, so that clients spread anew; 0 is no limit",
    )
        .of_the_server(),
    Setting::new(
        SECTION,
        "max-pipelined",
        "N",
        at!(server.max_pipelined, Number { least: 1, most: 100_000 }),
        "Requests of one connection answered in a row before the others have their turn",
    )
        .of_the_server(),
    Setting::new(
        SECTION,
        "max-connections",
        "N",
        at!(server.max_connections, Number { least: 0, most: usize::MAX }),
        "Open connections per worker; at the limit the one that has been idle longest is closed for a new one; 0 is as \
         many as descriptors allow",
    )
        .of_the_server(),
    Setting::new(
        SECTION,
        "max-output",
        "BYTES",
        at!(server.max_output, Size { least: 1, most: OUTPUT_MAX }),
        "Answers held for a client that does not read them, before it is not read from either",
    )
        .of_the_server(),
    Setting::new(
        SECTION,
        "max-held",
        "BYTES",
        at!(server.max_held, Size::ANY),
        "Memory that each worker holds of heads and bodies that have not come whole and of answers that were not \
         taken; at the limit new ones get 503 and others wait, and after 5s the slowest are closed; a body \
         that others wait for may use an eighth more; 0 is no limit",
    )
        .of_the_server(),
];
