//! First starts take turns; later ones wait for the slot, the pool and the backoff.

use super::*;

#[test]
fn first_starts_take_turns() {
    let mut pool = Pool::new(3);
    pool.expect(&[spawn(0, 1)]);
    pool.tell(spawned(0, 10)).expect(&[]);
    pool.tell(listening(10)).expect(&[spawn(1, 1)]);
    // A worker that is ready without having listened does not block the others either.
    pool.tell(spawned(1, 11)).expect(&[]);
    pool.tell(ready(11)).expect(&[spawn(2, 1)]);
    pool.tell(spawned(2, 12)).tell(ready(10)).expect(&[]);
    pool.tell(ready(12)).expect(&[Effect::Notice(Notice::AllReady { workers: 3 })]);
}

#[test]
fn a_first_start_that_dies_lets_the_next_slot_go_first() {
    let mut pool = Pool::new(2);
    pool.expect(&[spawn(0, 1)]);
    pool.tell(spawned(0, 10)).tell(exited(10, 1)).expect(&[spawn(1, 1)]);
    pool.tell(spawned(1, 11)).expect(&[]);
    assert_eq!(pool.deadline(), Some(60 * SECOND), "slot 0 waits for its turn, and not for a time");
    pool.tell(listening(11)).expect(&[spawn(0, 2)]);
}

#[test]
fn a_first_start_that_hangs_lets_the_next_slot_go_first() {
    let mut pool = Pool::new(2);
    pool.expect(&[spawn(0, 1)]);
    pool.tell(spawned(0, 10)).at(60 * SECOND).tell(Event::Tick);
    pool.expect(&[kill(10, KillReason::BootTimeout), spawn(1, 1)]);
    // Readiness that comes too late does not count.
    pool.tell(spawned(1, 11)).tell(ready(10)).tell(exited(10, 9)).tell(exited(11, 1));
    pool.expect(&[boot_failed(EXIT_1)]);
}

#[test]
fn a_first_start_that_keeps_dying_backs_off() {
    let mut pool = Pool::new(2);
    pool.boot(0..1, 10);
    pool.tell(spawned(1, 11)).tell(exited(11, 1)).expect(&[spawn(1, 2)]);
    pool.tell(spawned(1, 12)).tell(exited(12, 1));
    assert!(matches!(pool.effects()[..], [Effect::Notice(Notice::BackingOff { slot: 1, failures: 2, .. })]));
    pool.at(249).tell(Event::Tick).expect(&[]);
    pool.at(250).tell(Event::Tick).expect(&[spawn(1, 3)]);
}

#[test]
fn a_respawn_takes_no_turn() {
    let mut pool = Pool::new(2);
    pool.boot(0..1, 10);
    pool.tell(spawned(1, 11)).tell(exited(10, 1)).expect(&[spawn(0, 2)]);
}

#[test]
fn backoff_doubles_from_the_second_failure_to_the_cap() {
    let policy = Policy::default();
    let cases = [(0, 0, 0), (1, 0, 0), (2, 50, 100), (3, 100, 200), (4, 200, 400), (7, 1600, 3200), (8, 2500, 5000)];
    for (failures, least, most) in cases.into_iter().chain([(9, 2500, 5000), (40, 2500, 5000), (u32::MAX, 2500, 5000)])
    {
        let mut random = SplitMix64::new(7);
        let delays: Vec<u64> =
            (0..20_000).map(|_| policy.backoff.delay(failures, random.next()).as_millis() as u64).collect();
        assert!(delays.iter().all(|delay| (least..=most).contains(delay)), "after {failures} failures");
        assert_eq!(
            (delays.iter().min(), delays.iter().max()),
            (Some(&least), Some(&most)),
            "after {failures} failures"
        );
    }
}

#[test]
fn the_first_respawn_is_immediate_and_the_next_ones_wait() {
    let mut pool = Pool::ready(1);
    pool.tell(exited(10, 1)).expect(&[spawn(0, 2)]);
    pool.start(0, 11);
    pool.expect(&[]).tell(exited(11, 1));
    let [Effect::Notice(Notice::BackingOff { slot: 0, delay, failures: 2 })] = pool.effects()[..] else {
        panic!("it backs off and says so")
    };
    let at = delay.as_millis() as u64;
    assert_eq!(pool.deadline(), Some(at));
    pool.at(at - 1).tell(Event::Tick).expect(&[]);
    pool.at(at).tell(Event::Tick).expect(&[spawn(0, 3)]);
}

#[test]
fn a_worker_that_has_served_is_replaced_at_once_however_young() {
    // The slot's own rate has a test below.
    let mut pool = Pool::paced(
        Policy::with(|policy| {
            policy.backoff.give_up = 2;
            policy.rates.slot = Duration::ZERO;
        }),
        1,
    );
    pool.boot(0..1, 10);
    pool.at(100).tell(served(10)).expect(&[spawn(0, 2)]).start(0, 11);
    // From here on each worker dies after ten milliseconds, and the slot only waits for the minimum of 30.
    for (pid, generation) in (11..30).zip(3..) {
        let started = pool.now;
        pool.at(started + 10).tell(served(pid)).expect(&[]);
        assert_eq!((pool.deadline(), pool.failures(0)), (Some(started + 30), 0));
        pool.at(started + 30).tell(Event::Tick).expect(&[spawn(0, generation)]).start(0, pid + 1);
    }
    // Workers that have not served still make the pool give up.
    pool.tell(exited(30, 1)).at(SECOND).tell(Event::Tick).effects();
    pool.tell(spawned(0, 31)).tell(exited(31, 1));
    assert!(matches!(pool.effects()[0], Effect::Notice(Notice::GaveUp { slot: 0, failures: 2, .. })));
}

/// A worker may lie about what it has served, or ask to leave or to be recycled again and again. Here two of four claim
/// to have served as soon as they are ready, and exit: each is started twenty times a second.
#[test]
fn few_workers_that_come_and_go_cost_few_forks() {
    let mut pool = Pool::paced(Policy::default(), 4);
    pool.boot(0..4, 10);
    let (mut pid, mut forks) = (20, 0);
    for now in SECOND..11 * SECOND {
        pool.at(now).tell(Event::Tick);
        let living: Vec<_> =
            pool.supervisor.slots().processes().filter_map(|(id, it)| Some((id, it.pid?, it.stage))).collect();
        for (id, it, stage) in living {
            if id < 2 && stage == Stage::Ready {
                pool.tell(served(it.0));
            }
        }
        while let Some(effect) = pool.supervisor.poll_effect() {
            if let Effect::Spawn { slot, .. } = effect {
                (pid, forks) = (pid + 1, forks + 1);
                pool.tell(Event::Spawned { slot, pid: Pid(pid) }).tell(Event::Ready { pid: Pid(pid) });
            }
        }
    }
    assert!((400..=2 * (200 + Rates::SLOT_BURST)).contains(&forks), "{forks} forks in ten seconds");
}

#[test]
fn no_worker_has_the_pool_fork_without_end() {
    type Lie = fn(i32) -> Event;
    let by_own_word = 8 * (Rates::REQUEST_BURST + 10);
    let lies: [(Lie, usize); 4] = [
        // One at each interval.
        (served, 8 + 500),
        (|pid| Event::Recycle { pid: Pid(pid), why: Recycle::Requests }, by_own_word),
        (|pid| Event::Recycle { pid: Pid(pid), why: Recycle::Socket }, by_own_word),
        (|pid| Event::Leaves { pid: Pid(pid) }, by_own_word),
    ];
    for (lie, most) in lies {
        let mut pool = Pool::paced(Policy::default(), 8);
        pool.boot(0..8, 10);
        let (mut pid, mut forks) = (20, 0);
        for now in SECOND..11 * SECOND {
            pool.at(now).tell(Event::Tick);
            let living: Vec<_> =
                pool.supervisor.slots().processes().filter_map(|(_, it)| Some((it.pid?, it.stage))).collect();
            for (pid, stage) in living {
                pool.tell(if stage == Stage::Draining { exited(pid.0, 0) } else { lie(pid.0) });
            }
            while let Some(effect) = pool.supervisor.poll_effect() {
                if let Effect::Spawn { slot, .. } = effect {
                    (pid, forks) = (pid + 1, forks + 1);
                    pool.start(slot, pid);
                }
            }
        }
        assert!((most / 2..=most).contains(&forks), "{forks} forks in ten seconds, and {most} at most");
    }
}

#[test]
fn a_worker_that_asks_again_and_again_waits_and_holds_nobody_up() {
    let mut pool = Pool::ready(2);
    let requests = |pid| Event::Recycle { pid: Pid(pid), why: Recycle::Requests };
    let recycling = |slot, why| Effect::Notice(Notice::Recycling { slot, why });
    // A few replacements come at once, however young the worker is.
    let mut pid = 10;
    for generation in 2..6 {
        pool.tell(requests(pid)).expect(&[recycling(0, Recycle::Requests), spawn(0, generation)]);
        pool.tell(spawned(0, pid + 10)).tell(ready(pid + 10)).expect(&[drain(pid)]).tell(exited(pid, 0));
        pid += 10;
    }
    // The next one waits, while its worker serves and another slot's is replaced.
    pool.tell(requests(pid)).expect(&[]);
    assert_eq!((pool.stage(pid), pool.deadline()), (Some(Stage::Ready), Some(SECOND)));
    pool.tell(requests(11)).expect(&[recycling(1, Recycle::Requests), spawn(1, 2)]);
    pool.tell(spawned(1, 21)).tell(ready(21)).expect(&[drain(11)]).tell(exited(11, 0));
    // What the parent has seen itself does not depend on a worker's report.
    pool.tell(Event::Recycle { pid: Pid(pid), why: Recycle::Memory });
    pool.expect(&[recycling(0, Recycle::Memory), spawn(0, 6)]);
}

#[test]
fn a_worker_that_leaves_again_and_again_leaves_its_slot_empty_for_a_while() {
    let mut pool = Pool::ready(2);
    let mut pid = 10;
    for generation in 2..6 {
        pool.tell(Event::Leaves { pid: Pid(pid) }).expect(&[drain(pid), spawn(0, generation)]);
        pool.tell(exited(pid, 0)).start(0, pid + 10);
        pid += 10;
    }
    pool.tell(Event::Leaves { pid: Pid(pid) }).expect(&[drain(pid)]).tell(exited(pid, 0)).expect(&[]);
    assert_eq!((pool.deadline(), pool.failures(0)), (Some(SECOND), 0));
    // The application's request is not limited, nor is an empty pool.
    pool.tell(Event::Disconnected { pid: Pid(11) }).expect(&[drain(11), spawn(1, 2)]);
    pool.start(1, 21);
    pool.tell(Event::Disconnected { pid: Pid(21) }).tell(exited(11, 0)).tell(exited(21, 0));
    assert!(pool.effects().contains(&spawn(1, 3)));
    pool.at(SECOND).tell(Event::Tick).expect(&[spawn(0, 6)]);
}

#[test]
fn slots_whose_workers_never_serve_are_tried_four_times_a_second_in_all() {
    let mut pool = Pool::paced(Policy::default(), 9);
    pool.boot(0..9, 10);
    pool.at(SECOND);
    for pid in 11..19 {
        pool.tell(served(pid));
    }
    let (mut pid, mut forks) = (20, Vec::new());
    for now in SECOND..11 * SECOND {
        pool.at(now).tell(Event::Tick);
        while let Some(effect) = pool.supervisor.poll_effect() {
            if let Effect::Spawn { slot, .. } = effect {
                pid += 1;
                forks.push(now);
                pool.tell(spawned(slot, pid)).tell(exited(pid, 1));
            }
        }
    }
    let (first, retries) = forks.split_at(8);
    assert_eq!(first, [SECOND; 8], "one start a slot, at once");
    assert!(retries.windows(2).all(|pair| pair[1] - pair[0] >= 250), "{retries:?}");
    // One begins to serve. A second later, the others are tried as soon as their own backoff allows.
    let at = pool.deadline().expect("somebody is tried").max(pool.now);
    pool.at(at).tell(Event::Tick);
    let spawned_slot = pool.effects().iter().find_map(|effect| match effect {
        Effect::Spawn { slot, .. } => Some(*slot),
        _ => None,
    });
    pool.start(spawned_slot.expect("it is time"), 1000);
    pool.at(at + 6 * SECOND).tell(Event::Tick);
    let starts = pool.effects().iter().filter(|effect| matches!(effect, Effect::Spawn { .. })).count();
    assert_eq!(starts, 7);
}

#[test]
fn limits_are_spread_over_a_tenth_however_close_their_seeds() {
    for (first, step) in [(0, 1), (86_400_000, 1), (u64::MAX - 8, 1), (5, 16)] {
        let limits: Vec<u64> = (0..8).map(|n| jittered(100_000, first + n * step)).collect();
        assert!(limits.iter().all(|limit| (90_000..=100_000).contains(limit)), "{limits:?}");
        let spread = limits.iter().max().zip(limits.iter().min()).map(|(max, min)| max - min);
        assert!(spread > Some(5_000), "{limits:?}");
    }
    assert_eq!((jittered(0, 7), jittered(9, 7)), (0, 9));
}

#[test]
fn a_pool_without_a_worker_does_not_wait_for_every_backoff() {
    let mut pool = Pool::ready(2);
    // Both fail again and again, until their backoffs are seconds long.
    pool.tell(exited(10, 1)).tell(exited(11, 1));
    let (mut now, mut forks) = (0, 0);
    while now < 20 * SECOND {
        pool.at(now).tell(Event::Tick);
        while let Some(effect) = pool.supervisor.poll_effect() {
            if let Effect::Spawn { slot, .. } = effect {
                forks += 1;
                pool.tell(spawned(slot, 100 + forks)).tell(exited(100 + forks, 1));
            }
        }
        let next = pool.deadline().expect("it goes on");
        assert!((now + 1..=now + 250).contains(&next), "somebody is tried four times a second");
        now = next;
    }
    assert!((60..110).contains(&forks), "{forks} forks in 20 s");
    // While one worker serves, the other slot waits.
    let mut pool = Pool::ready(2);
    for pid in [10, 20, 21, 22, 23, 24, 25] {
        now = pool.deadline().unwrap_or(now).max(pool.now);
        pool.at(now).tell(Event::Tick).effects();
        pool.tell(spawned(0, pid)).tell(exited(pid, 1)).effects();
    }
    assert!(pool.deadline().is_some_and(|at| at > pool.now + 800));
}

#[test]
fn failures_are_forgotten_after_a_stable_time() {
    for (lifetime, expected) in [(SECOND - 1, 3), (SECOND, 0)] {
        let mut pool = Pool::ready(1);
        pool.supervisor.slots.get_mut(0).expect("it is wanted").failures = 2;
        pool.at(lifetime).tell(exited(10, 1));
        assert_eq!(pool.failures(0), expected, "after {lifetime} ms");
    }
}

#[test]
fn time_spent_starting_is_not_stable_time() {
    let mut pool = Pool::new(1);
    pool.effects();
    pool.tell(spawned(0, 10)).tell(listening(10)).at(10 * SECOND).tell(ready(10));
    pool.at(11 * SECOND - 1).tell(exited(10, 0));
    assert_eq!(pool.failures(0), 1);
}

#[test]
fn a_worker_that_recycles_itself_is_replaced_at_once_every_time() {
    let mut pool = Pool::ready(1);
    for (turn, pid) in (1..20).zip(10..) {
        pool.at(turn * SECOND).tell(exited(pid, 0)).expect(&[spawn(0, turn + 1)]);
        pool.start(0, pid + 1);
        pool.expect(&[]);
    }
}

#[test]
fn a_worker_that_recycles_itself_does_not_wait_for_an_older_failure() {
    let mut pool = Pool::ready(1);
    pool.supervisor.slots.get_mut(0).expect("it is wanted").failures = 9;
    pool.tell(Event::Restart).expect(&[BEGUN, spawn(0, 2)]);
    // The old worker's failure causes seconds of backoff, but its replacement is there.
    pool.tell(spawned(0, 20)).tell(exited(10, 1)).tell(ready(20)).effects();
    pool.at(SECOND).tell(exited(20, 0)).expect(&[spawn(0, 3)]);
}

#[test]
fn a_failing_fork_is_not_repeated_at_once() {
    let mut pool = Pool::ready(1);
    pool.tell(exited(10, 1)).expect(&[spawn(0, 2)]);
    pool.tell(Event::SpawnFailed { slot: 0 });
    assert!(matches!(pool.effects()[..], [Effect::Notice(Notice::BackingOff { slot: 0, .. })]));
    let mut pool = Pool::ready(1);
    pool.at(SECOND).tell(exited(10, 0)).expect(&[spawn(0, 2)]);
    pool.tell(Event::SpawnFailed { slot: 0 });
    assert!(matches!(pool.effects()[..], [Effect::Notice(Notice::BackingOff { slot: 0, failures: 2, .. })]));
    assert!(pool.deadline() >= Some(SECOND + 50));
}
