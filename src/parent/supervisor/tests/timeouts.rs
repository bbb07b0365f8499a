//! Timeouts, and how a pool that never served gives up.

use super::*;

/// It would not be ready either when the boot timeout is over, which may be long, or never.
#[test]
fn a_worker_that_a_signal_has_stopped_before_it_was_ready_is_soon_killed() {
    let mut pool = Pool::ready(2);
    pool.tell(exited(11, 1)).expect(&[spawn(1, 2)]);
    pool.tell(spawned(1, 12)).expect(&[]);
    pool.at(SECOND).tell(Event::Suspended { pid: Pid(12) }).expect(&[]);
    pool.at(2 * SECOND).tell(Event::Resumed { pid: Pid(12) }).tell(Event::Tick).expect(&[]);
    assert_eq!(pool.deadline(), Some(60 * SECOND), "it runs again");
    pool.at(3 * SECOND).tell(Event::Suspended { pid: Pid(12) }).expect(&[]);
    pool.at(8 * SECOND - 1).tell(Event::Tick).expect(&[]);
    pool.at(8 * SECOND).tell(Event::Tick);
    assert_eq!(pool.effects()[0], kill(12, KillReason::Suspended));
}

#[test]
fn a_worker_that_is_not_ready_in_time_is_killed_and_replaced_without_waiting_for_its_exit() {
    let mut pool = Pool::ready(2);
    pool.tell(exited(11, 1)).expect(&[spawn(1, 2)]);
    pool.tell(spawned(1, 12)).expect(&[]);
    assert_eq!(pool.deadline(), Some(60 * SECOND));
    pool.at(60 * SECOND - 1).tell(Event::Tick).expect(&[]);
    pool.at(60 * SECOND).tell(Event::Tick);
    let effects = pool.effects();
    assert_eq!(effects[0], kill(12, KillReason::BootTimeout));
    assert!(matches!(effects[1..], [Effect::Notice(Notice::BackingOff { slot: 1, failures: 2, .. })]));
    // It hangs in the kernel, and so does its replacement. Now the slot is full.
    pool.at(61 * SECOND).tell(Event::Tick).expect(&[spawn(1, 3)]);
    pool.tell(spawned(1, 13)).at(121 * SECOND).tell(Event::Tick);
    assert_eq!(pool.effects()[0], kill(13, KillReason::BootTimeout));
    pool.at(200 * SECOND).tell(Event::Tick).expect(&[]);
    assert_eq!(pool.deadline(), None);
    pool.tell(exited(12, 9)).expect(&[spawn(1, 4)]);
}

#[test]
fn only_a_tick_judges_time_outs() {
    let mut pool = Pool::new(1);
    pool.effects();
    pool.tell(spawned(0, 10)).at(90 * SECOND).tell(listening(10)).expect(&[]);
    pool.tell(ready(10)).tell(Event::Tick);
    assert_eq!(pool.stage(10), Some(Stage::Ready));
}

/// After a freeze of a minute, half a second before it is due, each timeout is due as much later.
#[test]
fn frozen_time_counts_for_no_time_out_but_for_age() {
    type Begin = fn() -> Pool;
    let boot = || {
        let mut pool = Pool::new(1);
        pool.effects();
        pool.tell(spawned(0, 10));
        pool
    };
    let successor = || {
        let mut pool = Pool::ready(1);
        pool.tell(Event::Upgrade).tell(Event::SuccessorSpawned { pid: Pid(50) });
        pool
    };
    let drain = || {
        let mut pool = Pool::ready(1);
        pool.tell(Event::Stop(Stop::Drain));
        pool
    };
    let lame_duck = || {
        let mut pool = Pool::with(Policy::with(|policy| policy.shutdown.lame_duck = Duration::from_secs(5)), 1);
        pool.boot(0..1, 10);
        pool.tell(Event::Stop(Stop::Drain));
        pool
    };
    let backoff = || {
        let mut pool = Pool::ready(1);
        pool.tell(answered(10, 1, Respawn::After(Duration::from_secs(9))));
        pool
    };
    let begins: [Begin; 5] = [boot, successor, drain, lame_duck, backoff];
    for (case, begin) in begins.into_iter().enumerate() {
        let mut pool = begin();
        pool.effects();
        let due = pool.deadline().expect("something is due");
        pool.at(due - 500 + 60 * SECOND).tell(Event::Frozen(Duration::from_secs(60))).tell(Event::Tick).expect(&[]);
        assert_eq!(pool.deadline(), Some(due + 60 * SECOND), "case {case}");
        pool.at(due + 60 * SECOND).tell(Event::Tick);
        assert!(!pool.effects().is_empty(), "case {case}");
    }
    let mut pool = Pool::with(Policy::with(|policy| policy.max_age = Duration::from_secs(100)), 1);
    pool.boot(0..1, 10);
    let due = pool.deadline();
    pool.at(60 * SECOND).tell(Event::Frozen(Duration::from_secs(60)));
    assert_eq!(pool.deadline(), due);
}

#[test]
fn a_time_out_of_zero_is_never() {
    let never = Policy::with(|policy| {
        (policy.timeouts.boot, policy.timeouts.drain) = (Duration::ZERO, Duration::ZERO);
        policy.timeouts.quick = Duration::ZERO;
        policy.shutdown.repeat = Duration::MAX;
    });
    let mut pool = Pool::with(never, 1);
    pool.effects();
    pool.tell(spawned(0, 10));
    for event in [Event::Tick, Event::Stop(Stop::Drain), Event::Stop(Stop::Quick)] {
        let now = pool.now + 1_000_000 * SECOND;
        pool.tell(event).at(now).tell(Event::Tick);
        assert_eq!(pool.deadline(), None);
    }
    pool.expect(&[drain(10), quit(10)]);
}

#[test]
fn a_stalled_worker_is_killed_and_has_served() {
    let mut pool = Pool::ready(1);
    pool.tell(stalled(10)).expect(&[kill(10, KillReason::Stalled), spawn(0, 2)]);
    pool.tell(spawned(0, 11)).tell(stalled(11)).tell(stalled(10)).expect(&[]);
    let exit = Exit::Signal { signal: 9, core_dumped: false };
    pool.tell(Event::Exited { pid: Pid(10), exit, has_served: false, respawn: Respawn::Backoff }).expect(&[]);
    assert_eq!(pool.failures(0), 0);
}

#[test]
fn the_pool_gives_up_when_every_slot_failed_and_none_was_ever_ready() {
    let mut pool = Pool::new(3);
    pool.expect(&[spawn(0, 1)]);
    pool.tell(spawned(0, 10)).tell(listening(10)).expect(&[spawn(1, 1)]);
    pool.tell(Event::SpawnFailed { slot: 1 });
    assert!(matches!(
        pool.effects()[..],
        [Effect::Notice(Notice::BackingOff { slot: 1, .. }), Effect::Spawn { slot: 2, .. }]
    ));
    pool.tell(exited(10, 7)).expect(&[spawn(0, 2)]);
    pool.tell(spawned(0, 11)).tell(spawned(2, 12)).expect(&[]);
    // The last slot's first failure decides. Living workers are told to leave, and then the pool ends.
    pool.tell(exited(12, 1)).expect(&[quit(11)]);
    pool.tell(Event::Restart)
        .tell(Event::Scale { workers: 9 })
        .tell(ready(11))
        .tell(Event::Stop(Stop::Drain))
        .expect(&[]);
    pool.tell(exited(11, 0)).expect(&[boot_failed(EXIT_1)]);
    assert_eq!(pool.deadline(), None);
}

#[test]
fn the_pool_gives_up_on_a_boot_time_out() {
    let mut pool = Pool::new(1);
    pool.effects();
    pool.tell(spawned(0, 10)).at(60 * SECOND).tell(Event::Tick).expect(&[kill(10, KillReason::BootTimeout)]);
    pool.tell(exited(10, 9)).expect(&[boot_failed(Failure::Kill(KillReason::BootTimeout))]);
}

#[test]
fn the_pool_does_not_give_up_once_a_worker_was_ready() {
    let mut pool = Pool::new(2);
    pool.boot(0..1, 10);
    pool.tell(spawned(1, 11)).tell(exited(10, 1)).tell(exited(11, 1));
    pool.expect(&[spawn(0, 2)]).at(250).tell(Event::Tick).expect(&[spawn(1, 2)]);
    assert!(!pool.supervisor.shutdown.is_stopping());
}
