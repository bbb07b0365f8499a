//! How this pool hands over to a new binary, and how it takes over from an old one.

use crate::parent::leaving;
use crate::parent::supervisor::Event;
use crate::parent::Parent;
use crate::sys::clock;

impl Parent {
    /// The new binary has sent something, or has gone. If it serves, this pool ends.
    pub(super) fn read_successor(&mut self) {
        let Some(slots) = self.takeover.read_successor(&self.wakeups) else { return };
        leaving::succeed(&mut self.roster);
        self.roster.tell(Event::SuccessorReady, clock::now());
        // If it was told to leave before it reported, it leaves, and its exit is still to come.
        if self.roster.supervisor.awaits_successor() {
            self.roster.succession = None;
            return;
        }
        let Some(successor) = self.takeover.end_successor() else { return };
        self.sockets.hand_over();
        self.handover.succeeded_by(slots);
        if let Some(admin) = &mut self.outputs.admin {
            admin.hand_over(&mut self.journal);
        }
        self.outputs.service.handed_over(successor.pid);
        // Dropping this ends the stream, which tells the new pool that it has everything.
        if self.roster.succession.is_some() {
            self.takeover.keep(successor, &self.wakeups);
        }
    }

    /// This pool serves, so the old pool may leave.
    pub(super) fn take_over(&mut self) {
        self.sockets.take_over(self.roster.supervisor.slots().wanted(), clock::now());
        self.settle();
        let path = self.deploy.settings.config.process.pid_file.as_deref();
        self.outputs.pid_file.write_or_retry(path, &mut self.journal);
        let slots = self.handover.take_over(&self.roster, self.health.board());
        self.takeover.serve(slots, &self.wakeups);
        self.sockets.addresses.take_names();
        if let Some(admin) = &mut self.outputs.admin {
            admin.take_over();
        }
    }
}
