//! The application: its events, its policy for exits, and its requests.
//!
//! It owns the application's closures, its clock, and the unread messages of workers. Its input: events. Its output:
//! requests, which the loop carries out when the closure has returned, and the answers of the policy.
//!
//! **For an exit that nobody asked for**, the application's policy is called, if there is one, before the supervisor
//! handles the exit: the answer is part of the event. Exits for which it returns anything but `Backoff` do not count,
//! so backoff, give-up and the rule about failed starts only judge exits that they decide. A slot may be left empty for
//! good. A restart or scaling fills it, and a pool in which all slots are empty ends as if asked to.

use std::panic::{self, AssertUnwindSafe};
use std::rc::Rc;
use std::time::Duration;

use log::{error, info};

use crate::parent::event::{Event, Exit};
use crate::parent::handle::{Handle, Hook, Hooks, OnExit};
use crate::parent::inbox::Inbox;
use crate::parent::journal::Journal;
use crate::parent::process::Roster;
use crate::parent::supervisor::{Notice, Respawn};
use crate::shared::log_text::panic_message;
use crate::shared::request::Request;
use crate::shared::scoreboard::ParentBoard;
use crate::time::Time;

/// The closures of the application, and its pending requests.
#[derive(Debug)]
pub(super) struct Application {
    hook: Option<Hook>,
    on_exit: Option<OnExit>,
    /// For the status that it may ask for.
    board: Rc<ParentBoard>,
    /// The time of the next tick, and the interval.
    tick: Option<(Time, Duration)>,
    /// Its requests that were not carried out yet.
    requests: Vec<Request>,
    /// The messages of workers for it.
    pub(super) inbox: Inbox,
}

impl Application {
    pub(super) fn new(hooks: Hooks, board: Rc<ParentBoard>, now: Time) -> Application {
        let Hooks { on_event: hook, on_exit } = hooks;
        let tick = hook.as_ref().and_then(Hook::tick).map(|period| (now + period, period));
        Application { hook, on_exit, board, tick, requests: Vec::new(), inbox: Inbox::default() }
    }

    /// Whether it has a hook for events.
    pub(super) fn listens(&self) -> bool {
        self.hook.is_some()
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        let asked = (!self.requests.is_empty()).then(Time::default);
        [asked, self.inbox.deadline(), self.tick.map(|(at, _)| at)].into_iter().flatten().min()
    }

    /// Reports an event to it. Its requests then wait for [`take_requests`](Application::take_requests).
    pub(super) fn emit(&mut self, event: &Event<'_>, roster: &Roster, journal: &Journal) {
        let Some(hook) = &mut self.hook else { return };
        let handle = Handle::new(roster, &self.board, journal.restart_aborted.as_deref());
        // An unwinding panic would end the pool.
        if let Err(panic) = panic::catch_unwind(AssertUnwindSafe(|| hook.call(event, &handle))) {
            error!("the application's hook panicked: {}", panic_message(&*panic));
        }
        self.requests.extend(handle.into_requests());
    }

    /// Returns its requests since the last call.
    pub(super) fn take_requests(&mut self) -> Vec<Request> {
        std::mem::take(&mut self.requests)
    }

    /// Its policy for the slot of a worker that nobody told to leave.
    pub(super) fn policy_of(&mut self, exit: &Exit<'_>) -> Respawn {
        let Some(OnExit(policy)) = &mut self.on_exit else { return Respawn::Backoff };
        let respawn = panic::catch_unwind(AssertUnwindSafe(|| policy(exit))).unwrap_or_else(|panic| {
            error!("the application's on_exit hook panicked, backing off: {}", panic_message(&*panic));
            Respawn::Backoff
        });
        if respawn == Respawn::Stop {
            info!("draining: requested by the application (on_exit)");
        }
        respawn
    }

    /// Reports a tick, if one is due. Missed ticks count once.
    pub(super) fn tell_time(&mut self, roster: &Roster, journal: &Journal, now: Time) {
        let Some((at, period)) = &mut self.tick else { return };
        if *at <= now {
            *at = if *at + *period > now { *at + *period } else { now + *period };
            self.emit(&Event::Tick, roster, journal);
        }
    }

    /// Reports the notices of the supervisor that are events for applications.
    pub(super) fn announce(&mut self, notice: &Notice, roster: &Roster, journal: &Journal) {
        let reason = journal.reason_of(notice);
        let reason = reason.as_str();
        let event = match *notice {
            Notice::AllReady { .. } => Event::Serving,
            Notice::BackingOff { slot, delay, failures } => Event::BackingOff { worker: slot, delay, failures },
            Notice::GaveUp { slot, failures, .. } => Event::GaveUp { worker: slot, failures, reason },
            Notice::RestartBegun => Event::RestartBegun,
            Notice::RestartDone => Event::RestartDone,
            Notice::RestartAborted { slot, .. } => Event::RestartAborted { worker: slot, reason },
            Notice::Scaled { from, to } => Event::Scaled { from, to },
            Notice::UpgradeDone { pid } => Event::UpgradeDone { pid: pid.0.unsigned_abs() },
            Notice::UpgradeFailed { .. } => Event::UpgradeFailed { reason },
            _ => return,
        };
        self.emit(&event, roster, journal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parent::process;
    use crate::parent::program::ReadyCheck;
    use crate::parent::supervisor::Pid;

    fn application(hook: Hook, on_exit: Option<OnExit>) -> (Application, Roster, Journal, process::tests::Ours) {
        let (roster, board, ours) = process::tests::roster(ReadyCheck::Execution);
        let hooks = Hooks { on_event: Some(hook), on_exit };
        (Application::new(hooks, board, Time::default()), roster, Journal::new(false), ours)
    }

    #[test]
    fn what_it_asks_for_waits_until_it_is_taken() {
        let hook = Hook::new(|_, handle| {
            handle.restart();
            handle.scale(3);
        });
        let (mut application, roster, journal, _ours) = application(hook, None);
        assert_eq!(application.deadline(), None);
        application.emit(&Event::Serving, &roster, &journal);
        application.emit(&Event::Stopping, &roster, &journal);
        assert_eq!(application.deadline(), Some(Time::default()), "the loop must not sleep");
        let asked = [Request::Restart, Request::Scale(3)];
        assert_eq!(application.take_requests(), [asked, asked].concat());
        assert_eq!((application.take_requests(), application.deadline()), (vec![], None));
    }

    #[test]
    fn a_panic_ends_neither_the_pool_nor_what_was_asked_for_before() {
        let hook = Hook::new(|event, handle| {
            handle.upgrade();
            assert!(!matches!(event, Event::Serving), "a panic of the application's");
        });
        let on_exit = OnExit(Box::new(|_| panic!("another one")));
        let (mut application, roster, journal, _ours) = application(hook, Some(on_exit));
        application.emit(&Event::Serving, &roster, &journal);
        assert_eq!(application.take_requests(), [Request::Upgrade]);
        let process = roster.identify(Pid(10));
        let exit = Exit { process, status: None, was_ready: true, was_requested: false, reason: None };
        assert_eq!(application.policy_of(&exit), Respawn::Backoff);
    }

    #[test]
    fn it_is_told_the_time_once_for_all_that_has_passed() {
        let at = Time::from_millis;
        let hook = Hook::new(|event, handle| match event {
            Event::Tick => handle.stop(),
            _ => handle.restart(),
        });
        let (mut application, roster, journal, _ours) = application(hook.ticking(Some(Duration::from_secs(1))), None);
        assert_eq!(application.deadline(), Some(at(1_000)));
        let mut ticks = |now| {
            application.tell_time(&roster, &journal, at(now));
            (application.take_requests().len(), application.deadline())
        };
        assert_eq!(ticks(999), (0, Some(at(1_000))));
        assert_eq!(ticks(1_002), (1, Some(at(2_000))), "a late one puts off nothing");
        assert_eq!(ticks(9_500), (1, Some(at(10_500))));
    }
}
