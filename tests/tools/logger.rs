//! The log of a program that tests start.

use std::io::Write;

/// Writes each record as its level and its words, from `info` on unless `RUST_LOG` says otherwise.
pub(crate) fn init() {
    let log = env_logger::Env::default().default_filter_or("info");
    env_logger::Builder::from_env(log)
        .format(|line, record| writeln!(line, "{} {}", record.level(), record.args()))
        .init();
}
