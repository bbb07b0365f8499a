//! PURE. The processes of the pool by pid, slot and row, with the supervisor's view of each.
//!
//! All look-ups go through here. The supervisor learns about a start together with the entry, so that the two lists
//! cannot differ. What the parent holds of a process besides facts (its descriptors) is a parameter.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::collections::BTreeMap;

use crate::parent::event;
use crate::parent::subject::Subject;
use crate::parent::supervisor::{Event, Pid, SlotId, Stage, Supervisor};
use crate::parent::target::Target;
use crate::time::Time;

/// The processes of the pool, and the process that is being forked.
#[derive(Debug)]
pub(crate) struct Roster<E> {
    pub(crate) supervisor: Supervisor,
    processes: BTreeMap<Pid, Process<E>>,
    forking: Option<Process<E>>,
    /// The rows of the scoreboard that are free.
    free_rows: Vec<usize>,
    /// The number of processes forked so far.
    forked: u64,
    /// The rows of the slots when a successor began to serve all of them, until the last program of this pool was told.
    pub(crate) succession: Option<BTreeMap<SlotId, usize>>,
}

/// A worker's process, from its fork until it was reaped.
#[derive(Debug)]
pub(crate) struct Process<E> {
    pub(crate) slot: SlotId,
    pub(crate) row: usize,
    /// Distinguishes it from a later process with the same pid.
    pub(crate) unique: u64,
    /// When it was forked, in milliseconds since 1970.
    pub(crate) started: u64,
    pub(crate) progress: Progress,
    /// What the parent believes of what it reports.
    pub(crate) trust: Trust,
    /// Whether it will finish or has ended, and the application knows.
    pub(crate) is_disconnected: bool,
    /// Whether it still needs the new file of the access log.
    pub(crate) has_old_log: bool,
    /// The signal that the application has sent to it.
    pub(crate) signalled: Cell<Option<i32>>,
    /// The pid of the program that it keeps, which is the pid that people know.
    pub(crate) program: Option<i32>,
    /// The parent's ends of its channels.
    pub(crate) ends: E,
}

/// How far the start of a process has come. It never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Progress {
    /// It may hold what the fork copied from the parent.
    #[default]
    Forked,
    /// It has dropped that, and has its sockets.
    Listening,
    /// Its program takes connections, and is asked whether it is ready.
    Accepting,
    /// It serves, or has served.
    Ready,
}

impl Progress {
    /// It has come this far, or further.
    pub(crate) fn reach(&mut self, progress: Progress) {
        *self = progress.max(*self);
    }
}

/// What the parent believes of a process. What it has once reported or broken stays so until it is reaped.
#[derive(Debug, Default)]
pub(crate) struct Trust {
    is_neighbour: Cell<bool>,
    is_doubted: Cell<bool>,
    violation: Option<String>,
}

impl Trust {
    /// Whether it looks after other slots' sockets. It may report that at any time, and cannot take it back.
    pub(crate) fn is_neighbour(&self, reports_it: impl FnOnce() -> bool) -> bool {
        if !self.is_neighbour.get() {
            self.is_neighbour.set(reports_it());
        }
        self.is_neighbour.get()
    }

    /// Its numbers in shared memory are impossible, for this reason if any. Returns the reason the first time.
    pub(crate) fn doubt<W>(&self, why: impl FnOnce() -> Option<W>) -> Option<W> {
        let why = if self.is_doubted.get() { None } else { why() };
        self.is_doubted.set(self.is_doubted.get() || why.is_some());
        why
    }

    /// How it has broken the protocol first, in words. Nothing that it reports counts any more.
    pub(crate) fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.violation.is_some()
    }
}

impl<E> Process<E> {
    /// The pid that people know.
    pub(crate) fn shown(&self, pid: Pid) -> i32 {
        self.program.unwrap_or(pid.0)
    }
}

impl<E> Roster<E> {
    /// For a pool with this number of rows for processes, numbered from 1.
    pub(crate) fn new(supervisor: Supervisor, rows: usize) -> Roster<E> {
        let free_rows = (1..=rows).rev().collect();
        Roster { supervisor, processes: BTreeMap::new(), forking: None, free_rows, forked: 0, succession: None }
    }

    pub(crate) fn tell(&mut self, event: Event, now: Time) {
        self.supervisor.handle(event, now);
    }

    /// A free row; taken by `expect`.
    pub(crate) fn free_row(&self) -> Option<usize> {
        self.free_rows.last().copied()
    }

    /// The number that identifies the next process.
    pub(crate) fn next_unique(&self) -> u64 {
        self.forked + 1
    }

    /// A process is about to be forked for the slot, with this row. `started` is the time in milliseconds since 1970.
    pub(crate) fn expect(&mut self, slot: SlotId, row: usize, started: u64, ends: E) {
        self.free_rows.retain(|it| *it != row);
        self.forking = Some(Process {
            slot,
            row,
            unique: self.next_unique(),
            started,
            progress: Progress::default(),
            trust: Trust::default(),
            is_disconnected: false,
            has_old_log: false,
            signalled: Cell::new(None),
            program: None,
            ends,
        });
    }

    /// The expected process has this pid. The supervisor learns it as well.
    pub(crate) fn register(&mut self, pid: Pid, now: Time) -> Option<&mut Process<E>> {
        let process = self.forking.take()?;
        self.forked += 1;
        self.tell(Event::Spawned { slot: process.slot, pid }, now);
        self.processes.insert(pid, process);
        self.processes.get_mut(&pid)
    }

    /// The expected process could not be forked; its row is free again.
    pub(crate) fn call_off(&mut self) -> Option<Process<E>> {
        let process = self.forking.take()?;
        self.free_rows.push(process.row);
        Some(process)
    }

    /// A process was reaped; the caller tells the supervisor. Its row is free again.
    pub(crate) fn reap(&mut self, pid: Pid) -> Option<Process<E>> {
        let process = self.processes.remove(&pid)?;
        self.free_rows.push(process.row);
        Some(process)
    }

    /// It has broken the protocol, and must be killed and replaced. This and the reason are one line in the log.
    pub(crate) fn misbehaved(&mut self, pid: Pid, why: String, now: Time) {
        if let Some(process) = self.processes.get_mut(&pid) {
            process.trust.violation.get_or_insert(why);
            self.tell(Event::Misbehaved { pid }, now);
        }
    }

    pub(crate) fn get(&self, pid: Pid) -> Option<&Process<E>> {
        self.processes.get(&pid)
    }

    pub(crate) fn get_mut(&mut self, pid: Pid) -> Option<&mut Process<E>> {
        self.processes.get_mut(&pid)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Pid, &Process<E>)> {
        self.processes.iter().map(|(pid, process)| (*pid, process))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (Pid, &mut Process<E>)> {
        self.processes.iter_mut().map(|(pid, process)| (*pid, process))
    }

    pub(crate) fn pids(&self) -> Vec<Pid> {
        self.processes.keys().copied().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.processes.len()
    }

    /// Whether every process has dropped what the fork copied from the parent.
    pub(crate) fn are_all_set_up(&self) -> bool {
        self.forking.is_none() && self.processes.values().all(|process| process.progress > Progress::Forked)
    }

    pub(crate) fn slot_of(&self, pid: Pid) -> Option<SlotId> {
        Some(self.supervisor.slots().process(pid)?.0)
    }

    pub(crate) fn is_starting(&self, pid: Pid) -> bool {
        self.supervisor.slots().stage(pid) == Some(Stage::Starting)
    }

    pub(crate) fn is_ready(&self, pid: Pid) -> bool {
        self.supervisor.slots().stage(pid) == Some(Stage::Ready)
    }

    /// The process that serves each slot; of two, the newer one.
    pub(crate) fn serving_by_slot(&self) -> BTreeMap<SlotId, Pid> {
        self.supervisor.slots().serving().collect()
    }

    /// The row of the process that takes each slot's connections: the serving process, or else a starting one whose
    /// program already takes connections.
    pub(crate) fn rows_by_slot(&self) -> BTreeMap<SlotId, usize> {
        if let Some(seats) = &self.succession {
            return seats.clone();
        }
        let accepting =
            self.iter().filter(|(pid, process)| process.progress == Progress::Accepting && self.is_starting(*pid));
        let mut rows_by_slot: BTreeMap<SlotId, usize> =
            accepting.map(|(_, process)| (process.slot, process.row)).collect();
        let serving = self.serving_by_slot().into_iter();
        rows_by_slot.extend(serving.filter_map(|(slot, pid)| Some((slot, self.get(pid)?.row))));
        rows_by_slot
    }

    /// The process that the target means.
    pub(crate) fn find(&self, target: Target) -> Option<Pid> {
        match target {
            // The number distinguishes it from a later process with the same pid.
            Target::Process(it) => {
                let pid = i32::try_from(it.pid).ok().map(Pid)?;
                self.get(pid).filter(|process| process.unique == it.unique_id).map(|_| pid)
            }
            Target::Slot(slot) => {
                let processes = self.supervisor.slots().processes();
                let staying = processes.filter(|(id, it)| *id == slot && !it.stage.is_leaving());
                staying.max_by_key(|(_, it)| (it.serves(), it.generation))?.1.pid
            }
        }
    }

    /// Describes a process for the application.
    pub(crate) fn identify(&self, pid: Pid) -> event::Process {
        let (worker, generation) =
            self.supervisor.slots().process(pid).map_or((0, 0), |(slot, it)| (slot, it.generation));
        let unique_id = self.get(pid).map_or(0, |process| process.unique);
        event::Process { worker, generation, pid: pid.0.unsigned_abs(), unique_id }
    }

    /// What a line about a process is about.
    pub(crate) fn subject(&self, kind: &'static str, pid: Pid) -> Subject {
        let shown = self.get(pid).map_or(pid.0, |process| process.shown(pid));
        let known = self.supervisor.slots().process(pid).map(|(slot, it)| (slot, it.generation));
        let (slot, generation) = known.unzip();
        Subject { slot, generation, pid: Some(shown), ..Subject::pool(kind) }
    }

    /// How the log names a process.
    pub(crate) fn tag(&self, pid: Pid) -> String {
        match self.supervisor.slots().process(pid) {
            Some(_) => {
                let shown = self.get(pid).map_or(pid.0, |process| process.shown(pid));
                event::Process { pid: shown.unsigned_abs(), ..self.identify(pid) }.to_string()
            }
            None => format!("pid={}", pid.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parent::supervisor::{Exit, Policy, Recycle, Respawn};

    /// Two slots, whose first processes are 10 and 11.
    fn roster() -> Roster<()> {
        let now = Time::default();
        let mut roster = Roster::new(Supervisor::new(Policy::default(), 2, 0, now), 4);
        for (slot, pid) in [(0, 10), (1, 11)] {
            fork(&mut roster, slot, pid);
        }
        roster
    }

    /// Each fork comes a second after the previous one.
    fn now(roster: &Roster<()>) -> Time {
        Time::from_millis(roster.forked * 1000)
    }

    fn fork(roster: &mut Roster<()>, slot: SlotId, pid: i32) {
        let now = now(roster);
        roster.tell(Event::Tick, now);
        while roster.supervisor.poll_effect().is_some() {}
        let row = roster.free_row().expect("a row is free");
        roster.expect(slot, row, 0, ());
        roster.register(Pid(pid), now).expect("it was expected");
        roster.tell(Event::Listening { pid: Pid(pid) }, now);
    }

    fn ready(roster: &mut Roster<()>, pid: i32) {
        let now = now(roster);
        roster.tell(Event::Ready { pid: Pid(pid) }, now);
    }

    fn exit(roster: &mut Roster<()>, pid: i32) -> usize {
        let row = roster.reap(Pid(pid)).expect("it is there").row;
        let (pid, exit) = (Pid(pid), Exit::Code(1));
        let exited = Event::Exited { pid, exit, has_served: true, respawn: Respawn::Backoff };
        let now = now(roster);
        roster.tell(exited, now);
        row
    }

    #[test]
    fn a_start_is_known_here_and_to_the_supervisor() {
        let mut roster = roster();
        assert_eq!(roster.pids(), [Pid(10), Pid(11)]);
        assert_eq!((roster.slot_of(Pid(11)), roster.slot_of(Pid(12))), (Some(1), None));
        assert!(roster.is_starting(Pid(10)) && !roster.is_starting(Pid(12)));
        assert!(roster.register(Pid(12), Time::default()).is_none(), "nobody is expected");
        assert!(!roster.are_all_set_up());
        roster.iter_mut().for_each(|(_, process)| process.progress.reach(Progress::Listening));
        assert!(roster.are_all_set_up());
        assert_eq!(roster.tag(Pid(11)), "worker=1 gen=1 pid=11");
        assert_eq!(roster.tag(Pid(12)), "pid=12");
    }

    #[test]
    fn rows_are_given_once_and_given_back() {
        let mut roster = roster();
        let rows = |roster: &Roster<()>| roster.iter().map(|(_, process)| process.row).collect::<Vec<_>>();
        assert_eq!(rows(&roster), [1, 2]);
        roster.expect(0, 3, 0, ());
        assert_eq!(roster.free_row(), Some(4));
        assert_eq!(roster.call_off().map(|process| process.row), Some(3));
        assert_eq!((exit(&mut roster, 10), roster.free_row()), (1, Some(1)));
        fork(&mut roster, 0, 20);
        assert_eq!(rows(&roster), [2, 1]);
    }

    #[test]
    fn of_two_that_serve_the_newer_has_the_slot() {
        let mut roster = roster();
        assert_eq!(roster.rows_by_slot(), BTreeMap::new());
        ready(&mut roster, 10);
        ready(&mut roster, 11);
        assert_eq!(roster.rows_by_slot(), BTreeMap::from([(0, 1), (1, 2)]));
        let now = now(&roster);
        roster.tell(Event::Recycle { pid: Pid(10), why: Recycle::Memory }, now);
        fork(&mut roster, 0, 20);
        assert_eq!(roster.find(Target::Slot(0)), Some(Pid(10)), "its replacement does not serve yet");
        ready(&mut roster, 20);
        assert_eq!(roster.serving_by_slot(), BTreeMap::from([(0, Pid(20)), (1, Pid(11))]));
        assert_eq!(roster.rows_by_slot(), BTreeMap::from([(0, 3), (1, 2)]));
        assert!(roster.supervisor.slots().stage(Pid(10)).is_some_and(Stage::is_leaving) && roster.is_ready(Pid(20)));
        assert_eq!(roster.supervisor.slots().staying().collect::<Vec<_>>(), [Pid(20), Pid(11)]);
    }

    #[test]
    fn a_process_is_told_from_a_later_one_of_the_same_number() {
        let mut roster = roster();
        ready(&mut roster, 10);
        let first = roster.identify(Pid(10));
        assert_eq!((first.worker, first.generation, first.unique_id), (0, 1, 1));
        assert_eq!(roster.find(Target::Process(first)), Some(Pid(10)));
        exit(&mut roster, 10);
        assert_eq!(roster.find(Target::Process(first)), None);
        assert_eq!(roster.find(Target::Slot(0)), None);
        fork(&mut roster, 0, 10);
        assert_eq!(roster.find(Target::Process(first)), None);
        assert_eq!(roster.find(Target::Slot(0)), Some(Pid(10)));
        assert_eq!(roster.identify(Pid(10)).unique_id, 3);
    }
}
