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
        at!(lifecycle.surge, Number { least: 1, most: Config::WORKERS_MAX }),
        "How many workers a rolling restart replaces at a time. The replacements start while the old workers still \
         serve",
    )
    .on_restart(),
    Setting::new(
        SECTION,
        "lame-duck",
        "DURATION",
        at!(lifecycle.lame_duck, Timeout::ANY),
        "How long to go on serving after SIGTERM or SIGQUIT while reporting not ready, so that load balancers stop \
         sending clients before the drain begins. 0 drains at once",
    )
    .on_restart(),
    Setting::new(
        SECTION,
        "give-up",
        "N",
        at!(lifecycle.give_up, Number { least: 0, most: u32::MAX }),
        "End the pool with exit code 3 after this many workers of one slot in a row have failed without ever serving. \
         0 retries for ever",
    )
    .on_restart(),
    Setting::new(
        SECTION,
        "max-requests",
        "N",
        at!(recycling.max_requests, Number { least: 0, most: u64::MAX }),
        "Replace a worker after this many requests, or up to a tenth fewer. Each slot is replaced at most about once \
         a second. 0 sets no limit",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "max-age",
        "DURATION",
        at!(recycling.max_age, Timeout::ANY),
        "Replace a worker after this time, or up to a tenth less. 0 sets no limit",
    )
    .on_restart(),
    Setting::new(
        SECTION,
        "max-rss",
        "BYTES",
        at!(recycling.max_rss, Size::ANY),
        "Replace a worker whose resident memory exceeds this size. It is checked once a second. 0 sets no limit",
    )
    .on_restart(),
    Setting::new(
        SECTION,
        "watch",
        "PATTERN",
        at!(process.watch, Patterns),
        "For development: start a rolling restart when files change and no further change follows for 200ms. PATTERN \
         is a file, a directory with everything below it, or a glob such as 'src/**/*.js', in which * and ? match \
         within a name and ** matches any directories. Names that begin with a dot or end in ~, node_modules and \
         __pycache__ are ignored unless the pattern names them. May be given several times",
    )
    .list(','),
];
