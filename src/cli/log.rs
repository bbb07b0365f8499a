//! The log: one line per record on stderr, except for backtraces.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::borrow::Cow;
use std::io::{self, Write};
use std::panic;
use std::time::SystemTime;

use env_logger::{Builder, Target};
use forkpool::LogWriter;
use humantime::format_rfc3339_millis;
use log::{Level, LevelFilter, Record};

/// The log level that the user chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verbosity {
    /// Not set: RUST_LOG decides, else `info`.
    Unsaid,
    /// Only errors.
    Quiet,
    /// `debug` for one `-v`, `trace` for more.
    Verbose(u8),
}

/// The format of the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Text,
    /// A JSON object (RFC 8259) on each line.
    Json,
}

/// Installs the logger and a panic hook that logs. Workers inherit both through the fork. Each record is one write(2),
/// so that lines stay whole.
pub(crate) fn init(verbosity: Verbosity, format: LogFormat) {
    let mut writer = Builder::new();
    match verbosity {
        Verbosity::Unsaid => writer.filter_level(LevelFilter::Info).parse_env("RUST_LOG"),
        Verbosity::Quiet => writer.filter_level(LevelFilter::Error),
        Verbosity::Verbose(1) => writer.filter_level(LevelFilter::Debug),
        Verbosity::Verbose(_) => writer.filter_level(LevelFilter::Trace),
    };
    let lost: fn(u64) -> String = match format {
        LogFormat::Text => |lost| told(lost, text),
        LogFormat::Json => |lost| told(lost, json),
    };
    writer.target(Target::Pipe(Box::new(LogWriter::new(lost)))).format(move |line, record| match format {
        LogFormat::Text => text(line, record),
        LogFormat::Json => json(line, record),
    });
    writer.init();
    // The hook of the standard library blocks while nobody reads.
    panic::set_hook(Box::new(|panic| {
        let what = panic.to_string().replacen(":\n", ": ", 1);
        let trace = Backtrace::capture();
        match trace.status() {
            BacktraceStatus::Captured => log::error!("{}{what}\n{trace}", tag()),
            _ => log::error!("{}{what}", tag()),
        }
    }));
}

/// The line that says how many lines were lost.
fn told(lost: u64, write: fn(&mut Vec<u8>, &Record<'_>) -> io::Result<()>) -> String {
    let mut line = Vec::new();
    let message = format!("{}{lost} log lines lost: nobody read them, or there was no room", tag());
    // Writing to a Vec does not fail.
    let _ = write(&mut line, &Record::builder().level(Level::Warn).args(format_args!("{message}")).build());
    String::from_utf8_lossy(&line).into_owned()
}

/// Names the process that logs, unless the message does; empty in the parent.
fn tag() -> String {
    let pid = std::process::id();
    forkpool::worker_id().map_or_else(String::new, |worker| format!("worker={worker} pid={pid} "))
}

fn text(line: &mut impl Write, record: &Record<'_>) -> io::Result<()> {
    let (time, level, message) = (format_rfc3339_millis(SystemTime::now()), record.level(), record.args().to_string());
    let message = printable(&message);
    match level {
        Level::Debug | Level::Trace => writeln!(line, "{time} {level:<5} [{}] {message}", record.target()),
        _ => writeln!(line, "{time} {level:<5} {message}"),
    }
}

/// Replaces control characters, which could command a terminal: the message may hold foreign text. The lines of a
/// backtrace are kept.
fn printable(message: &str) -> Cow<'_, str> {
    let is_command = |character: char| character.is_control() && character != '\n';
    if !message.contains(is_command) {
        return Cow::Borrowed(message);
    }
    let mut line = String::with_capacity(message.len() + 16);
    for character in message.chars() {
        match is_command(character) {
            true => line.extend(character.escape_debug()),
            false => line.push(character),
        }
    }
    Cow::Owned(line)
}

fn json(line: &mut impl Write, record: &Record<'_>) -> io::Result<()> {
    let (time, message) = (format_rfc3339_millis(SystemTime::now()), record.args().to_string());
    let (worker, pid) = concerned(&message);
    let worker = worker.map_or_else(|| "null".to_owned(), |worker| worker.to_string());
    let level = record.level().as_str().to_ascii_lowercase();
    write!(line, "{{\"time\":\"{time}\",\"level\":\"{level}\",\"worker\":{worker},\"pid\":{pid},\"message\":\"")?;
    line.write_all(escape(&message).as_bytes())?;
    line.write_all(b"\"}\n")
}

/// The worker and the process that a message concerns: those named at its beginning, else this process.
fn concerned(message: &str) -> (Option<usize>, u32) {
    let value = |name: &str| {
        let tag = message.split(' ').map_while(|word| word.split_once('='));
        tag.filter(|(key, _)| *key == name).find_map(|(_, value)| value.trim_end_matches(':').parse::<u32>().ok())
    };
    let worker = value("worker").and_then(|worker| usize::try_from(worker).ok());
    (worker.or_else(forkpool::worker_id), value("pid").unwrap_or_else(std::process::id))
}

/// Escapes the content of a string (RFC 8259 section 7).
fn escape(message: &str) -> String {
    let mut escaped = String::with_capacity(message.len());
    for character in message.chars() {
        match character {
            '"' | '\\' => escaped.extend(['\\', character]),
            _ if character.is_control() => escaped.push_str(&format!("\\u{:04x}", u32::from(character))),
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_about_the_worker_that_it_begins_with() {
        let own = std::process::id();
        for (message, worker, pid) in [
            ("worker=3 gen=2 pid=77 ready", Some(3), 77),
            ("worker=3 gen=2 pid=77: balance: none", Some(3), 77),
            ("worker=3 cannot be forked", Some(3), own),
            ("pid=77 exited", None, 77),
            ("draining: SIGTERM", None, own),
            ("worker=x pid=-1", None, own),
            ("said worker=3 pid=77", None, own),
        ] {
            assert_eq!(concerned(message), (worker, pid), "{message}");
        }
    }

    #[test]
    fn a_message_stays_inside_of_its_string() {
        let record = |message: &str| {
            let mut line = Vec::new();
            json(&mut line, &Record::builder().level(Level::Warn).args(format_args!("{message}")).build())
                .expect("a Vec takes it");
            String::from_utf8(line).expect("UTF-8")
        };
        let line = record("worker=0 pid=7 \"a\" \\ \n \u{1b} é");
        let (time, rest) = line.split_at("{\"time\":\"2026-11-21T09:44:05.067Z\"".len());
        assert!(time.ends_with("Z\""), "{time}");
        let message = r#"worker=0 pid=7 \"a\" \\ \u000a \u001b é"#;
        assert_eq!(rest, format!(",\"level\":\"warn\",\"worker\":0,\"pid\":7,\"message\":\"{message}\"}}\n"));
    }

    #[test]
    fn a_message_commands_no_terminal() {
        let mut line = Vec::new();
        text(
            &mut line,
            &Record::builder().level(Level::Warn).args(format_args!("a \"b\"\r\n\u{1b}[2J\u{9b} é")).build(),
        )
        .expect("a Vec takes it");
        let line = String::from_utf8(line).expect("UTF-8");
        assert!(line.ends_with(" WARN  a \"b\"\\r\n\\u{1b}[2J\\u{9b} é\n"), "{line:?}");
    }
}
