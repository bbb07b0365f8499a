//! PURE. When and how workers are replaced.
#![forbid(unsafe_code)]

use super::kind::{Number, Patterns, Size, Timeout};
use super::{Section, Setting};
use crate::shared::config::Config;

const SECTION: Section = Section("Replacing workers");

pub(super) const SETTINGS: &[Setting] = &[
    Setting::new(
        SECTION,
        "surge",
        "N",
        at!(surge, Number { least: 1, most: Config::WORKERS_MAX }),
        "Workers that a rolling restart replaces at a time; the new ones start while the old ones serve",
    )
    .on_restart(),
    Setting::new(
        SECTION,
        "lame-duck",
        "DURATION",
        at!(lame_duck, Timeout::ANY),
        "How long to go on serving after TERM, as not ready any more, so that balancers look elsewhere before the \
         drain; 0 is not at all",
    )
    .on_restart(),
    Setting::new(
        SECTION,
        "give-up",
        "N",
        at!(give_up, Number { least: 0, most: u32::MAX }),
        "Workers of a slot in a row that fail and never served, after which the whole pool ends, with exit code 3; \
         0 is never",
    )
    .on_restart(),
    Setting::new(
        SECTION,
        "max-requests",
        "N",
        at!(max_requests, Number { least: 0, most: u64::MAX }),
        "Requests after which a worker is replaced, or up to a tenth fewer, but a slot's at most about once a second; 0 \
         is no limit",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "max-age",
        "DURATION",
        at!(max_age, Timeout::ANY),
        "Time after which a worker is replaced, or up to a tenth less; 0 is no limit",
    )
    .on_restart(),
    Setting::new(
        SECTION,
        "max-rss",
        "BYTES",
        at!(max_rss, Size::ANY),
        "Memory that a worker may hold before it is replaced, looked at once a second; 0 is no limit",
    )
    .on_restart(),
    Setting::new(
        SECTION,
        "watch",
        "PATTERN",
        at!(watch, Patterns),
        "For development: a rolling restart whenever files change, once they have been quiet for 200ms; a directory with \
         all below it, a file, or a pattern such as 'src/**/*.js', in which * and ? are parts of a name and ** any \
         directories; names that begin with a dot, end in ~, or are node_modules or __pycache__ are left out, unless the \
         pattern has them; may be given several times",
    )
    .list(),
];
