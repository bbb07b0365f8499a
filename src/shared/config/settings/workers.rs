//! PURE. The number of workers, and when a worker counts as failed.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::kind::{Choice, Timeout, Workers, YesNo};
use super::{Alias, Section, Setting};

/// The minimum stall timeout. With less, a worker that only waits for a busy processor would count as hung.
const STALL_MIN: Duration = Duration::from_millis(100);

const SECTION: Section = Section("Workers");

pub(super) const SETTINGS: &[Setting] = &[
    Setting::new(
        SECTION,
        "workers",
        "N|auto",
        at!(workers.count, Workers),
        "Number of worker processes. auto starts one for each CPU that the CPU affinity and the cgroup's quota allow",
    )
    .on_restart()
    .also_read(&[Alias { variable: "CLUSTER_WORKERS", prefix: "" }, Alias { variable: "WEB_CONCURRENCY", prefix: "" }]),
    Setting::new(
        SECTION,
        "pin",
        "yes|no",
        at!(workers.pin, YesNo),
        "Pin each worker to one of the CPUs that the affinity mask allows",
    ),
    Setting::new(
        SECTION,
        "drain-timeout",
        "DURATION",
        at!(lifecycle.drain_timeout, Timeout::ANY),
        "How long a stopping worker may take to finish its requests before it is killed. 0 waits for ever",
    )
    .on_restart(),
    Setting::new(
        SECTION,
        "boot-timeout",
        "DURATION",
        at!(lifecycle.boot_timeout, Timeout::ANY),
        "How long a worker may take to become ready before it is killed and replaced. 0 waits for ever",
    )
    .on_restart(),
    Setting::new(
        SECTION,
        "stall-timeout",
        "DURATION",
        at!(lifecycle.stall_timeout, Timeout { least: STALL_MIN }),
        "How long a worker may be busy with one request before it is killed and replaced as hung. 0 disables the \
         check",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "on-stall",
        "kill|abort",
        at!(lifecycle.on_stall, Choice::new()),
        "How a hung worker is ended. kill sends SIGKILL. abort sends SIGABRT first, so that the worker logs a \
         backtrace and may dump core",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "rebalance",
        "auto|off",
        at!(workers.rebalance, Choice::new()),
        "Whether workers pass kept connections to each other, between two requests: after one has become ready, so \
         that all have about as many, and when one is busy most of the time while another is not",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "on-panic",
        "answer|exit",
        at!(server.on_panic, Choice::new()),
        "What a panic in a handler ends. answer sends a 500 and closes the connection. exit ends the worker, as in \
         Node",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "name-requests",
        "yes|no",
        at!(server.name_requests, YesNo),
        "Log the method and the path of the request in which a worker hangs or dies. The query is never logged",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "slow-request",
        "DURATION",
        at!(server.slow_request, Timeout::ANY),
        "Log a request to which the application takes this long or longer to respond. The time a client takes to send \
         its body or to read the response does not count. 0 logs none",
    )
    .of_the_server(),
];
