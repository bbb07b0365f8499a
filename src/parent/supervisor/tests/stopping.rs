//! Stops, and news that comes too late.

use super::*;

#[test]
fn stops_escalate_and_end_the_pool_once() {
    let mut pool = Pool::ready(2);
    pool.tell(Event::Stop(Stop::Drain)).expect(&[drain(10), drain(11)]);
    pool.at(10).tell(Event::Stop(Stop::Drain)).tell(Event::Restart).tell(Event::Scale { workers: 5 }).expect(&[]);
    assert_eq!(pool.deadline(), Some(25 * SECOND));
    pool.tell(Event::Stop(Stop::Quick)).expect(&[quit(10), quit(11)]);
    pool.at(20).tell(Event::Stop(Stop::Drain)).expect(&[]);
    pool.at(SECOND + 10).tell(Event::Tick);
    pool.expect(&[kill(10, KillReason::QuickTimeout), kill(11, KillReason::QuickTimeout)]);
    pool.tell(Event::Stop(Stop::Force)).tell(exited(10, 9)).expect(&[]);
    pool.tell(exited(11, 9)).expect(&[STOPPED]);
    assert_eq!(pool.deadline(), None);
    for event in [Event::Stop(Stop::Force), Event::Tick, Event::Restart, exited(11, 9), spawned(0, 12)] {
        pool.tell(event).expect(&[]);
    }
}

/// It is told to finish, and could not.
#[test]
fn a_worker_that_a_signal_has_stopped_runs_again_when_the_pool_ends() {
    let mut pool = Pool::ready(2);
    pool.tell(Event::Suspended { pid: Pid(10) }).effects();
    pool.tell(spawned(0, 20)).tell(ready(20)).expect(&[drain(10)]);
    let resume = Effect::Resume { pid: Pid(10) };
    pool.tell(Event::Stop(Stop::Drain)).expect(&[drain(20), drain(11), resume]);
    // It may stop itself all the time.
    pool.tell(Event::Resumed { pid: Pid(10) }).tell(Event::Suspended { pid: Pid(10) }).expect(&[]);
}

#[test]
fn requests_to_stop_within_a_second_are_one_and_a_later_one_forces() {
    let lame_duck = Duration::from_secs(5);
    for (requests, expected) in [
        // The strongest request within a second of the first.
        (&[(0, Stop::Drain), (3, Stop::Drain), (999, Stop::Drain)][..], Stage::Draining),
        (&[(0, Stop::Drain), (3, Stop::Quick), (5, Stop::Drain)], Stage::Quitting),
        (&[(0, Stop::Quick), (999, Stop::Drain)], Stage::Quitting),
        // Any later request, even within a second of another.
        (&[(0, Stop::Drain), (999, Stop::Drain), (1000, Stop::Drain)], Stage::Killing(KillReason::Forced)),
        (&[(0, Stop::Quick), (1000, Stop::Drain)], Stage::Killing(KillReason::Forced)),
    ] {
        for lame_duck in [Duration::ZERO, lame_duck] {
            let mut pool = Pool::with(Policy::with(|policy| policy.shutdown.lame_duck = lame_duck), 1);
            pool.boot(0..1, 10);
            for (at, how) in requests {
                pool.at(*at).tell(Event::Stop(*how));
            }
            let waits = expected == Stage::Draining && !lame_duck.is_zero();
            let expected = if waits { Stage::Ready } else { expected };
            assert_eq!(pool.stage(10), Some(expected), "{requests:?} {lame_duck:?}");
        }
    }
    // A pool that stops by itself has not been asked to yet.
    let mut pool = Pool::ready(1);
    pool.supervisor.stop(Stop::Drain, Outcome::Replaced);
    pool.at(5 * SECOND).tell(Event::Stop(Stop::Drain));
    assert_eq!(pool.stage(10), Some(Stage::Draining));
    pool.at(6 * SECOND).tell(Event::Stop(Stop::Drain));
    assert_eq!(pool.stage(10), Some(Stage::Killing(KillReason::Forced)));
}

#[test]
fn a_stop_reaches_a_fork_in_flight() {
    let cases = [
        (Stop::Drain, drain(10), 25 * SECOND, KillReason::DrainTimeout),
        (Stop::Quick, quit(10), SECOND, KillReason::QuickTimeout),
    ];
    for (stop, told, time_out, reason) in cases {
        let mut pool = Pool::new(2);
        pool.expect(&[spawn(0, 1)]);
        pool.tell(Event::Stop(stop)).at(100).expect(&[]);
        pool.tell(spawned(0, 10)).expect(&[told]);
        assert_eq!(pool.deadline(), Some(100 + time_out));
        pool.at(100 + time_out).tell(Event::Tick).expect(&[kill(10, reason)]);
        pool.tell(exited(10, 9)).expect(&[STOPPED]);
    }
    // The strongest stop counts, not the latest.
    let mut pool = Pool::new(2);
    pool.expect(&[spawn(0, 1)]);
    pool.tell(Event::Stop(Stop::Quick)).tell(Event::Stop(Stop::Drain)).tell(spawned(0, 10)).expect(&[quit(10)]);
    let mut pool = Pool::new(2);
    pool.expect(&[spawn(0, 1)]);
    pool.tell(Event::Stop(Stop::Force)).tell(spawned(0, 10)).expect(&[kill(10, KillReason::Forced)]);
    let mut pool = Pool::new(2);
    pool.expect(&[spawn(0, 1)]);
    pool.tell(Event::Stop(Stop::Drain)).tell(Event::SpawnFailed { slot: 0 }).expect(&[STOPPED]);
    let mut pool = Pool::new(2);
    pool.tell(Event::Stop(Stop::Drain)).expect(&[STOPPED]);
}

#[test]
fn a_stop_ends_a_restart() {
    let mut pool = Pool::ready(2);
    pool.tell(Event::Restart).tell(Event::Restart).effects();
    pool.tell(spawned(0, 20)).tell(Event::Stop(Stop::Drain)).expect(&[drain(10), drain(20), drain(11)]);
    for pid in [20, 10] {
        pool.tell(exited(pid, 1)).expect(&[]);
    }
    pool.tell(exited(11, 1)).expect(&[STOPPED]);
}

#[test]
fn queued_effects_die_with_their_process() {
    let mut pool = Pool::ready(2);
    pool.tell(Event::Stop(Stop::Drain)).tell(Event::Stop(Stop::Quick)).tell(Event::Stop(Stop::Force));
    pool.tell(exited(10, 0)).expect(&[drain(11), quit(11), kill(11, KillReason::Forced)]);
}

#[test]
fn late_news_does_not_revive_a_leaving_worker() {
    let mut pool = Pool::ready(1);
    pool.tell(Event::Scale { workers: 2 }).effects();
    pool.tell(spawned(1, 11)).tell(Event::Scale { workers: 1 }).effects();
    pool.tell(listening(11)).tell(ready(11)).expect(&[]);
    assert_eq!(pool.stage(11), Some(Stage::Draining));
}

#[test]
fn a_pid_names_one_process() {
    let mut pool = Pool::ready(1);
    pool.tell(Event::Scale { workers: 2 }).effects();
    pool.tell(spawned(1, 10)).tell(listening(10)).tell(exited(10, 1));
    assert_eq!(pool.effects().last(), Some(&spawn(0, 2)));
    assert_eq!(pool.stage(10), None);
    pool.tell(spawned(1, 10));
    assert_eq!(pool.stage(10), Some(Stage::Starting), "a reaped process's pid may be used again");
}

#[test]
fn nothing_is_due_while_all_is_well() {
    let mut pool = Pool::ready(4);
    assert_eq!(pool.deadline(), None);
    pool.at(1_000_000 * SECOND).tell(Event::Tick).expect(&[]);
    assert_eq!((pool.supervisor.slots().ready_workers(), pool.supervisor.slots().wanted()), (4, 4));
}

#[test]
fn all_ready_is_said_once() {
    let mut pool = Pool::new(1);
    pool.expect(&[spawn(0, 1)]);
    pool.tell(spawned(0, 10)).tell(listening(10)).expect(&[]);
    pool.tell(ready(10)).expect(&[Effect::Notice(Notice::AllReady { workers: 1 })]);
    pool.tell(exited(10, 1)).expect(&[spawn(0, 2)]);
    pool.start(0, 11);
    pool.expect(&[]);
}

#[test]
fn a_pool_that_is_to_stop_does_not_begin_to_serve() {
    for lame_duck in [Duration::ZERO, Duration::from_secs(5)] {
        let mut pool = Pool::with(Policy::with(|policy| policy.shutdown.lame_duck = lame_duck), 1);
        pool.expect(&[spawn(0, 1)]);
        // Both events come in one turn of the parent's loop.
        pool.start(0, 10);
        pool.tell(Event::Stop(Stop::Drain));
        let effects = pool.effects();
        assert!(!effects.iter().any(|it| matches!(it, Effect::Notice(Notice::AllReady { .. }))), "{effects:?}");
        assert!(!effects.is_empty());
    }
}
