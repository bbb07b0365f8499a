//! A worker's process as the loop knows it: an entry of the roster, with the parent's ends of its channels.

use std::cell::Cell;
use std::time::Duration;

use log::debug;
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid as SystemPid;

use crate::parent::program::{Program, ReadyCheck};
use crate::parent::quota::Quota;
use crate::parent::roster;
use crate::parent::supervisor::Pid;
use crate::shared::channel::ParentEnd;
use crate::shared::message::MessageEnd;
use crate::shared::scoreboard::ParentBoard;
use crate::sys::clock;
use crate::time::Time;

/// How long a keeper may take to end its program and to pass on its last output.
const OBEY_TIMEOUT: Duration = Duration::from_secs(3);

pub(super) type Roster = roster::Roster<Ends>;
pub(super) type Process = roster::Process<Ends>;

/// The parent's ends of the channels to a worker, and the state of reading them.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) lifeline: ParentEnd,
    /// `None` without a hook.
    pub(super) messages: Option<MessageEnd>,
    /// How the program that it may run reports that it is ready.
    pub(super) ready_check: ReadyCheck,
    /// Set if it keeps a program, or is about to.
    pub(super) program: Option<Program>,
    /// When it is killed, if it was told to end its program at once.
    pub(super) killed_at: Cell<Option<Time>>,
    /// The remaining share of reading its messages.
    pub(super) quota: Quota,
}

impl Ends {
    /// Orders a keeper to kill its program. Returns whether it is a keeper that can be told.
    pub(super) fn end_program(&self) -> bool {
        let is_told = self.program.is_some() && self.lifeline.end().is_ok();
        if is_told && self.killed_at.get().is_none() {
            self.killed_at.set(Some(clock::now() + OBEY_TIMEOUT));
        }
        is_told
    }
}

impl Process {
    /// Whether it looks after other slots' sockets when told to.
    pub(super) fn is_neighbour(&self, board: &ParentBoard) -> bool {
        self.trust.is_neighbour(|| board.row(self.row).is_neighbour())
    }
}

/// Sends a signal to a process of the pool.
pub(super) fn signal(pid: Pid, signal: Signal) {
    // The process belongs to the pool and was not reaped, so the pid is still its own. It may have exited all the same.
    if let Err(errno) = kill(SystemPid::from_raw(pid.0), signal) {
        debug!("cannot signal pid={}: {errno}", pid.0);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::parent::supervisor::{Policy, Supervisor};
    use crate::shared::channel::{self, WorkerEnd};

    /// What the worker of such a process would have.
    pub(in crate::parent) type Ours = (WorkerEnd, MessageEnd);

    /// A roster with one process, whose pid is 10 and which nobody has forked, on a board for two.
    pub(in crate::parent) fn roster(ready_check: ReadyCheck) -> (Roster, Rc<ParentBoard>, Ours) {
        let now = Time::default();
        let board = Rc::new(ParentBoard::new(2).expect("memory"));
        let mut roster = Roster::new(Supervisor::new(Policy::default(), 1, 0, now), board.processes());
        let (ends, ours) = ends(ready_check);
        roster.tell(crate::parent::supervisor::Event::Tick, now);
        while roster.supervisor.poll_effect().is_some() {}
        let row = roster.free_row().expect("a row is free");
        roster.expect(0, row, 0, ends);
        roster.register(Pid(10), now).expect("it was expected");
        (roster, board, ours)
    }

    /// The ends of a process that nobody has forked.
    pub(in crate::parent) fn ends(ready_check: ReadyCheck) -> (Ends, Ours) {
        let (lifeline, worker_end) = channel::channel(0, false).expect("descriptors are free");
        let (messages, worker_messages) = MessageEnd::pair(true).expect("descriptors are free");
        let quota = Quota::new(2, Time::default());
        let killed_at = Cell::default();
        let ends = Ends { lifeline, messages: Some(messages), ready_check, program: None, killed_at, quota };
        (ends, (worker_end, worker_messages))
    }

    #[test]
    fn a_keeper_is_ordered_to_end_its_program_and_has_a_moment_for_that() {
        let (mut roster, _board, ours) = roster(ReadyCheck::Execution);
        let process = roster.get_mut(Pid(10)).expect("it is there");
        assert!(!process.ends.end_program(), "it keeps none");
        assert_eq!(process.ends.killed_at.get(), None);
        process.ends.program = Some(Program::new());
        assert!(process.ends.end_program());
        let first = process.ends.killed_at.get();
        assert!(first.is_some() && process.ends.end_program());
        assert_eq!(process.ends.killed_at.get(), first, "a second order puts nothing off");
        drop(ours);
        assert!(!process.ends.end_program(), "it is gone");
    }
}
