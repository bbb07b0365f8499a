//! What the parent reports: at once in the log and to the readers of the pool's events. Also the descriptions of
//! failures, for later reports.
//!
//! It owns the limits for lines that repeat, the failures, and what the admin process has not been told. Its input:
//! lines with their level and slot, and failures in words. Its output: the log, and the same lines for the admin
//! process.

use std::collections::BTreeMap;
use std::io::Write;

use log::kv::Value;
use log::Record;

use crate::admin::status::Level;
use crate::parent::announce::{failure, notice_text};
use crate::parent::repeats::Repeats;
use crate::parent::subject::Subject;
use crate::parent::supervisor::{Failure, Notice};
use crate::shared::log_writer::LogWriter;
use crate::sys::clock;
use crate::time::Time;

#[derive(Debug)]
pub(super) struct Journal {
    repeats: Repeats<(log::Level, Subject)>,
    /// The log level with which the pool began; the logger writes no more than that.
    loudest: log::LevelFilter,
    /// Whether it was said that nobody hears the log.
    has_hinted: bool,
    /// What the admin process still has to be told; `None` if there is none.
    unsent: Option<Vec<Entry>>,
    /// How the latest worker failed.
    last_failure: Option<String>,
    /// How each slot's latest worker failed.
    failures: BTreeMap<usize, String>,
    /// Why the latest new binary could not be started.
    pub(super) upgrade_failure: Option<String>,
    /// Why the latest rolling restart was aborted.
    pub(super) restart_aborted: Option<String>,
}

/// Something that was reported.
#[derive(Debug)]
pub(super) struct Entry {
    /// When, in milliseconds since 1970.
    pub(super) time: u64,
    pub(super) level: Level,
    pub(super) subject: Subject,
    pub(super) text: String,
}

impl Journal {
    pub(super) fn new(has_admin: bool) -> Journal {
        Journal {
            repeats: Repeats::new(),
            loudest: log::max_level(),
            has_hinted: false,
            unsent: has_admin.then(Vec::new),
            last_failure: None,
            failures: BTreeMap::new(),
            upgrade_failure: None,
            restart_aborted: None,
        }
    }

    /// Reports to the log, and to the readers of the pool's events.
    pub(super) fn log(&mut self, level: log::Level, subject: Subject, text: String) {
        write(level, &subject, &text);
        self.hint(level, &text);
        let Some(unsent) = &mut self.unsent else { return };
        let level = match level {
            log::Level::Error => Level::Error,
            log::Level::Warn => Level::Warn,
            _ => Level::Info,
        };
        unsent.push(Entry { time: clock::unix_millis(), level, subject, text });
    }

    /// Writes the first warning or error to stderr if there is no logger, and says how to see the others. So a new user
    /// does not look for the reason in the dark.
    fn hint(&mut self, level: log::Level, text: &str) {
        if self.has_hinted || self.loudest != log::LevelFilter::Off || level > log::Level::Warn {
            return;
        }
        self.has_hinted = true;
        let line = format!(
            "forkpool: {text}\nforkpool: no logger is set, so this is all; set one, such as env_logger, to see more\n"
        );
        // Never waits. Nobody can be told if it fails.
        let _ = LogWriter::default().write_all(line.as_bytes());
    }

    /// Reports what a worker can cause again and again, so that the log does not fill with it.
    pub(super) fn log_limited(&mut self, level: log::Level, subject: Subject, text: String) {
        let admits = |slot| self.repeats.admits(slot, (level, subject), &text, clock::now());
        if subject.slot.is_none_or(admits) {
            self.log(level, subject, text);
        }
    }

    /// When to report how many lines were left out.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.repeats.deadline()
    }

    /// Reports how many lines were left out of the log, if it is time.
    pub(super) fn say_what_was_left_out(&mut self) {
        for (_, (level, subject), text) in self.repeats.summaries(clock::now()) {
            self.log(level, subject, text);
        }
    }

    /// The slot was removed.
    pub(super) fn forget(&mut self, slot: usize) {
        self.repeats.forget(slot);
    }

    /// Returns what was reported since the last call.
    pub(super) fn take_unsent(&mut self) -> Vec<Entry> {
        self.unsent.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Sets the level, as far as the logger allows.
    pub(super) fn set_level(&mut self, level: log::LevelFilter) {
        let level = level.min(self.loudest);
        log::set_max_level(level);
        self.log(
            log::Level::Info,
            Subject::pool("log_level"),
            format!("log level: {level}; workers apply it from their next start on"),
        );
    }

    /// A worker of the slot has failed: `how` is what follows its name, and `line` a line of its own.
    pub(super) fn failed(&mut self, slot: Option<usize>, how: String, line: String) {
        self.failures.extend(slot.map(|slot| (slot, how)));
        self.last_failure = Some(line);
    }

    /// How the latest worker failed, in more detail than the supervisor knows.
    pub(super) fn last_failure(&mut self, last: Failure) -> String {
        self.last_failure.take().unwrap_or_else(|| failure(last))
    }

    /// The same for a slot.
    pub(super) fn failure_of(&mut self, slot: usize, last: Failure) -> String {
        self.failures.remove(&slot).unwrap_or_else(|| failure(last))
    }

    /// Why something has failed, without what a notice says besides; empty if nothing has.
    pub(super) fn reason_of(&self, notice: &Notice) -> String {
        match *notice {
            Notice::GaveUp { slot, reason, .. } | Notice::RestartAborted { slot, reason } => {
                self.failures.get(&slot).cloned().unwrap_or_else(|| failure(reason))
            }
            Notice::UpgradeFailed { .. } => {
                let text = self.text_of(notice);
                text.split_once(": ").map_or(text.as_str(), |(_, reason)| reason).to_owned()
            }
            _ => String::new(),
        }
    }

    /// The text of a notice, with what is known about the failure.
    pub(super) fn text_of(&self, notice: &Notice) -> String {
        let why = match notice {
            Notice::UpgradeFailed { .. } => self.upgrade_failure.as_ref(),
            Notice::GaveUp { slot, .. }
            | Notice::RestartAborted { slot, .. }
            | Notice::ScalingFailed { slot, .. }
            | Notice::RecyclingFailed { slot, .. } => self.failures.get(slot),
            _ => None,
        };
        notice_text(notice, why.map(String::as_str))
    }
}

/// Writes a line to the log. What it is about goes along as key-value pairs, for loggers that take them. Whatever it
/// concerns, the log names the parent as its source.
fn write(level: log::Level, subject: &Subject, text: &str) {
    const TARGET: &str = "forkpool::parent";
    if level > log::max_level() {
        return;
    }
    let mut pairs = vec![("kind", Value::from(subject.kind))];
    pairs.extend(subject.slot.map(|slot| ("worker", Value::from(slot))));
    pairs.extend(subject.generation.map(|generation| ("generation", Value::from(generation))));
    pairs.extend(subject.pid.map(|pid| ("pid", Value::from(pid))));
    pairs.extend(subject.reason.map(|reason| ("reason", Value::from(reason))));
    let mut record = Record::builder();
    record.level(level).target(TARGET).module_path_static(Some(TARGET)).key_values(&pairs);
    log::logger().log(&record.args(format_args!("{text}")).build());
}
