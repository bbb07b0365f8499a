//! Rolling restarts, recycling, and workers stopped by a signal.

use super::*;

#[test]
fn a_rolling_restart_replaces_slot_by_slot_and_drains_only_what_is_replaced() {
    let mut pool = Pool::ready(2);
    pool.tell(Event::Restart).expect(&[BEGUN, spawn(0, 2)]);
    pool.tell(spawned(0, 20)).tell(listening(20)).expect(&[]);
    // The restart does not wait for the exit of the old worker.
    pool.tell(ready(20)).expect(&[drain(10), spawn(1, 2)]);
    pool.tell(spawned(1, 21)).tell(exited(10, 0)).expect(&[]);
    pool.tell(ready(21)).expect(&[drain(11), DONE]);
    pool.at(25 * SECOND).tell(Event::Tick).expect(&[kill(11, KillReason::DrainTimeout)]);
    pool.tell(exited(11, 9)).expect(&[]);
    assert_eq!((pool.failures(0), pool.failures(1)), (0, 0));
    assert_eq!(pool.deadline(), None);
}

#[test]
fn a_replacement_that_fails_aborts_the_restart_and_the_old_workers_stay() {
    type Fail = fn(&mut Pool) -> &mut Pool;
    let cases: [(Fail, Failure); 4] = [
        (|pool| pool.tell(spawned(1, 21)).tell(exited(21, 1)), EXIT_1),
        (|pool| pool.tell(spawned(1, 21)).tell(exited(21, 0)), Failure::Exit(Exit::Code(0))),
        (|pool| pool.tell(Event::SpawnFailed { slot: 1 }), Failure::Spawn),
        (|pool| pool.tell(spawned(1, 21)).at(60 * SECOND).tell(Event::Tick), Failure::Kill(KillReason::BootTimeout)),
    ];
    for (fail, reason) in cases {
        let mut pool = Pool::ready(3);
        pool.tell(Event::Restart).effects();
        pool.start(0, 20);
        pool.expect(&[drain(10), spawn(1, 2)]).tell(exited(10, 0));
        fail(&mut pool);
        let effects = pool.effects();
        let killed = reason == Failure::Kill(KillReason::BootTimeout);
        let expected = [kill(21, KillReason::BootTimeout), aborted(1, reason)];
        assert_eq!(effects, expected[usize::from(!killed)..], "{reason}");
        for pid in [20, 11, 12] {
            assert_eq!(pool.stage(pid), Some(Stage::Ready), "{reason}: {pid} stays");
        }
        assert_eq!((pool.failures(1), pool.deadline()), (0, None), "{reason}: nothing is tried again");
        pool.tell(exited(21, 9)).tell(Event::Restart).expect(&[BEGUN, spawn(0, 3)]);
    }
}

#[test]
fn restarts_asked_for_at_once_are_one() {
    let mut pool = Pool::ready(2);
    pool.tell(Event::Restart).tell(Event::Restart).expect(&[BEGUN, spawn(0, 2), EXTENDED]);
    pool.tell(spawned(0, 20)).tell(ready(20)).expect(&[drain(10), spawn(1, 2)]);
    pool.tell(spawned(1, 21)).tell(ready(21)).expect(&[drain(11), DONE]);
}

#[test]
fn a_restart_asked_for_meanwhile_reaches_what_was_replaced_before() {
    let mut pool = Pool::ready(1);
    pool.tell(Event::Restart).expect(&[BEGUN, spawn(0, 2)]);
    pool.tell(spawned(0, 20)).tell(Event::Restart).tell(Event::Restart).expect(&[EXTENDED, EXTENDED]);
    // The slot is full until the first worker has gone.
    pool.tell(ready(20)).expect(&[drain(10)]);
    pool.tell(exited(10, 0)).expect(&[spawn(0, 3)]);
    pool.tell(spawned(0, 21)).tell(exited(21, 1));
    pool.expect(&[aborted(0, EXIT_1)]);
    pool.tell(Event::Restart).expect(&[BEGUN, spawn(0, 4)]);
    pool.start(0, 22);
    pool.expect(&[drain(20), DONE]);
}

#[test]
fn a_surge_replaces_several_at_a_time() {
    let mut pool = Pool::with(Policy::with(|policy| policy.surge = 2), 3);
    pool.boot(0..3, 10);
    pool.tell(Event::Restart).expect(&[BEGUN, spawn(0, 2), spawn(1, 2)]);
    pool.tell(spawned(0, 20)).tell(spawned(1, 21)).tell(ready(21)).expect(&[drain(11), spawn(2, 2)]);
    // A failure cancels the other replacements, and the old workers stay.
    pool.tell(spawned(2, 22)).tell(exited(22, 1)).expect(&[aborted(2, EXIT_1), drain(20)]);
    assert_eq!((pool.stage(10), pool.stage(12)), (Some(Stage::Ready), Some(Stage::Ready)));
    pool.tell(ready(20)).tell(exited(20, 0)).expect(&[]);
    assert_eq!(pool.deadline().map(|at| at > 0), Some(true), "pid 11 drains");
}

#[test]
fn a_worker_that_is_due_is_replaced_when_its_replacement_is_ready() {
    let mut pool = Pool::ready(3);
    let recycle = |pid, why| Event::Recycle { pid: Pid(pid), why };
    let recycling = |slot, why| Effect::Notice(Notice::Recycling { slot, why });
    pool.tell(recycle(11, Recycle::Requests)).expect(&[recycling(1, Recycle::Requests), spawn(1, 2)]);
    // Never two at once.
    pool.tell(recycle(10, Recycle::Memory)).tell(spawned(1, 21)).expect(&[]);
    pool.tell(ready(21)).expect(&[drain(11), recycling(0, Recycle::Memory), spawn(0, 2)]);
    // A replacement that fails changes nothing, and is tried again later.
    pool.tell(spawned(0, 20)).tell(exited(20, 1));
    let delay = Policy::default().backoff.max;
    pool.expect(&[Effect::Notice(Notice::RecyclingFailed { slot: 0, reason: EXIT_1, delay })]);
    assert_eq!((pool.stage(10), pool.failures(0)), (Some(Stage::Ready), 0));
    pool.tell(exited(11, 0)).at(5 * SECOND).tell(Event::Tick);
    pool.expect(&[recycling(0, Recycle::Memory), spawn(0, 3)]);
    // A restart replaces all workers anyway.
    pool.tell(spawned(0, 30)).tell(ready(30)).expect(&[drain(10)]);
    pool.tell(recycle(12, Recycle::Requests)).tell(Event::Restart).effects();
    pool.tell(spawned(2, 32)).tell(ready(32)).tell(exited(12, 0)).effects();
    assert_eq!(pool.stage(21), Some(Stage::Ready));
}

#[test]
fn workers_grow_old_at_different_times() {
    let mut pool = Pool::with(Policy::with(|policy| policy.max_age = Duration::from_secs(100)), 2);
    pool.boot(0..2, 10);
    let ages: Vec<_> = pool.supervisor.slots().processes().filter_map(|(_, process)| process.expires).collect();
    assert_ne!(ages[0].0, ages[1].0);
    assert!(ages.iter().all(|(at, _)| (90 * SECOND..=100 * SECOND).contains(&at.as_millis())), "{ages:?}");
    let first = pool.deadline().expect("the first to be due");
    pool.at(first - 1).tell(Event::Tick).expect(&[]);
    pool.at(first).tell(Event::Tick);
    assert!(matches!(pool.effects()[..], [Effect::Notice(Notice::Recycling { .. }), Effect::Spawn { .. }]));
}

#[test]
fn a_worker_that_a_signal_has_stopped_is_replaced_at_once() {
    let mut pool = Pool::ready(2);
    let replacing = Effect::Notice(Notice::Replacing { slot: 0 });
    pool.tell(Event::Suspended { pid: Pid(10) }).expect(&[replacing, spawn(0, 2)]);
    assert_eq!(pool.supervisor.slots().ready_workers(), 1);
    pool.tell(spawned(0, 20)).tell(ready(20)).expect(&[drain(10)]);
    // It runs again, and finishes its requests.
    pool.tell(Event::Resumed { pid: Pid(10) }).tell(exited(10, 0)).expect(&[]);
    assert_eq!((pool.stage(20), pool.failures(0)), (Some(Stage::Ready), 0));
    // A worker that runs again before its replacement is ready stays.
    pool.tell(Event::Suspended { pid: Pid(11) }).effects();
    pool.tell(spawned(1, 21)).tell(Event::Resumed { pid: Pid(11) }).expect(&[drain(21)]);
    pool.tell(ready(21)).tell(exited(21, 0)).expect(&[]);
}

#[test]
fn a_disconnected_worker_drains_while_its_slot_gets_another() {
    let mut pool = Pool::ready(2);
    pool.tell(Event::Disconnected { pid: Pid(10) }).expect(&[drain(10), spawn(0, 2)]);
    // A repeated event, and one about an unknown process.
    pool.tell(Event::Disconnected { pid: Pid(10) }).tell(Event::Disconnected { pid: Pid(99) }).expect(&[]);
    pool.start(0, 20);
    pool.tell(Event::Disconnected { pid: Pid(20) }).expect(&[drain(20)]);
    // A slot has at most two.
    pool.tell(exited(10, 0)).expect(&[spawn(0, 3)]);
    pool.tell(exited(20, 1)).expect(&[]);
    assert_eq!(pool.failures(0), 0);
    pool.tell(Event::Stop(Stop::Drain)).effects();
    pool.tell(Event::Disconnected { pid: Pid(11) }).expect(&[]);
}

#[test]
fn replacements_of_a_stopped_worker_back_off() {
    let mut pool = Pool::ready(2);
    pool.tell(Event::Suspended { pid: Pid(10) }).effects();
    pool.tell(spawned(0, 20)).tell(exited(20, 1)).effects();
    pool.tell(spawned(0, 21)).tell(exited(21, 1));
    assert!(matches!(pool.effects()[..], [Effect::Notice(Notice::BackingOff { slot: 0, .. })]));
    assert_eq!(pool.deadline(), Some(250));
}

#[test]
fn a_stalled_worker_may_say_where_before_it_is_killed() {
    let mut pool = Pool::with(Policy::with(|policy| policy.abort_stalled = true), 1);
    pool.boot(0..1, 10);
    pool.tell(stalled(10)).tell(stalled(10)).expect(&[Effect::Abort { pid: Pid(10) }, spawn(0, 2)]);
    pool.start(0, 20);
    pool.at(SECOND).tell(Event::Tick).expect(&[kill(10, KillReason::Stalled)]);
    pool.tell(exited(10, 0)).expect(&[]);
}

#[test]
fn a_replacement_takes_over_when_the_old_worker_dies_first() {
    for death in [exited(10, 1), stalled(10)] {
        let mut pool = Pool::ready(2);
        pool.tell(Event::Restart).expect(&[BEGUN, spawn(0, 2)]);
        pool.tell(spawned(0, 20)).tell(death).tell(exited(10, 1));
        assert!(!pool.effects().iter().any(|effect| matches!(effect, Effect::Spawn { .. })));
        pool.tell(ready(20)).expect(&[spawn(1, 2)]);
    }
    // If it fails after all, the slot is started like any other.
    let mut pool = Pool::ready(1);
    pool.tell(Event::Restart).expect(&[BEGUN, spawn(0, 2)]);
    pool.tell(spawned(0, 20)).tell(exited(10, 1)).tell(exited(20, 1));
    let effects = pool.effects();
    assert!(matches!(effects[0], Effect::Notice(Notice::BackingOff { slot: 0, failures: 2, .. })));
    assert_eq!(effects[1..], [aborted(0, EXIT_1)]);
    pool.at(SECOND).tell(Event::Tick).expect(&[spawn(0, 3)]);
}

#[test]
fn a_slot_that_backs_off_does_not_hold_a_restart_up_but_ends_it() {
    let backing_off = || {
        let mut pool = Pool::ready(2);
        pool.tell(exited(10, 1)).effects();
        pool.tell(spawned(0, 13)).tell(exited(13, 1)).effects();
        pool.tell(Event::Restart).expect(&[BEGUN, spawn(1, 2)]);
        pool.tell(spawned(1, 21));
        pool
    };
    let mut pool = backing_off();
    pool.tell(ready(21)).expect(&[drain(11)]);
    pool.at(SECOND).tell(Event::Tick).expect(&[spawn(0, 3)]);
    pool.start(0, 20);
    pool.expect(&[DONE]);
    let mut pool = backing_off();
    pool.at(SECOND).tell(Event::Tick).expect(&[spawn(0, 3)]);
    pool.tell(spawned(0, 20)).tell(exited(20, 1));
    assert_eq!(pool.effects()[1..], [aborted(0, EXIT_1), drain(21)]);
    assert_eq!(pool.stage(11), Some(Stage::Ready));
}

#[test]
fn a_restart_replaces_even_a_worker_that_was_still_starting() {
    let mut pool = Pool::ready(1);
    pool.tell(exited(10, 1)).expect(&[spawn(0, 2)]);
    pool.tell(spawned(0, 20)).tell(Event::Restart).expect(&[BEGUN]);
    pool.tell(ready(20)).expect(&[spawn(0, 3)]);
    pool.start(0, 21);
    pool.expect(&[drain(20), DONE]);
    // Its failure is not the restart's.
    let mut pool = Pool::ready(1);
    pool.tell(exited(10, 1)).expect(&[spawn(0, 2)]);
    pool.tell(spawned(0, 20)).tell(Event::Restart).expect(&[BEGUN]);
    pool.tell(exited(20, 1)).effects();
    pool.at(SECOND).tell(Event::Tick).expect(&[spawn(0, 3)]);
    pool.start(0, 21);
    pool.expect(&[DONE]);
}
