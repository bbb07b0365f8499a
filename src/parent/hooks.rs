//! The application's closure, what it is told and what it asks for.
//!
//! **An exit that nobody has asked for** is put to the application's policy, if there is one, before the supervisor
//! is told: the answer is part of the fact. What is answered by anything but `Backoff` is not counted, so that
//! backoff, give-up and the boot rule judge only what they decide. A slot may be left empty for good; a restart or a
//! scaling fills it, and a pool of nothing but such slots ends as if asked to.

use std::panic::{self, AssertUnwindSafe};

use super::*;
use crate::parent::event;
use crate::parent::handle::Handle;
use crate::parent::supervisor::Respawn;
use crate::shared::log_text::panic_message;

impl Parent {
    /// Tells the application what has happened, and does what it asks for then.
    pub(super) fn emit(&mut self, event: &event::Event<'_>) {
        let Some(hook) = &mut self.hook else { return };
        let handle = Handle::new(&self.roster, &self.board, self.journal.restart_aborted.as_deref());
        // Unwinding on would end the pool.
        if let Err(panic) = panic::catch_unwind(AssertUnwindSafe(|| hook.call(event, &handle))) {
            error!("the application's hook panicked: {}", panic_message(&*panic));
        }
        let requests = handle.into_requests();
        requests.into_iter().for_each(|request| self.obey(request));
    }

    /// What the application wants for the slot of a worker that nobody has told to leave.
    pub(super) fn policy_of(&mut self, exit: &event::Exit<'_>) -> Respawn {
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

    pub(super) fn emit_notice(&mut self, notice: &Notice) {
        let text = self.journal.text_of(notice);
        let reason = text.split_once(": ").map_or(text.as_str(), |(_, reason)| reason);
        let event = match *notice {
            Notice::AllReady { .. } => event::Event::Serving,
            Notice::BackingOff { slot, delay, failures } => event::Event::BackingOff { worker: slot, delay, failures },
            Notice::GaveUp { slot, failures, .. } => event::Event::GaveUp { worker: slot, failures, reason },
            Notice::RestartBegun => event::Event::RestartBegun,
            Notice::RestartDone => event::Event::RestartDone,
            Notice::RestartAborted { slot, .. } => event::Event::RestartAborted { worker: slot, reason },
            Notice::Scaled { from, to } => event::Event::Scaled { from, to },
            Notice::UpgradeDone { pid } => event::Event::UpgradeDone { pid: pid.0.unsigned_abs() },
            Notice::UpgradeFailed { .. } => event::Event::UpgradeFailed { reason },
            _ => return,
        };
        self.emit(&event);
    }
}
