//! PURE. How much a client may send, and how many unread responses it may have.
#![forbid(unsafe_code)]

use super::kind::{Number, Size, YesNo};
use super::{Section, Setting};
use crate::shared::config::FIELDS_MAX;

/// Less would not hold the simplest request of a browser: surely a wrong unit.
const HEAD_MIN: usize = 256;
/// Every worker's read buffer grows by this limit.
const HEAD_MAX: usize = 1 << 20;
/// Applies to each connection; more is surely a wrong unit.
const OUTPUT_MAX: usize = 1 << 30;

const SECTION: Section = Section("HTTP limits");

pub(super) const SETTINGS: &[Setting] = &[
    Setting::new(
        SECTION,
        "max-target",
        "BYTES",
        at!(server.limits.target, Size { least: 1, most: HEAD_MAX }),
        "Maximum size of a request target. A longer one gets 414. RFC 9112 recommends at least 8000 bytes",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "max-head",
        "BYTES",
        at!(server.limits.head, Size { least: HEAD_MIN, most: HEAD_MAX }),
        "Maximum size of a request head, from the method to the empty line. A larger one gets 431",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "max-fields",
        "N",
        at!(server.limits.fields, Number { least: 1, most: FIELDS_MAX }),
        "Maximum number of header fields in a request. A request with more gets 431",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "max-body",
        "BYTES",
        at!(server.limits.body, Size::ANY),
        "Maximum size of a request body, which is held in memory. A larger one gets 413. 0 refuses bodies",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "max-requests-per-connection",
        "N",
        at!(server.limits.requests, Number { least: 0, most: u64::MAX }),
        "Close a connection after this many requests, so that clients spread over the workers again. 0 sets no limit",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "max-pipelined",
        "N",
        at!(server.capacity.max_pipelined, Number { least: 1, most: 100_000 }),
        "How many pipelined requests of one connection to answer before serving other connections",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "max-connections",
        "N",
        at!(server.capacity.max_connections, Number { least: 0, most: usize::MAX }),
        "Maximum number of open connections per worker. At the limit, the connection that has been idle longest is \
         closed to make room for a new one. 0 allows as many as there are file descriptors",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "max-output",
        "BYTES",
        at!(server.capacity.max_output, Size { least: 1, most: OUTPUT_MAX }),
        "Maximum size of unread responses that are buffered for one client. Beyond it, that client's requests are not \
         read",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "max-held",
        "BYTES",
        at!(server.capacity.max_held, Size::ANY),
        "Memory that each worker may use for incomplete requests and unread responses. At the limit, requests that \
         need more get 503, bodies on their way wait, and after 5s the slowest clients are closed. A body that others \
         wait for may use an eighth more. 0 sets no limit",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "utf8-query",
        "yes|no",
        at!(server.limits.utf8_query, YesNo),
        "Accept UTF-8 that is not percent-encoded in the query of a request target, as curl sends it. Other bytes, and \
         the path, must be ASCII",
    )
    .of_the_server(),
];
