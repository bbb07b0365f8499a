//! What is known about a worker's program, and how the parent learns that it is ready.

use std::time::Duration;

use crate::parent::notify::Notified;
use crate::shared::channel::remark::Remark;
use crate::shared::pace::{Pace, Rate};
use crate::time::Time;

/// How often a program may notify.
const NOTIFYING: Rate = Rate::new(Duration::from_millis(10), 1000);

/// How the parent learns that a program is ready.
#[derive(Debug)]
pub(super) enum ReadyCheck {
    /// What its keeper reports.
    Report,
    /// It was executed.
    Execution,
    /// Its keeper reports it, or a message of sd_notify(3) arrives on this socket.
    Notification(Notified),
    /// This time has passed since it was executed.
    Delay(Duration),
    /// None any more: nobody reads what it sends.
    GivenUp,
}

/// The state of a program that is to be told, or was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    /// Too many slots rest. It is told then at the latest.
    Waits { until: Time },
    /// Its slot gets no connections, and it is told then.
    Rests { until: Time },
    /// It was told. Its slot gets no connections until then.
    Told { until: Time },
}

/// A program that a worker keeps, or is about to execute.
#[derive(Debug)]
pub(super) struct Program {
    /// When it counts as ready, if the delay decides.
    pub(super) ready_at: Option<Time>,
    /// The status with which it has answered whether it is ready.
    pub(super) status: Option<u16>,
    /// What its keeper has noticed last that may be why it is not ready.
    pub(super) remark: Option<Remark>,
    /// Set once it is to be told to finish, if its slot rests before.
    pub(super) leaving: Option<Leaving>,
    /// The rate of its notifications.
    pace: Pace,
}

impl Program {
    /// A program that a worker is about to execute.
    pub(super) fn new() -> Program {
        Program { ready_at: None, status: None, remark: None, leaving: None, pace: Pace::default() }
    }

    /// Counts notifications; returns whether the rate is allowed.
    pub(super) fn may_notify(&mut self, times: usize, now: Time) -> bool {
        (0..times).all(|_| self.pace.take(NOTIFYING, now).is_ok())
    }
}
