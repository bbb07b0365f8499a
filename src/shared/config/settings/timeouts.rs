//! PURE. How long a client may take.
#![forbid(unsafe_code)]

use super::kind::{Size, Timeout, YesNo};
use super::{Section, Setting};

const SECTION: Section = Section("HTTP time-outs");

pub(super) const SETTINGS: &[Setting] = &[
    Setting::new(
        SECTION,
        "head-timeout",
        "DURATION",
        at!(server.head_timeout, Timeout::ANY),
        "How long a client may take to send a whole request head; 0 is for ever",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "body-timeout",
        "DURATION",
        at!(server.body_timeout, Timeout::ANY),
        "How long a client may pause while it sends a body; 0 is for ever",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "min-rate",
        "BYTES",
        at!(server.min_rate, Size::ANY),
        "Bytes of a body that a client must send a second, over any span of body-timeout; below it 408; and of an \
         answer that waits for it take, over any of write-timeout; 0 is no minimum",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "idle-timeout",
        "DURATION",
        at!(server.idle_timeout, Timeout::ANY),
        "How long a connection may be idle between requests; longer than the 60s of common proxies, so that they \
         close first; 0 is for ever",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "write-timeout",
        "DURATION",
        at!(server.write_timeout, Timeout::ANY),
        "How long a client may take nothing of an answer that waits for it; 0 is for ever",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "answer-timeout",
        "DURATION",
        at!(server.answer_timeout, Timeout::ANY),
        "How long the application may take for an answer that it makes later (Response::deferred), where it sets no time-out \
         of its own; then 504; 0 is for ever",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "half-close",
        "yes|no",
        at!(server.half_close, YesNo),
        "Let a client that has sent its end of file (nc -N) wait for its answer as long as that takes; otherwise 5s, as \
         most such clients have gone",
    )
    .of_the_server(),
];
