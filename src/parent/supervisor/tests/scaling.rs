//! More and fewer slots.

use super::*;

#[test]
fn scaling_up_adds_slots_and_scaling_down_retires_the_highest() {
    let mut pool = Pool::ready(2);
    pool.tell(Event::Scale { workers: 4 }).expect(&[scaled(2, 4), spawn(2, 1)]);
    pool.tell(spawned(2, 12)).expect(&[]);
    pool.tell(listening(12)).expect(&[spawn(3, 1)]);
    // The fork of slot 3 is in progress, and the worker of slot 2 is still starting.
    pool.tell(Event::Scale { workers: 1 }).expect(&[scaled(4, 1), drain(11), drain(12)]);
    pool.tell(spawned(3, 13)).expect(&[drain(13)]);
    pool.tell(exited(12, 0)).expect(&[retire(2)]);
    pool.tell(exited(13, 1)).tell(exited(11, 9)).expect(&[retire(3), retire(1)]);
    pool.tell(Event::Scale { workers: 0 }).tell(Event::Scale { workers: 1 }).expect(&[]);
    // A slot with the same number is a new one.
    pool.tell(Event::Scale { workers: 2 }).expect(&[scaled(1, 2), spawn(1, 1)]);
}

#[test]
fn scaling_fails_when_a_worker_never_serves_and_only_until_all_have() {
    let failed = |slot| Effect::Notice(Notice::ScalingFailed { slot, wanted: 3, reason: EXIT_1 });
    let mut pool = Pool::ready(2);
    pool.tell(Event::Scale { workers: 3 }).expect(&[scaled(2, 3), spawn(2, 1)]);
    // The number of workers wanted does not change. The failure is reported once, and again after another request.
    pool.tell(spawned(2, 12)).tell(exited(12, 1)).expect(&[failed(2), spawn(2, 2)]);
    pool.tell(spawned(2, 13)).tell(exited(13, 1));
    assert!(matches!(pool.effects()[..], [Effect::Notice(Notice::BackingOff { .. })]));
    pool.at(SECOND).tell(Event::Scale { workers: 3 }).expect(&[spawn(2, 3)]);
    // A ready worker has not served yet.
    pool.start(2, 14);
    pool.at(2 * SECOND - 1).tell(exited(14, 1));
    assert_eq!(pool.effects()[0], failed(2));
    pool.at(9 * SECOND).tell(Event::Scale { workers: 3 }).effects();
    pool.start(2, 15);
    pool.at(10 * SECOND).tell(served(11)).expect(&[spawn(1, 2)]);
    pool.tell(spawned(1, 21)).tell(exited(21, 1));
    assert!(!pool.effects().iter().any(|effect| matches!(effect, Effect::Notice(Notice::ScalingFailed { .. }))));
}

#[test]
fn scaling_down_takes_back_a_start_that_was_not_given_out() {
    let mut pool = Pool::ready(1);
    pool.tell(Event::Scale { workers: 2 }).tell(Event::Scale { workers: 1 });
    pool.expect(&[scaled(1, 2), scaled(2, 1), retire(1)]);
}

#[test]
fn a_slot_wanted_again_is_started_as_soon_as_there_is_room() {
    let mut pool = Pool::ready(2);
    pool.tell(Event::Restart).effects();
    pool.start(0, 20);
    pool.effects();
    pool.tell(spawned(1, 21));
    // Slot 1 has a worker and its replacement; both leave.
    pool.tell(Event::Scale { workers: 1 });
    pool.expect(&[scaled(2, 1), drain(11), drain(21), DONE]);
    pool.tell(Event::Scale { workers: 2 }).expect(&[scaled(1, 2)]);
    pool.tell(exited(21, 0)).expect(&[spawn(1, 3)]);
    pool.start(1, 31);
    pool.tell(exited(11, 0)).expect(&[]);
}

#[test]
fn a_restart_reaches_slots_added_meanwhile_and_forgets_removed_ones() {
    let mut pool = Pool::ready(1);
    pool.tell(Event::Restart).tell(Event::Scale { workers: 2 });
    pool.expect(&[BEGUN, spawn(0, 2), scaled(1, 2), spawn(1, 1)]);
    pool.start(0, 20);
    pool.expect(&[drain(10)]);
    pool.start(1, 21);
    pool.expect(&[DONE]);
    assert_eq!(pool.supervisor.slots().ready_workers(), 2);
}
