//! Lame duck, giving up, and the application's policy for exits.

use super::*;

#[test]
fn a_lame_duck_serves_on_and_is_replaced_if_it_dies() {
    let policy = Policy::with(|policy| policy.shutdown.lame_duck = Duration::from_secs(5));
    let mut pool = Pool::with(policy, 1);
    pool.boot(0..1, 10);
    let delay = policy.shutdown.lame_duck;
    pool.tell(Event::Stop(Stop::Drain)).expect(&[Effect::Notice(Notice::LameDuck { delay })]);
    pool.tell(exited(10, 1)).expect(&[spawn(0, 2)]);
    pool.start(0, 20);
    pool.at(5 * SECOND).tell(Event::Tick).expect(&[Effect::ReleaseSockets, drain(20)]);
    pool.tell(exited(20, 0)).expect(&[STOPPED]);
    // A stronger stop does not wait.
    let mut pool = Pool::with(policy, 1);
    pool.boot(0..1, 10);
    pool.tell(Event::Stop(Stop::Drain)).tell(Event::Stop(Stop::Quick)).effects();
    assert_eq!(pool.stage(10), Some(Stage::Quitting));
}

#[test]
fn the_pool_ends_when_a_slot_fails_too_often() {
    let mut pool = Pool::with(Policy::with(|policy| policy.backoff.give_up = 3), 2);
    pool.boot(0..2, 10);
    for (pid, now) in [(10, 0), (20, 0), (21, SECOND)] {
        pool.at(now).tell(Event::Tick).effects();
        pool.tell(spawned(0, pid)).tell(exited(pid, 1));
    }
    let gave_up = Effect::Notice(Notice::GaveUp { slot: 0, failures: 3, reason: EXIT_1 });
    pool.expect(&[gave_up, Effect::ReleaseSockets, drain(11)]);
    let last = EXIT_1;
    pool.tell(exited(11, 0)).expect(&[Effect::Finish(Outcome::GaveUp { slot: 0, failures: 3, last })]);
}

/// The effect of each answer on a slot whose worker has just failed for the second time, and when the slot is started
/// again.
#[test]
fn the_application_decides_when_a_slot_is_started_again() {
    let second = Duration::from_secs(1);
    for (respawn, failures, at) in [
        (Respawn::Backoff, 2, Some(250..251)),
        (Respawn::Now, 1, Some(0..1)),
        (Respawn::After(second), 1, Some(1000..1001)),
        (Respawn::After(Duration::ZERO), 1, Some(0..1)),
        (Respawn::Never, 1, None),
    ] {
        let mut pool = Pool::ready(2);
        pool.tell(exited(10, 1)).expect(&[spawn(0, 2)]).start(0, 20);
        pool.tell(answered(20, 1, respawn));
        assert_eq!(pool.failures(0), failures, "{respawn:?}");
        pool.supervisor.effects.queue.retain(|effect| matches!(effect, Effect::Spawn { .. }));
        let due = if pool.effects().is_empty() { pool.deadline() } else { Some(0) };
        assert!(
            due == at.clone().and(due) && due.is_none_or(|due| at.expect("due").contains(&due)),
            "{respawn:?}: {due:?}"
        );
    }
}

#[test]
fn nobody_is_started_before_the_time_that_the_application_wants() {
    let mut pool = Pool::ready(1);
    pool.tell(answered(10, 1, Respawn::After(Duration::from_secs(60)))).expect(&[]);
    assert_eq!(pool.deadline(), Some(60 * SECOND));
    pool.at(59 * SECOND).tell(Event::Tick).expect(&[]);
    pool.at(60 * SECOND).tell(Event::Tick).expect(&[spawn(0, 2)]);
}

#[test]
fn first_starts_that_are_repeated_at_once_take_turns() {
    let mut pool = Pool::new(2);
    for (slot, pid, generation) in [(0, 10, 1), (1, 11, 1), (0, 12, 2), (1, 13, 2)] {
        pool.at(u64::try_from(pid).expect("positive")).expect(&[spawn(slot, generation)]);
        pool.tell(spawned(slot, pid)).tell(answered(pid, 1, Respawn::Now));
    }
}

#[test]
fn a_slot_that_is_left_empty_is_started_by_a_restart_or_by_scaling() {
    let empty = Effect::Notice(Notice::LeftEmpty { slot: 0 });
    for (command, effects) in [
        (Event::Restart, &[BEGUN, spawn(0, 2)][..]),
        (Event::Scale { workers: 2 }, &[spawn(0, 2)]),
        (Event::Scale { workers: 3 }, &[scaled(2, 3), spawn(0, 2), spawn(2, 1)]),
        (Event::Scale { workers: 1 }, &[scaled(2, 1), drain(11), spawn(0, 2)]),
        (Event::Tick, &[]),
    ] {
        let mut pool = Pool::ready(2);
        pool.tell(answered(10, 1, Respawn::Never)).expect(&[empty]);
        assert_eq!((pool.deadline(), pool.supervisor.slots().ready_workers()), (None, 1));
        pool.at(100 * SECOND).tell(command).expect(effects);
    }
}

#[test]
fn a_slot_that_is_left_empty_during_a_restart_does_not_hold_it_up() {
    let mut pool = Pool::ready(2);
    pool.tell(Event::Restart).effects();
    pool.start(0, 20);
    pool.tell(exited(10, 0)).effects();
    pool.tell(answered(20, 1, Respawn::Never)).effects();
    pool.start(1, 21);
    pool.expect(&[drain(11), DONE]);
}

#[test]
fn a_replacement_that_nobody_is_to_replace_leaves_its_predecessor() {
    let mut pool = Pool::ready(1);
    pool.tell(Event::Restart).effects();
    pool.tell(spawned(0, 20)).tell(answered(20, 1, Respawn::Never)).expect(&[aborted(0, EXIT_1)]);
    pool.tell(answered(10, 1, Respawn::Backoff)).expect(&[spawn(0, 3)]);
}

#[test]
fn a_pool_serves_when_its_other_slots_are_left_empty() {
    let mut pool = Pool::new(2);
    pool.expect(&[spawn(0, 1)]).tell(spawned(0, 10)).tell(answered(10, 1, Respawn::Never));
    pool.expect(&[Effect::Notice(Notice::LeftEmpty { slot: 0 }), spawn(1, 1)]).start(1, 11);
    pool.expect(&[Effect::Notice(Notice::AllReady { workers: 2 })]);
}

#[test]
fn a_pool_whose_slots_are_all_left_empty_ends_as_if_asked_to() {
    let mut pool = Pool::ready(2);
    let empty = |slot| Effect::Notice(Notice::LeftEmpty { slot });
    pool.tell(answered(10, 1, Respawn::Never)).expect(&[empty(0)]);
    let all = Effect::Notice(Notice::AllLeftEmpty);
    pool.tell(answered(11, 0, Respawn::Never)).expect(&[empty(1), all, Effect::ReleaseSockets, STOPPED]);
}

#[test]
fn the_application_may_stop_the_pool_when_a_worker_exits() {
    let mut pool = Pool::ready(2);
    pool.tell(answered(10, 1, Respawn::Stop)).expect(&[drain(11)]);
    pool.tell(exited(11, 0)).expect(&[STOPPED]);
    // A second exit does not shorten the lame duck.
    let mut pool = Pool::with(Policy::with(|policy| policy.shutdown.lame_duck = Duration::from_secs(5)), 2);
    pool.boot(0..2, 10);
    pool.tell(answered(10, 1, Respawn::Stop)).tell(answered(11, 1, Respawn::Stop)).effects();
    assert_eq!(pool.supervisor.state(), PoolState::LameDuck);
}

#[test]
fn what_the_application_answers_about_a_worker_that_was_told_to_leave_counts_for_nothing() {
    let mut pool = Pool::ready(2);
    pool.tell(Event::Disconnected { pid: Pid(10) }).expect(&[drain(10), spawn(0, 2)]).start(0, 20);
    pool.tell(answered(10, 1, Respawn::Stop)).expect(&[]);
}

#[test]
fn answers_of_the_application_do_not_make_the_pool_give_up() {
    let mut pool = Pool::with(Policy::with(|policy| policy.backoff.give_up = 2), 1);
    pool.boot(0..1, 10);
    for pid in 10..20 {
        pool.tell(answered(pid, 1, Respawn::Now)).effects();
        pool.start(0, pid + 1);
    }
    assert_eq!(pool.stage(20), Some(Stage::Ready));
    // Nor before any worker was ready.
    let mut pool = Pool::new(1);
    for pid in 10..20 {
        pool.effects();
        pool.tell(spawned(0, pid)).tell(answered(pid, 1, Respawn::Now));
    }
    assert!(!pool.supervisor.shutdown.is_stopping());
}
