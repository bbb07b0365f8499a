//! What is known of the program of one worker, and by what sign it is ready.

use std::time::Duration;

use crate::parent::notify::Notified;
use crate::shared::pace::{Pace, Rate};
use crate::time::Time;

/// How often a program may notify.
const NOTIFYING: Rate = Rate::new(Duration::from_millis(10), 1000);

/// By what the parent sees that a program is ready.
#[derive(Debug)]
pub(super) enum Sign {
    /// What its keeper reports.
    Report,
    /// That it was executed.
    Execution,
    /// What its keeper reports, or sd_notify(3) sends to this socket.
    Notification(Notified),
    /// That so long has passed since.
    Delay(Duration),
    /// Nothing any more: nobody reads what it sends.
    GivenUp,
}

/// A program that a worker keeps, or is about to execute.
#[derive(Debug)]
pub(super) struct Program {
    /// When it counts as ready, where time decides.
    pub(super) ready_at: Option<Time>,
    /// How often it has notified.
    pace: Pace,
}

impl Program {
    /// One that a worker is about to execute.
    pub(super) fn new() -> Program {
        Program { ready_at: None, pace: Pace::default() }
    }

    /// Whether it may have notified so often.
    pub(super) fn may_notify(&mut self, times: usize, now: Time) -> bool {
        (0..times).all(|_| self.pace.take(NOTIFYING, now).is_ok())
    }
}
