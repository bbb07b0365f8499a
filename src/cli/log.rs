//! The log: one line per record on stderr, except for backtraces.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::borrow::Cow;
use std::env;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};
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

/// Whether standard error is the systemd journal, which has times of its own, and takes the level from the beginning
/// of each line (sd-daemon(3)).
static IN_JOURNAL: AtomicBool = AtomicBool::new(false);

/// Whether standard error is the stream that JOURNAL_STREAM names (systemd.exec(5)).
fn is_journal() -> bool {
    let Some(stream) = env::var("JOURNAL_STREAM").ok() else { return false };
    let stderr = io::stderr().as_fd().try_clone_to_owned().and_then(|fd| File::from(fd).metadata());
    stderr.is_ok_and(|stderr| stream == format!("{}:{}", stderr.dev(), stderr.ino()))
}

/// The level as the journal takes it (syslog(3)).
fn priority(level: Level) -> &'static str {
    match level {
        Level::Error => "<3>",
        Level::Warn => "<4>",
        Level::Info => "<6>",
        Level::Debug | Level::Trace => "<7>",
    }
}

/// Installs the logger and a panic hook that logs. Workers inherit both through the fork. Each record is one write(2),
/// so that lines stay whole.
pub(crate) fn init(verbosity: Verbosity, format: LogFormat) {
    IN_JOURNAL.store(is_journal(), Ordering::Relaxed);
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
    match IN_JOURNAL.load(Ordering::Relaxed) {
        true => journal_text(line, record),
        false => timed_text(line, record),
    }
}

/// Each line of a backtrace is an entry of its own in the journal.
fn journal_text(line: &mut impl Write, record: &Record<'_>) -> io::Result<()> {
    let (priority, message) = (priority(record.level()), record.args().to_string());
    printable(&message).lines().try_for_each(|part| writeln!(line, "{priority}{part}"))
}

fn timed_text(line: &mut impl Write, record: &Record<'_>) -> io::Result<()> {
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
    let about = RecordSubject::of(record, &message);
    let level = record.level().as_str().to_ascii_lowercase();
    if IN_JOURNAL.load(Ordering::Relaxed) {
        line.write_all(priority(record.level()).as_bytes())?;
    }
    write!(line, "{{\"time\":\"{time}\",\"level\":\"{level}\",\"kind\":{}", string(about.kind.as_deref()))?;
    write!(line, ",\"worker\":{},\"generation\":{}", number(about.worker), number(about.generation))?;
    write!(line, ",\"pid\":{},\"reason\":{}", about.pid, string(about.reason.as_deref()))?;
    writeln!(line, ",\"message\":{}}}", string(Some(&message)))
}

/// What a record is about. The parent says it in key-value pairs; other messages begin with the worker that they
/// concern, or concern this process.
#[derive(Debug, PartialEq, Eq)]
struct RecordSubject {
    kind: Option<String>,
    worker: Option<u64>,
    generation: Option<u64>,
    pid: u64,
    reason: Option<String>,
}

impl RecordSubject {
    fn of(record: &Record<'_>, message: &str) -> RecordSubject {
        let pairs = record.key_values();
        let word = |key: &str| pairs.get(key.into()).map(|value| value.to_string());
        let given = |key: &str| pairs.get(key.into()).and_then(|value| value.to_u64());
        let tag = message.split(' ').map_while(|word| word.split_once('='));
        let tagged = |name: &str| {
            let value = tag.clone().find(|(key, _)| *key == name);
            value.and_then(|(_, value)| value.trim_end_matches(':').parse::<u64>().ok())
        };
        RecordSubject {
            kind: word("kind"),
            worker: given("worker").or_else(|| tagged("worker")).or_else(|| forkpool::worker_id().map(|id| id as u64)),
            generation: given("generation").or_else(|| tagged("gen")),
            pid: given("pid").or_else(|| tagged("pid")).unwrap_or_else(|| std::process::id().into()),
            reason: word("reason"),
        }
    }
}

fn number(value: Option<u64>) -> String {
    value.map_or_else(|| "null".to_owned(), |value| value.to_string())
}

fn string(value: Option<&str>) -> String {
    value.map_or_else(|| "null".to_owned(), |value| format!("\"{}\"", escape(value)))
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
        let own = u64::from(std::process::id());
        for (message, worker, generation, pid) in [
            ("worker=3 gen=2 pid=77 ready", Some(3), Some(2), 77),
            ("worker=3 gen=2 pid=77: balance: none", Some(3), Some(2), 77),
            ("worker=3 cannot be forked", Some(3), None, own),
            ("pid=77 exited", None, None, 77),
            ("draining: SIGTERM", None, None, own),
            ("worker=x pid=-1", None, None, own),
            ("said worker=3 pid=77", None, None, own),
        ] {
            let about = RecordSubject::of(&Record::builder().build(), message);
            assert_eq!(about, RecordSubject { kind: None, worker, generation, pid, reason: None }, "{message}");
        }
    }

    #[test]
    fn what_the_parent_says_about_a_line_becomes_fields() {
        let pairs = [("kind", log::kv::Value::from("killed")), ("reason", "stalled".into()), ("pid", 9.into())];
        let record = Record::builder().key_values(&pairs).build();
        let about = RecordSubject::of(&record, "worker=1 gen=4 pid=8 killed: \"busy\"");
        let (kind, reason) = (Some("killed".to_owned()), Some("stalled".to_owned()));
        assert_eq!(about, RecordSubject { kind, worker: Some(1), generation: Some(4), pid: 9, reason });
    }

    #[test]
    fn each_line_has_a_priority_in_the_journal() {
        let mut lines = Vec::new();
        let record = |level| Record::builder().level(level).args(format_args!("a\nb \u{1b}")).build();
        journal_text(&mut lines, &record(Level::Warn)).expect("a Vec takes it");
        journal_text(&mut lines, &record(Level::Error)).expect("a Vec takes it");
        assert_eq!(String::from_utf8(lines).expect("UTF-8"), "<4>a\n<4>b \\u{1b}\n<3>a\n<3>b \\u{1b}\n");
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
        let about = r#""kind":null,"worker":0,"generation":null,"pid":7,"reason":null"#;
        assert_eq!(rest, format!(",\"level\":\"warn\",{about},\"message\":\"{message}\"}}\n"));
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
