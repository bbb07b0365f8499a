//! PURE. How many workers there are, and when one counts as lost.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::kind::{Choice, Timeout, Workers, YesNo};
use super::{Alias, Section, Setting};

/// The least stall time-out: below it a worker that only waits for its turn on a busy machine would count as hung.
const STALL_MIN: Duration = Duration::from_millis(100);

const SECTION: Section = Section("Workers");

pub(super) const SETTINGS: &[Setting] = &[
    Setting::new(
        SECTION,
        "workers",
        "N|auto",
        at!(workers, Workers),
        "Worker processes; auto is one for each CPU that affinity and the cgroup's quota leave",
    )
    .on_restart()
    .also_read(&[Alias { variable: "CLUSTER_WORKERS", prefix: "" }, Alias { variable: "WEB_CONCURRENCY", prefix: "" }]),
    Setting::new(
        SECTION,
        "pin",
        "yes|no",
        at!(pin, YesNo),
        "Whether each worker stays on one of the CPUs that affinity leaves",
    ),
    Setting::new(
        SECTION,
        "drain-timeout",
        "DURATION",
        at!(drain_timeout, Timeout::ANY),
        "How long a worker told to stop may finish its requests before it is killed; 0 is for ever",
    )
    .on_restart(),
    Setting::new(
        SECTION,
        "boot-timeout",
        "DURATION",
        at!(boot_timeout, Timeout::ANY),
        "How long a worker may take to become ready before it is replaced; long, as some load much data; \
         0 is for ever",
    )
    .on_restart(),
    Setting::new(
        SECTION,
        "stall-timeout",
        "DURATION",
        at!(stall_timeout, Timeout { least: STALL_MIN }),
        "How long a worker may be busy with one request before it counts as hung and is replaced; 0 is for ever",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "on-stall",
        "kill|abort",
        at!(on_stall, Choice::new()),
        "What ends a worker that hangs; abort sends it SIGABRT first, so that it says where it is and may dump core",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "on-panic",
        "answer|exit",
        at!(server.on_panic, Choice::new()),
        "What a panic in a handler ends: with answer its connection, by a 500; with exit its worker, as in Node",
    )
    .of_the_server(),
];
