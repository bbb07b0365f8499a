//! PURE. Static files.
#![forbid(unsafe_code)]

use super::kind::{Choice, FieldValue, FilePath, Lines, Optional, YesNo};
use super::{Section, Setting};

const SECTION: Section = Section("Static files");

pub(super) const SETTINGS: &[Setting] = &[
    Setting::new(
        SECTION,
        "root",
        "DIR",
        at!(files.root, Optional(FilePath)),
        "Directory to serve files from. Nothing outside of it is served. When the path comes to point to another \
         directory, as in a deployment that swaps a symbolic link, a rolling restart follows within two seconds",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "listing",
        "yes|no",
        at!(files.rules.listing, YesNo),
        "List directories that have no index.html. Otherwise they get 404",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "spa",
        "yes|no",
        at!(files.rules.spa, YesNo),
        "Serve /index.html for paths that name no file, for a single-page application: for requests whose Accept field \
         names text/html, and for paths without a dot in their last segment unless Accept excludes HTML",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "cache-control",
        "VALUE",
        at!(files.rules.cache_control, Optional(FieldValue)),
        "Value of the Cache-Control field in responses from files, such as max-age=600; --header sets it by path",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "header",
        "FIELD",
        at!(files.rules.headers, Lines::new()),
        "Add a header field to responses, in the form [/PATTERN] NAME: VALUE, such as '/assets/* Cache-Control: \
         max-age=31536000, immutable'. The pattern is matched against the path of the file, or of the request if no \
         file is sent; * matches any characters. The last matching field of a name is sent, and none if its value is \
         empty. Cache-Control and Expires are sent with file contents only. Access-Control-Allow-Origin also enables \
         responses to CORS preflight requests. May be given several times; in the variable, one per line",
    )
    .list('\n')
    .of_the_server(),
    Setting::new(
        SECTION,
        "type",
        "EXT=TYPE",
        at!(files.rules.types, Lines::new()),
        "Media type of files with an extension, such as 'html=text/html; charset=utf-8', or of files whose whole name \
         it is. May be given several times; in the variable, one per line",
    )
    .list('\n')
    .of_the_server(),
    Setting::new(
        SECTION,
        "precompressed",
        "yes|no",
        at!(files.rules.precompressed, YesNo),
        "Serve FILE.br, FILE.zst or FILE.gz in place of FILE if the client accepts that coding and the compressed \
         file is not older",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "symlinks",
        "WHICH",
        at!(files.rules.symlinks, Choice::new()),
        "Which symbolic links to follow: none, inside (relative links that stay inside the directory) or anywhere",
    )
    .of_the_server(),
    Setting::new(
        SECTION,
        "dotfiles",
        "yes|no",
        at!(files.rules.dotfiles, YesNo),
        "Serve names that begin with a dot. /.well-known/ is always served",
    )
    .of_the_server(),
];
