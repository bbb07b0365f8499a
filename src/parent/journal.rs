//! What the parent says: in the log at once, and to whoever looks at the pool's events; and what it knows of failures,
//! in words, for what it has to say later.

use std::collections::BTreeMap;

use crate::admin::status::Level;
use crate::parent::announce::{failure, notice_text};
use crate::parent::repeats::Repeats;
use crate::parent::supervisor::{Failure, Notice};
use crate::sys::clock;
use crate::time::Time;

#[derive(Debug)]
pub(super) struct Journal {
    repeats: Repeats<log::Level>,
    /// What the log was made to say when the pool began: its writer knows no more.
    loudest: log::LevelFilter,
    /// What the admin process is to be told; None where there is none.
    untold: Option<Vec<Said>>,
    /// How the latest worker failed.
    last_failure: Option<String>,
    /// How each slot's latest worker failed.
    failures: BTreeMap<usize, String>,
    /// Why the latest new binary could not be started.
    pub(super) upgrade_failure: Option<String>,
    /// Why the latest rolling restart was aborted.
    pub(super) restart_aborted: Option<String>,
}

/// Something that was said.
#[derive(Debug)]
pub(super) struct Said {
    /// When, in milliseconds since 1970.
    pub(super) time: u64,
    pub(super) level: Level,
    /// The slot it is about.
    pub(super) worker: Option<usize>,
    pub(super) text: String,
}

impl Journal {
    pub(super) fn new(has_admin: bool) -> Journal {
        Journal {
            repeats: Repeats::new(),
            loudest: log::max_level(),
            untold: has_admin.then(Vec::new),
            last_failure: None,
            failures: BTreeMap::new(),
            upgrade_failure: None,
            restart_aborted: None,
        }
    }

    /// Says something in the log, and to whoever looks at the pool's events.
    pub(super) fn say(&mut self, level: log::Level, worker: Option<usize>, text: String) {
        // Whatever it is about: to who reads the log it comes from the parent.
        log::log!(target: "forkpool::parent", level, "{text}");
        let Some(untold) = &mut self.untold else { return };
        let level = match level {
            log::Level::Error => Level::Error,
            log::Level::Warn => Level::Warn,
            _ => Level::Info,
        };
        untold.push(Said { time: clock::unix_millis(), level, worker, text });
    }

    /// Says what a worker can bring about again and again: the log does not fill with it.
    pub(super) fn say_rarely(&mut self, level: log::Level, slot: Option<usize>, text: String) {
        let admits = |slot| self.repeats.admits(slot, level, &text, clock::now());
        if slot.is_none_or(admits) {
            self.say(level, slot, text);
        }
    }

    /// When it is to be said how much was left out.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.repeats.deadline()
    }

    /// Says how much was left out of the log, if it is time.
    pub(super) fn say_what_was_left_out(&mut self) {
        for (slot, level, text) in self.repeats.summaries(clock::now()) {
            self.say(level, Some(slot), text);
        }
    }

    /// The slot is no more.
    pub(super) fn forget(&mut self, slot: usize) {
        self.repeats.forget(slot);
    }

    /// What was said since this was asked last.
    pub(super) fn take_untold(&mut self) -> Vec<Said> {
        self.untold.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Says no less than this, as far as the log can.
    pub(super) fn set_level(&mut self, level: log::LevelFilter) {
        let level = level.min(self.loudest);
        log::set_max_level(level);
        self.say(log::Level::Info, None, format!("log level: {level}; workers apply it from their next start on"));
    }

    /// A worker of the slot has failed: how, as `a worker …` of its slot and as a line of its own.
    pub(super) fn failed(&mut self, slot: Option<usize>, how: String, line: String) {
        self.failures.extend(slot.map(|slot| (slot, how)));
        self.last_failure = Some(line);
    }

    /// How the latest worker failed, of which the supervisor knows less.
    pub(super) fn last_failure(&mut self, last: Failure) -> String {
        self.last_failure.take().unwrap_or_else(|| failure(last))
    }

    /// The same of a slot.
    pub(super) fn failure_of(&mut self, slot: usize, last: Failure) -> String {
        self.failures.remove(&slot).unwrap_or_else(|| failure(last))
    }

    /// A notice as a line, with all that is known of the failure that it tells of.
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
