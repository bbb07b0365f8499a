//! The log: one line per record on stderr.

use std::io::Write;
use std::time::SystemTime;

use env_logger::{Builder, Target};
use humantime::format_rfc3339_millis;
use log::{Level, LevelFilter};

/// What the user has said about the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verbosity {
    /// Nothing: RUST_LOG decides, and without it `info`.
    Unsaid,
    /// Only errors.
    Quiet,
    /// `debug` for one `-v`, `trace` for more.
    Verbose(u8),
}

/// Installs the writer. Workers inherit it through the fork; each record is one write(2), so that lines stay whole.
pub(crate) fn init(verbosity: Verbosity) {
    let mut writer = Builder::new();
    match verbosity {
        Verbosity::Unsaid => writer.filter_level(LevelFilter::Info).parse_env("RUST_LOG"),
        Verbosity::Quiet => writer.filter_level(LevelFilter::Error),
        Verbosity::Verbose(1) => writer.filter_level(LevelFilter::Debug),
        Verbosity::Verbose(_) => writer.filter_level(LevelFilter::Trace),
    };
    writer.target(Target::Stderr).format(|line, record| {
        let (time, level, message) = (format_rfc3339_millis(SystemTime::now()), record.level(), record.args());
        match level {
            Level::Debug | Level::Trace => writeln!(line, "{time} {level:<5} [{}] {message}", record.target()),
            _ => writeln!(line, "{time} {level:<5} {message}"),
        }
    });
    writer.init();
}
