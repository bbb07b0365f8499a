//! Programs that are told to finish while other slots serve: new connections go elsewhere first.
//!
//! Many programs close at once what they have accepted and not yet read from, when they are told to finish: uvicorn and
//! `php -S`, for example. Nothing can stop a program from accepting, and its replacement accepts from the same socket.
//! So the kernel is told to choose other slots, as for a slot without a worker; the program reads what it has accepted
//! meanwhile; and only then it is told. Its slot gets connections again once the program has ended, or after a moment.
//!
//! An upgrade replaces all programs at once: the new pool serves in every slot. The old pool then lets its slots rest
//! one half after the other, as in a rolling restart, and steers until its last program was told.
//!
//! At most half of the slots rest at a time, and at least one gets connections: one that is removed, if all others
//! rest, until they do not. If there is no other, a program is told at once. With `--balance hash` the kernel chooses
//! blindly, so the rest has no effect.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::parent::process::{Process, Roster};
use crate::parent::program::Leaving;
use crate::parent::roster::Progress;
use crate::parent::supervisor::{Pid, SlotId};
use crate::time::Time;

/// How long a slot gets no connections before its program is told. A handshake that has begun takes a round trip, and
/// so does the request that follows.
const REST_BEFORE: Duration = Duration::from_millis(250);

/// How long it gets none after that, unless the program ends earlier.
const REST_AFTER: Duration = Duration::from_secs(1);

/// How long a program waits at most for others to have left.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// A worker is to be told to finish. Returns whether it is told later, because its slot rests first.
pub(super) fn begin(pid: Pid, roster: &mut Roster, drain_timeout: Duration, now: Time) -> bool {
    let Some(slot) = roster.slot_of(pid) else { return false };
    let has_others = match &roster.succession {
        Some(seats) => seats.len() > 1,
        None => roster.supervisor.slots().serving().any(|(other, _)| other != slot),
    };
    let most = if drain_timeout.is_zero() { WAIT_MAX } else { WAIT_MAX.min(drain_timeout / 4) };
    let Some(process) = roster.get_mut(pid).filter(|process| may_rest(process) && has_others) else {
        return false;
    };
    let Some(program) = &mut process.ends.program else { return false };
    program.leaving = Some(Leaving::Waits { until: now + most });
    rest(roster, now);
    true
}

/// A new pool serves in all slots, and this pool's workers are to be told to finish. Call this while they still serve.
pub(super) fn succeed(roster: &mut Roster) {
    let seats = roster.rows_by_slot();
    if seats.len() > 1 && roster.iter().any(|(_, process)| may_rest(process)) {
        roster.succession = Some(seats);
    }
}

/// Whether this is a program that serves, or has served until it was told to finish.
fn may_rest(process: &Process) -> bool {
    process.progress == Progress::Ready && process.ends.program.is_some()
}

/// Returns whether the last program of a pool that has a successor has just left. Then the slots' rest is over.
pub(super) fn ends_succession(roster: &mut Roster, now: Time) -> bool {
    let has_left = |process: &Process| {
        let state = process.ends.program.as_ref().and_then(|program| program.leaving);
        state.is_some_and(|state| matches!(state, Leaving::Told { until } if until <= now))
    };
    let ends = roster.succession.is_some() && roster.iter().all(|(_, process)| !may_rest(process) || has_left(process));
    if ends {
        roster.succession = None;
    }
    ends
}

/// Returns the programs that are to be told now.
pub(super) fn advance(roster: &mut Roster, now: Time) -> Vec<Pid> {
    let is_due =
        |state: &Leaving| matches!(state, Leaving::Waits { until } | Leaving::Rests { until } if *until <= now);
    let due: Vec<Pid> = states(roster).filter(|(_, state)| is_due(state)).map(|(pid, _)| pid).collect();
    for pid in &due {
        set(*pid, Leaving::Told { until: now + REST_AFTER }, roster);
    }
    rest(roster, now);
    due
}

/// Lets the slots of programs that wait rest, as far as enough others serve.
fn rest(roster: &mut Roster, now: Time) {
    let seated = roster.rows_by_slot();
    for (pid, state) in states(roster).collect::<Vec<_>>() {
        let Leaving::Waits { until } = state else { continue };
        let mut resting = resting(roster, now);
        resting.extend(roster.slot_of(pid));
        resting.retain(|slot| seated.contains_key(slot));
        let is_one_left = seated.keys().any(|slot| !resting.contains(slot));
        if is_one_left && resting.len() <= (seated.len() / 2).max(1) {
            set(pid, Leaving::Rests { until: until.min(now + REST_BEFORE) }, roster);
        }
    }
}

/// The rows of the processes to which the kernel may give connections, by slot: all that could take some, except for
/// those of slots that rest.
pub(super) fn fed(roster: &Roster, now: Time) -> BTreeMap<SlotId, usize> {
    let (all, resting) = (roster.rows_by_slot(), resting(roster, now));
    let fed: BTreeMap<_, _> = all.iter().filter(|(slot, _)| !resting.contains(slot)).map(|(a, b)| (*a, *b)).collect();
    if !fed.is_empty() {
        return fed;
    }
    // A slot that is removed while all others rest.
    let waits = states(roster).filter(|(_, state)| matches!(state, Leaving::Waits { .. }));
    let waiting: BTreeMap<_, _> = waits
        .filter_map(|(pid, _)| Some((roster.slot_of(pid)?, roster.get(pid)?.row)))
        .filter(|(slot, _)| !resting.contains(slot))
        .collect();
    if waiting.is_empty() {
        all
    } else {
        waiting
    }
}

/// When something is due.
pub(super) fn deadline(roster: &Roster, now: Time) -> Option<Time> {
    let times = states(roster).map(|(_, state)| match state {
        Leaving::Waits { until } | Leaving::Rests { until } | Leaving::Told { until } => until,
    });
    // A state that was due has been taken care of.
    times.filter(|until| *until > now).min()
}

fn states(roster: &Roster) -> impl Iterator<Item = (Pid, Leaving)> + '_ {
    roster.iter().filter_map(|(pid, process)| Some((pid, process.ends.program.as_ref()?.leaving?)))
}

fn set(pid: Pid, state: Leaving, roster: &mut Roster) {
    if let Some(program) = roster.get_mut(pid).and_then(|process| process.ends.program.as_mut()) {
        program.leaving = Some(state);
    }
}

fn resting(roster: &Roster, now: Time) -> BTreeSet<SlotId> {
    let rests = |state: &Leaving| match state {
        Leaving::Waits { .. } => false,
        Leaving::Rests { .. } => true,
        Leaving::Told { until } => *until > now,
    };
    states(roster).filter(|(_, state)| rests(state)).filter_map(|(pid, _)| roster.slot_of(pid)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parent::process;
    use crate::parent::program::{Program, ReadyCheck};
    use crate::parent::supervisor::{Event, Policy, Stop, Supervisor};

    const DRAIN: Duration = Duration::from_secs(25);

    fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    /// A pool of this many programs, whose replacements begin to serve one after the other. Pids are 10, 11, …, and 20,
    /// 21, …
    struct Pool(Roster, Vec<process::tests::Ours>);

    impl Pool {
        fn new(slots: usize) -> Pool {
            let supervisor = Supervisor::new(Policy::default(), slots, 0, Time::default());
            let mut pool = Pool(Roster::new(supervisor, 2 * slots), Vec::new());
            for (slot, pid) in (0..slots).zip(10..) {
                pool.serve(slot, pid);
            }
            pool.0.tell(Event::Restart, Time::default());
            pool
        }

        fn serve(&mut self, slot: SlotId, pid: i32) {
            let Pool(roster, all) = self;
            let now = Time::default();
            roster.tell(Event::Tick, now);
            while roster.supervisor.poll_effect().is_some() {}
            let (mut ends, ours) = process::tests::ends(ReadyCheck::Report);
            ends.program = Some(Program::new());
            all.push(ours);
            let row = roster.free_row().expect("a row is free");
            roster.expect(slot, row, 0, ends);
            let pid = Pid(pid);
            roster.register(pid, now).expect("it was expected").progress.reach(Progress::Ready);
            roster.tell(Event::Listening { pid }, now);
            roster.tell(Event::Ready { pid }, now);
        }

        fn fed(&self, millis: u64) -> Vec<SlotId> {
            fed(&self.0, at(millis)).into_keys().collect()
        }
    }

    #[test]
    fn its_slot_rests_before_it_is_told_and_until_it_has_ended() {
        let mut pool = Pool::new(2);
        pool.serve(0, 20);
        assert_eq!(pool.fed(0), [0, 1]);
        assert!(begin(Pid(10), &mut pool.0, DRAIN, at(1_000)));
        assert_eq!((pool.fed(1_000), deadline(&pool.0, at(1_000))), (vec![1], Some(at(1_250))));
        assert_eq!(advance(&mut pool.0, at(1_249)), []);
        assert_eq!(advance(&mut pool.0, at(1_250)), [Pid(10)]);
        assert_eq!((pool.fed(1_250), deadline(&pool.0, at(1_250))), (vec![1], Some(at(2_250))));
        assert_eq!(advance(&mut pool.0, at(1_300)), [], "it is told once");
        assert_eq!((pool.fed(2_250), deadline(&pool.0, at(2_250))), (vec![0, 1], None), "it takes its time");
        pool.serve(1, 21);
        assert!(begin(Pid(11), &mut pool.0, DRAIN, at(3_000)));
        assert_eq!(pool.fed(3_000), [0]);
        pool.0.reap(Pid(11));
        assert_eq!((pool.fed(3_000), deadline(&pool.0, at(3_000))), (vec![0, 1], None), "it has ended");
    }

    #[test]
    fn half_of_the_slots_serve_and_one_alone_does() {
        let mut pool = Pool::new(1);
        pool.serve(0, 20);
        assert!(!begin(Pid(10), &mut pool.0, DRAIN, at(0)), "there is no other");
        let mut pool = Pool::new(4);
        for slot in 0..4 {
            pool.serve(slot, 20 + slot as i32);
            assert!(begin(Pid(10 + slot as i32), &mut pool.0, DRAIN, at(0)));
        }
        assert_eq!(pool.fed(0), [2, 3]);
        assert_eq!(advance(&mut pool.0, at(250)), [Pid(10), Pid(11)]);
        pool.0.reap(Pid(10));
        assert_eq!((advance(&mut pool.0, at(300)), pool.fed(300)), (vec![], vec![0, 3]));
        assert_eq!(advance(&mut pool.0, at(549)), []);
        assert_eq!(advance(&mut pool.0, at(550)), [Pid(12)]);
    }

    #[test]
    fn a_slot_that_is_removed_serves_while_the_only_other_one_rests() {
        let mut pool = Pool::new(2);
        pool.serve(0, 20);
        assert!(begin(Pid(10), &mut pool.0, DRAIN, at(0)));
        pool.0.tell(Event::Scale { workers: 1 }, at(100));
        assert!(begin(Pid(11), &mut pool.0, DRAIN, at(100)));
        assert_eq!(pool.fed(100), [1]);
        assert_eq!(advance(&mut pool.0, at(250)), [Pid(10)]);
        assert_eq!(pool.fed(250), [1], "the first one may still accept");
        pool.0.reap(Pid(10));
        assert_eq!((advance(&mut pool.0, at(300)), pool.fed(300)), (vec![], vec![0]));
        assert_eq!(advance(&mut pool.0, at(550)), [Pid(11)]);
    }

    #[test]
    fn a_successor_serves_while_half_of_the_slots_rest() {
        let mut pool = Pool::new(4);
        succeed(&mut pool.0);
        for slot in 0..4 {
            assert!(begin(Pid(10 + slot), &mut pool.0, DRAIN, at(0)));
        }
        pool.0.tell(Event::Stop(Stop::Drain), at(0));
        assert_eq!((pool.fed(0), ends_succession(&mut pool.0, at(0))), (vec![2, 3], false));
        assert_eq!(advance(&mut pool.0, at(250)), [Pid(10), Pid(11)]);
        assert_eq!(pool.fed(250), [2, 3], "they may still accept");
        pool.0.reap(Pid(10));
        pool.0.reap(Pid(11));
        assert_eq!((advance(&mut pool.0, at(300)), pool.fed(300)), (vec![], vec![0, 1]), "the successor serves there");
        assert_eq!(advance(&mut pool.0, at(550)), [Pid(12), Pid(13)]);
        pool.0.reap(Pid(12));
        assert!(!ends_succession(&mut pool.0, at(560)));
        pool.0.reap(Pid(13));
        assert!(ends_succession(&mut pool.0, at(570)) && !ends_succession(&mut pool.0, at(570)));
    }

    #[test]
    fn without_programs_or_with_one_slot_a_successor_takes_over_at_once() {
        let mut pool = Pool::new(1);
        succeed(&mut pool.0);
        assert!(!begin(Pid(10), &mut pool.0, DRAIN, at(0)) && !ends_succession(&mut pool.0, at(0)));
        let mut pool = Pool::new(2);
        for pid in [10, 11] {
            pool.0.get_mut(Pid(pid)).expect("it runs").ends.program = None;
        }
        succeed(&mut pool.0);
        assert!(!begin(Pid(10), &mut pool.0, DRAIN, at(0)) && !ends_succession(&mut pool.0, at(0)));
    }

    #[test]
    fn a_short_drain_leaves_most_of_its_time_to_the_program() {
        let mut pool = Pool::new(2);
        pool.serve(0, 20);
        pool.serve(1, 21);
        let short = Duration::from_millis(400);
        assert!(begin(Pid(10), &mut pool.0, short, at(0)) && begin(Pid(11), &mut pool.0, short, at(0)));
        assert_eq!(pool.fed(0), [1]);
        assert_eq!(advance(&mut pool.0, at(100)), [Pid(10), Pid(11)], "though one has not rested");
        assert_eq!(pool.fed(100), [0, 1], "the kernel must choose one");
    }

    #[test]
    fn only_programs_rest_and_only_such_as_have_served() {
        let mut pool = Pool::new(2);
        pool.serve(0, 20);
        pool.0.get_mut(Pid(10)).expect("it runs").progress = Progress::Listening;
        assert!(!begin(Pid(10), &mut pool.0, DRAIN, at(0)));
        let process = pool.0.get_mut(Pid(10)).expect("it runs");
        (process.progress, process.ends.program) = (Progress::Ready, None);
        assert!(!begin(Pid(10), &mut pool.0, DRAIN, at(0)));
    }
}
