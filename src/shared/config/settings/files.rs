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
        "Directory to serve files from. Nothing outside of it is served. When the path comes to point to another \
         directory, as in a deployment that swaps a symbolic link, a rolling restart follows within two seconds",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "listing",
        "yes|no",
        at!(files.listing, YesNo),
        "List directories that have no index.html. Otherwise they get 404",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "spa",
        "yes|no",
        at!(files.spa, YesNo),
        "Serve /index.html for paths that name no file and have no dot in their last segment, for a single-page \
         application",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "cache-control",
        "VALUE",
        at!(files.cache_control, Optional(FieldValue)),
        "Value of the Cache-Control field in responses from files, such as max-age=600",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "precompressed",
        "yes|no",
        at!(files.precompressed, YesNo),
        "Serve FILE.br, FILE.zst or FILE.gz in place of FILE if the client accepts that coding and the compressed \
         file is not older",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "symlinks",
        "WHICH",
        at!(files.symlinks, Choice::new()),
        "Which symbolic links to follow: none, inside (relative links that stay inside the directory) or anywhere",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "dotfiles",
        "yes|no",
        at!(files.dotfiles, YesNo),
        "Serve names that begin with a dot. /.well-known/ is always served",
    )
    .of_the_server(),
];
