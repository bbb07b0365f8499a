//! PURE. Where and how answers are logged.
#![forbid(unsafe_code)]

use super::kind::{Choice, FilePath, Optional};
use super::{Section, Setting};

const SECTION: Section = Section("Access log");

pub(super) const SETTINGS: &[Setting] = &[
    Setting::new(
        SECTION,
        "access-log",
        "PATH",
        at!(access_log, Optional(FilePath)),
        "File that gets a line for each answer, or - or /dev/stdout for standard output, /dev/stderr for the other \
         one; SIGUSR1 opens it anew, for who has renamed it; it must be no symbolic link, and where root opens it for \
         workers of another user, nobody but root may be able to replace it: its directory and those above are \
         root's",
    )
    .of_the_server()
    .on_upgrade(),
    Setting::new(
        SECTION,
        "access-log-format",
        "FORMAT",
        at!(access_log_format, Choice::new()),
        "How the lines are written: common, combined (with Referer and User-Agent), or json, an object in each line",
    )
    .of_the_server(),
];
