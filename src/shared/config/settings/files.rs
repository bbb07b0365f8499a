//! PURE. Which files are served, and how.
#![forbid(unsafe_code)]

use super::kind::{Choice, FieldValue, FilePath, Optional, YesNo};
use super::{Section, Setting};

const SECTION: Section = Section("Static files");

pub(super) const SETTINGS: &[Setting] = &[
    Setting::new(
        SECTION,
        "root",
        "DIR",
        at!(root, Optional(FilePath)),
        "Directory whose files are served; nothing outside of it is, whatever is asked for; when the path comes to mean \
         another directory, as by a deployment that exchanges a symbolic link, a rolling restart follows it within two \
         seconds",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "listing",
        "yes|no",
        at!(files.listing, YesNo),
        "Whether a directory without index.html is listed; without this it is 404",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "spa",
        "yes|no",
        at!(files.spa, YesNo),
        "Whether paths that name no file, and have no dot in their last segment, are answered with /index.html: \
         for an application in the browser that has paths of its own",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "cache-control",
        "VALUE",
        at!(files.cache_control, Optional(FieldValue)),
        "Value of Cache-Control in answers from files, as in max-age=600",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "precompressed",
        "yes|no",
        at!(files.precompressed, YesNo),
        "Whether a file is answered from its sibling with .br, .zst or .gz behind its name, when the client accepts \
         that and it is not older than the file",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "symlinks",
        "WHICH",
        at!(files.symlinks, Choice::new()),
        "Symbolic links that are followed: none, inside (relative ones that do not leave the directory), anywhere",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "dotfiles",
        "yes|no",
        at!(files.dotfiles, YesNo),
        "Whether names that begin with a dot are served; /.well-known/ always is",
    )
    .of_the_server(),
];
