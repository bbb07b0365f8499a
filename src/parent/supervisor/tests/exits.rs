//! The classification of exits.

use super::*;
use crate::shared::state::Reason;

const KILLED: Exit = Exit::Signal { signal: 9, core_dumped: false };

/// Forks the next process of the slot.
fn fork(pool: &mut Pool, slot: SlotId, pid: i32) -> &mut Pool {
    pool.effects();
    pool.tell(spawned(slot, pid))
}

fn gone(pool: &Pool, pid: i32, exit: Exit) -> (Departure, Option<Reason>) {
    let gone = pool.supervisor.gone(Pid(pid), exit).expect("it is one of ours");
    (gone.departure, gone.restart)
}

#[test]
fn an_exit_that_nobody_has_asked_for_is_told_by_its_status() {
    let mut pool = Pool::ready(1);
    let unasked = Departure::Unasked { was_ready: true };
    assert_eq!(gone(&pool, 10, Exit::Code(0)), (unasked, Some(Reason::Exited)));
    assert_eq!(gone(&pool, 10, KILLED), (unasked, Some(Reason::Killed)));
    pool.tell(exited(10, 1));
    fork(&mut pool, 0, 20);
    let unready = Departure::Unasked { was_ready: false };
    assert_eq!(gone(&pool, 20, Exit::Code(1)), (unready, Some(Reason::Boot)));
    assert_eq!(pool.supervisor.gone(Pid(10), Exit::Code(1)), None);
}

#[test]
fn one_that_the_pool_had_to_end_has_failed_and_was_not_asked_to_leave() {
    for abort_stalled in [false, true] {
        let mut pool = Pool::with(Policy::with(|policy| policy.abort_stalled = abort_stalled), 1);
        pool.boot(0..1, 10);
        pool.tell(stalled(10));
        assert_eq!(gone(&pool, 10, KILLED), (Departure::Failed, Some(Reason::Stalled)));
    }
    let mut pool = Pool::new(1);
    pool.effects();
    pool.tell(spawned(0, 10)).at(60 * SECOND).tell(Event::Tick);
    let (departure, _) = gone(&pool, 10, KILLED);
    assert_eq!(departure, Departure::Failed);
    assert!(departure.was_told() && !departure.was_asked());
}

#[test]
fn one_that_was_asked_to_leave_counts_by_what_its_replacement_is_for() {
    // Another process takes its place at once.
    let mut pool = Pool::ready(2);
    pool.tell(Event::Disconnected { pid: Pid(10) });
    assert_eq!(gone(&pool, 10, Exit::Code(0)), (Departure::Asked, Some(Reason::Restart)));
    // No process takes its place.
    pool.tell(Event::Scale { workers: 1 });
    assert_eq!(gone(&pool, 11, Exit::Code(0)), (Departure::Asked, None));
    // Because of its limits.
    let mut pool = Pool::ready(2);
    pool.tell(Event::Recycle { pid: Pid(10), why: Recycle::Requests });
    fork(&mut pool, 0, 20).tell(ready(20));
    assert_eq!(gone(&pool, 10, Exit::Code(0)), (Departure::Asked, Some(Reason::Recycled)));
    // Because of a restart.
    let mut pool = Pool::ready(1);
    pool.tell(Event::Restart);
    fork(&mut pool, 0, 20).tell(ready(20));
    assert_eq!(gone(&pool, 10, Exit::Code(0)), (Departure::Asked, Some(Reason::Restart)));
    // The replacement for its limits has failed; a restart replaces it.
    let mut pool = Pool::ready(1);
    pool.tell(Event::Recycle { pid: Pid(10), why: Recycle::Memory });
    fork(&mut pool, 0, 20).tell(exited(20, 1));
    pool.at(SECOND).tell(Event::Restart).tell(Event::Tick);
    fork(&mut pool, 0, 30).tell(ready(30));
    assert_eq!(gone(&pool, 10, Exit::Code(0)), (Departure::Asked, Some(Reason::Restart)));
}

#[test]
fn in_a_pool_that_ends_nothing_is_a_restart() {
    let mut pool = Pool::ready(1);
    pool.tell(stalled(10)).tell(Event::Stop(Stop::Drain));
    assert_eq!(gone(&pool, 10, KILLED), (Departure::Failed, None));
    let mut pool = Pool::ready(1);
    pool.tell(Event::Stop(Stop::Force));
    assert_eq!(gone(&pool, 10, KILLED), (Departure::Forced, None));
}
