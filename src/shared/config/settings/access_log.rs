//! PURE. The access log.
#![forbid(unsafe_code)]

use super::kind::{Custom, FilePath, Optional};
use super::{Section, Setting};

const SECTION: Section = Section("Access log");

pub(super) const SETTINGS: &[Setting] = &[
    Setting::new(
        SECTION,
        "access-log",
        "PATH",
        at!(access_log.file, Optional(FilePath)),
        "File that gets one line per response. - and /dev/stdout mean standard output, /dev/stderr standard error. \
         SIGUSR1 reopens the file after log rotation. It must not be a symbolic link. If root opens it for workers of \
         another user, the directories above it must belong to root and be writable by root alone, or be sticky",
    )
    .of_the_server()
    .on_upgrade(),
    Setting::new(
        SECTION,
        "access-log-format",
        "FORMAT",
        at!(access_log.format, Custom::new()),
        "Format of the lines: common, combined (adds Referer and User-Agent), vhost (adds the host and the duration in \
         microseconds), json (one object per line), or a template of your own with nginx's variables, as in \
         '$remote_addr $host \"$request\" $status $body_bytes_sent $duration_us $http_referer'. Times are in UTC",
    )
    .of_the_server(),
];
