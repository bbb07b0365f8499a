//! PURE. Timeouts of clients.
#![forbid(unsafe_code)]

use super::kind::{Size, Timeout, YesNo};
use super::{Section, Setting};

const SECTION: Section = Section("HTTP timeouts");

pub(super) const SETTINGS: &[Setting] = &[
    Setting::new(
        SECTION,
        "head-timeout",
        "DURATION",
        at!(server.timeouts.head, Timeout::ANY),
        "How long a client may take to send a request head. 0 waits for ever",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "body-timeout",
        "DURATION",
        at!(server.timeouts.body, Timeout::ANY),
        "How long a client may pause while it sends a body. 0 waits for ever",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "min-rate",
        "BYTES",
        at!(server.timeouts.min_rate, Size::ANY),
        "Minimum rate in bytes per second. A client that sends a body more slowly, averaged over body-timeout, gets \
         408. A client that reads a response more slowly, averaged over write-timeout, is reset. 0 sets no minimum",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "idle-timeout",
        "DURATION",
        at!(server.timeouts.idle, Timeout::ANY),
        "How long a connection may be idle between requests. The default exceeds the 60s of common proxies, so that \
         they close first. 0 waits for ever",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "drain-spread",
        "DURATION",
        at!(server.timeouts.drain_spread, Timeout::ANY),
        "Over how long a worker that drains closes its idle connections, so that not all clients reconnect at once. At \
         most half of drain-timeout. Connections that other processes take over are not closed. 0 closes all at once",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "write-timeout",
        "DURATION",
        at!(server.timeouts.write, Timeout::ANY),
        "How long a client may go without reading any of a pending response, or its machine without acknowledging what \
         a stream has sent. 0 waits for ever",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "answer-timeout",
        "DURATION",
        at!(server.timeouts.answer, Timeout::ANY),
        "How long the application may take to make a deferred response (Response::deferred) before the client gets \
         504, unless the application sets its own timeout. 0 waits for ever",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "tcp-keepalive",
        "DURATION",
        at!(server.timeouts.tcp_keepalive, Timeout::ANY),
        "How long a TCP client may be silent before the kernel probes whether it is still there. If it does not answer \
         for as long again, its connection is closed, even one that has no timeout. In whole seconds. 0 disables \
         probing",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "half-close",
        "yes|no",
        at!(server.half_close, YesNo),
        "Let a client that has shut down its sending side (as nc -N does) wait for its response without limit. \
         Otherwise it gets 5s, since most such clients have gone",
    )
    .of_the_server(),
];
