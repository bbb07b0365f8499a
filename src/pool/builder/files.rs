//! Which files are served, and where answers are logged.

use std::path::PathBuf;

use super::Builder;
use crate::shared::config::{AccessLogFormat, Symlinks};

impl Builder {
    /// Sets the directory whose files [`files`](Builder::files) serves. Default: none.
    pub fn root(self, directory: impl Into<PathBuf>) -> Builder {
        self.put("root", |config| config.root = Some(directory.into()))
    }

    /// As [`Files::listing`](crate::Files::listing). Default `false`.
    pub fn listing(self, list: bool) -> Builder {
        self.put("listing", |config| config.files.listing = list)
    }

    /// As [`Files::spa`](crate::Files::spa). Default `false`.
    pub fn spa(self, is: bool) -> Builder {
        self.put("spa", |config| config.files.spa = is)
    }

    /// As [`Files::cache_control`](crate::Files::cache_control). Default: none.
    pub fn cache_control(self, value: impl Into<String>) -> Builder {
        self.put("cache-control", |config| config.files.cache_control = Some(value.into()))
    }

    /// As [`Files::header`](crate::Files::header), and also adds to what was said before: `[/PATTERN] NAME: VALUE`. Default: none.
    pub fn header(self, rule: &str) -> Builder {
        self.add("header", rule, |config, rule| config.files.headers.push(rule))
    }

    /// As [`Files::media_type`](crate::Files::media_type), and also adds to what was said before: `EXTENSION=TYPE`. Default: none.
    ///
    /// (The setting is `type`.)
    pub fn media_type(self, rule: &str) -> Builder {
        self.add("type", rule, |config, rule| config.files.types.push(rule))
    }

    /// As [`Files::precompressed`](crate::Files::precompressed). Default `true`.
    pub fn precompressed(self, look: bool) -> Builder {
        self.put("precompressed", |config| config.files.precompressed = look)
    }

    /// As [`Files::symlinks`](crate::Files::symlinks). Default [`Symlinks::Inside`].
    pub fn symlinks(self, symlinks: Symlinks) -> Builder {
        self.put("symlinks", |config| config.files.symlinks = symlinks)
    }

    /// As [`Files::dotfiles`](crate::Files::dotfiles). Default `false`.
    pub fn dotfiles(self, serve: bool) -> Builder {
        self.put("dotfiles", |config| config.files.dotfiles = serve)
    }

    /// File that gets a line for each answer of [`Worker::serve`](crate::Worker::serve), or `-` or `/dev/stdout` for standard output,
    /// `/dev/stderr` for standard error. Default: none.
    ///
    /// It must be no symbolic link. Where root opens it for workers of [another user](Builder::user), nobody but root may
    /// be able to put something else in its place: its directory and those above belong to root, and others cannot write
    /// to them, unless they are sticky as `/tmp` is.
    ///
    /// The parent opens it, before workers change their user, and opens it anew on SIGUSR1: what was answered before
    /// goes to the old file, wherever that has been moved. Each worker collects lines for up to a second or 64 KiB and
    /// appends whole ones only; one that is killed by SIGKILL loses those. No answer waits for a full disk, nor for who
    /// reads a FIFO or a pipe: a worker then keeps up to 64 KiB. Lines that cannot be written are counted in the log and
    /// in the status.
    pub fn access_log(self, path: impl Into<PathBuf>) -> Builder {
        self.put("access-log", |config| config.access_log = Some(path.into()))
    }

    /// How the lines of the access log are written. Default [`AccessLogFormat::Combined`].
    ///
    /// Times are those when an answer was complete, in UTC. Bytes are those of the body that were sent, with the
    /// framing of chunks. A client that goes before there is an answer has status 499. In what clients sent, quotes,
    /// backslashes and what is not visible ASCII are written as `\xHH`; in JSON only what RFC 8259 asks for and control
    /// characters are escaped, and U+FFFD stands for what is not UTF-8. Values that would make the line too long end in
    /// `...`.
    pub fn access_log_format(self, format: AccessLogFormat) -> Builder {
        self.put("access-log-format", |config| config.access_log_format = format)
    }
}
