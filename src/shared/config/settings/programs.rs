//! PURE. How the programs are run that workers execute.
#![forbid(unsafe_code)]

use super::kind::{Choice, Custom, YesNo};
use super::{Section, Setting};

const SECTION: Section = Section("Program");

pub(super) const SETTINGS: &[Setting] = &[
    Setting::new(
        SECTION,
        "adopt",
        "auto|off|require",
        at!(program.adopt, Choice::new()),
        "Give a program that binds one of the pool's TCP addresses itself its worker's socket for that address, so \
         that it runs unmodified. Unix sockets are not given, since programs remove their paths. :PORT then means IPv4 \
         only, since an IPv4 program would misread IPv6 addresses; use [::]:PORT for programs that know IPv6. Needs \
         seccomp notifications (Linux 5.9). A program not started by root then gains no privileges, as by sudo. auto \
         goes without where the kernel does not support it; require fails instead; off leaves binding to the program",
    )
    .of_programs(),
    Setting::new(
        SECTION,
        "ready",
        "auto|notify|http:PATH|delay:DURATION|listen",
        at!(program.ready, Custom::new()),
        "When the program counts as ready: auto, when it waits for connections or sends READY=1 to NOTIFY_SOCKET \
         (sd_notify(3)); notify, only when it sends READY=1; http, when it waits for \
         connections and answers GET PATH with a status of 200 to 399, as in http:/ready, or http://example.org/ready \
         to name a host other than localhost; delay, that long after it is executed, as in delay:500ms \
         (a bare number means milliseconds); listen, as soon as it is executed. In a rolling restart the old program \
         serves until then; a program that exits before has failed, and the restart is aborted",
    )
    .of_programs(),
    Setting::new(
        SECTION,
        "stop-signal",
        "SIGNAL",
        at!(program.stop_signal, Choice::new()),
        "Signal that asks the program to finish its requests and exit: TERM, QUIT, INT, HUP, USR1, USR2 or WINCH. \
         nginx, php-fpm and unicorn finish on QUIT and cut requests on TERM",
    )
    .of_programs(),
    Setting::new(
        SECTION,
        "prefix",
        "yes|no",
        at!(program.prefix, YesNo),
        "Begin every line of the program's output with worker=N pid=P; lines of more than 64 KiB are split",
    )
    .of_programs(),
];
