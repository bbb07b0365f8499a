//! Static files and the access log.

use std::path::PathBuf;

use super::Builder;
use crate::shared::config::{AccessLogFormat, Symlinks};

impl Builder {
    /// Sets the directory whose files [`files`](Builder::files) serves. Default: none.
    pub fn root(self, directory: impl Into<PathBuf>) -> Builder {
        self.put("root", |config| config.files.root = Some(directory.into()))
    }

    /// As [`Files::listing`](crate::Files::listing). Default `false`.
    pub fn listing(self, list: bool) -> Builder {
        self.put("listing", |config| config.files.rules.listing = list)
    }

    /// As [`Files::spa`](crate::Files::spa). Default `false`.
    pub fn spa(self, is: bool) -> Builder {
        self.put("spa", |config| config.files.rules.spa = is)
    }

    /// As [`Files::cache_control`](crate::Files::cache_control). Default: none.
    pub fn cache_control(self, value: impl Into<String>) -> Builder {
        self.put("cache-control", |config| config.files.rules.cache_control = Some(value.into()))
    }

    /// As [`Files::header`](crate::Files::header), from text of the form `[/PATTERN] NAME: VALUE`. Each call adds a
    /// rule. Default: none.
    pub fn header(self, rule: &str) -> Builder {
        self.add("header", rule, |config, rule| config.files.rules.headers.push(rule))
    }

    /// As [`Files::media_type`](crate::Files::media_type), from text of the form `EXTENSION=TYPE`. Each call adds a
    /// rule. Default: none.
    ///
    /// The setting's name is `type`.
    pub fn media_type(self, rule: &str) -> Builder {
        self.add("type", rule, |config, rule| config.files.rules.types.push(rule))
    }

    /// As [`Files::precompressed`](crate::Files::precompressed). Default `true`.
    pub fn precompressed(self, look: bool) -> Builder {
        self.put("precompressed", |config| config.files.rules.precompressed = look)
    }

    /// As [`Files::symlinks`](crate::Files::symlinks). Default [`Symlinks::Inside`].
    pub fn symlinks(self, symlinks: Symlinks) -> Builder {
        self.put("symlinks", |config| config.files.rules.symlinks = symlinks)
    }

    /// As [`Files::dotfiles`](crate::Files::dotfiles). Default `false`.
    pub fn dotfiles(self, serve: bool) -> Builder {
        self.put("dotfiles", |config| config.files.rules.dotfiles = serve)
    }

    /// Sets the file that gets a line for each response of [`Worker::serve`](crate::Worker::serve); `-` or
    /// `/dev/stdout` is standard output, `/dev/stderr` standard error. Default: none.
    ///
    /// The path must not be a symbolic link. If root opens the file for workers of [another user](Builder::user), only
    /// root may be able to replace it: its directory and all directories above must belong to root and must not be
    /// writable by others, unless they are sticky as `/tmp` is.
    ///
    /// The parent opens the file before workers switch their user, and reopens it on SIGUSR1. Responses from before the
    /// signal are logged to the old file, even if it was renamed. Each worker buffers lines for up to a second or 64
    /// KiB, and appends whole lines only. The parent writes the lines of a worker that was killed. No response waits
    /// for a full disk, or for the reader of a FIFO or a pipe: a worker buffers up to 64 KiB and drops further lines.
    /// Dropped lines are counted in the log and in the status.
    pub fn access_log(self, path: impl Into<PathBuf>) -> Builder {
        self.put("access-log", |config| config.access_log.file = Some(path.into()))
    }

    /// Sets the format of the access log. Default [`AccessLogFormat::Combined`].
    ///
    /// A line has the time in UTC at which the response was complete, and the bytes of the body that were sent,
    /// including the framing of chunks. If the client disconnects before there is a response, the status is 499. In
    /// what clients sent, quotes, backslashes and everything but visible ASCII are written as `\xHH`. In JSON, only
    /// control characters and what RFC 8259 requires are escaped, and U+FFFD replaces what is not UTF-8. Values that
    /// would make a line too long are cut, and end in `...`.
    pub fn access_log_format(self, format: AccessLogFormat) -> Builder {
        self.put("access-log-format", |config| config.access_log.format = format)
    }
}
