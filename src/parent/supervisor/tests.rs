//! The rules one by one, with invented pids and times. `simulation.rs` mixes them.

use std::time::Duration;

use super::*;

const SECOND: u64 = 1000;

/// Times are milliseconds since the pool began; `stable` is one second, the first backoff 50 to 100 ms.
struct Pool {
    supervisor: Supervisor,
    now: u64,
}

impl Pool {
    fn new(workers: usize) -> Pool {
        Pool::with(Policy::default(), workers)
    }

    /// Without the floor and the pace, which have tests of their own.
    fn with(policy: Policy, workers: usize) -> Pool {
        Pool::paced(
            Policy { floor: Duration::ZERO, pace: Duration::ZERO, slot_pace: Duration::ZERO, ..policy },
            workers,
        )
    }

    fn paced(policy: Policy, workers: usize) -> Pool {
        Pool { supervisor: Supervisor::new(policy, workers, 1, Time::from_millis(0)), now: 0 }
    }

    /// A pool whose slot `n` is served by pid `10 + n`, ready since the beginning.
    fn ready(workers: usize) -> Pool {
        let mut pool = Pool::new(workers);
        pool.boot(0..workers, 10);
        pool
    }

    #[track_caller]
    fn boot(&mut self, slots: std::ops::Range<usize>, first_pid: i32) {
        for (slot, pid) in slots.zip(first_pid..) {
            let effects = self.effects();
            assert!(effects.iter().any(|effect| matches!(effect, Effect::Spawn { slot: s, .. } if *s == slot)));
            self.start(slot, pid);
        }
        self.effects();
    }

    /// The whole start of a worker whose spawn was given out.
    fn start(&mut self, slot: SlotId, pid: i32) {
        for event in [spawned(slot, pid), listening(pid), ready(pid)] {
            self.tell(event);
        }
    }

    fn at(&mut self, now: u64) -> &mut Pool {
        assert!(self.now <= now, "time goes on");
        self.now = now;
        self
    }

    fn tell(&mut self, event: Event) -> &mut Pool {
        self.supervisor.handle(event, Time::from_millis(self.now));
        self
    }

    fn effects(&mut self) -> Vec<Effect> {
        std::iter::from_fn(|| self.supervisor.poll_effect()).collect()
    }

    #[track_caller]
    fn expect(&mut self, expected: &[Effect]) -> &mut Pool {
        let mut effects = self.effects();
        if !expected.contains(&Effect::LetGo) {
            // Every stop has it; the simulation sees to that.
            effects.retain(|effect| *effect != Effect::LetGo);
        }
        assert_eq!(effects, expected);
        self
    }

    fn stage(&self, pid: i32) -> Option<Stage> {
        self.supervisor.process(Pid(pid)).map(|(_, process)| process.stage)
    }

    fn deadline(&self) -> Option<u64> {
        self.supervisor.deadline().map(Time::as_millis)
    }

    fn failures(&self, slot: SlotId) -> u32 {
        self.supervisor.slots[&slot].failures
    }
}

fn spawned(slot: SlotId, pid: i32) -> Event {
    Event::Spawned { slot, pid: Pid(pid) }
}
fn listening(pid: i32) -> Event {
    Event::Listening { pid: Pid(pid) }
}
fn ready(pid: i32) -> Event {
    Event::Ready { pid: Pid(pid) }
}
fn stalled(pid: i32) -> Event {
    Event::Stalled { pid: Pid(pid) }
}
fn exited(pid: i32, code: i32) -> Event {
    answered(pid, code, Respawn::Backoff)
}
fn answered(pid: i32, code: i32, respawn: Respawn) -> Event {
    Event::Exited { pid: Pid(pid), exit: Exit::Code(code), has_served: false, respawn }
}
fn spawn(slot: SlotId, generation: u64) -> Effect {
    Effect::Spawn { slot, generation }
}
fn drain(pid: i32) -> Effect {
    Effect::Drain { pid: Pid(pid) }
}
fn quit(pid: i32) -> Effect {
    Effect::Quit { pid: Pid(pid) }
}
fn kill(pid: i32, why: KillReason) -> Effect {
    Effect::Kill { pid: Pid(pid), why }
}
fn retire(slot: SlotId) -> Effect {
    Effect::Retire { slot }
}
const STOPPED: Effect = Effect::Finish(Outcome::Stopped);
const BEGUN: Effect = Effect::Notice(Notice::RestartBegun);
const EXTENDED: Effect = Effect::Notice(Notice::RestartExtended);
const DONE: Effect = Effect::Notice(Notice::RestartDone);
fn aborted(slot: SlotId, reason: Failure) -> Effect {
    Effect::Notice(Notice::RestartAborted { slot, reason })
}
fn scaled(from: usize, to: usize) -> Effect {
    Effect::Notice(Notice::Scaled { from, to })
}
fn boot_failed(last: Failure) -> Effect {
    Effect::Finish(Outcome::BootFailed { last })
}
const EXIT_1: Failure = Failure::Exit(Exit::Code(1));

/// The table of the module's documentation, walked cell by cell: slot 1's first process, pid 11, is in the column's stage
/// while pid 10 serves slot 0.
#[test]
fn every_event_in_every_stage() {
    let lines = include_str!("mod.rs").lines().filter_map(|line| line.strip_prefix("//!   "));
    let mut table = lines.skip_while(|line| !line.starts_with("event\\stage"));
    let stages: Vec<_> = table.next().expect("the table has a head").split_whitespace().collect();
    let mut cells = 0;
    for line in table {
        let line: Vec<_> = line.split_whitespace().collect();
        assert_eq!(line.len(), stages.len(), "{line:?}");
        for (stage, expected) in stages.iter().zip(&line).skip(1) {
            assert_eq!(cell(stage, line[0]), *expected, "{} while {stage}", line[0]);
            cells += 1;
        }
    }
    assert_eq!(cells, 28 * 8);
}

fn cell(stage: &str, event: &str) -> String {
    let abort_stalled = event == "Stalled(abort)";
    let mut pool = Pool::with(Policy { abort_stalled, surge: 2, ..Policy::default() }, 2);
    pool.boot(0..1, 10);
    // The start of slot 0 has queued the one of slot 1; `boot` gave it out.
    match stage {
        "Spawning" => {}
        "Queued" => pool.supervisor.effects.push_back(spawn(1, 1)),
        _ => {
            pool.tell(spawned(1, 11));
            let process = &mut pool.supervisor.slots.get_mut(&1).expect("it is wanted").processes[0];
            process.stage = match stage {
                "Starting" => Stage::Starting,
                "Ready" => Stage::Ready,
                "Draining" => Stage::Draining,
                "Quitting" => Stage::Quitting,
                "Aborting" => Stage::Aborting,
                "Killing" => Stage::Killing(KillReason::Forced),
                _ => panic!("no such stage: {stage}"),
            };
        }
    }
    let state = |pool: &Pool| {
        let slot = &pool.supervisor.slots.get(&1);
        let process = slot.and_then(|slot| slot.processes.iter().find(|process| process.generation == 1));
        let stage = process.map_or("gone".to_string(), |process| match process.stage {
            Stage::Killing(_) => "Killing".to_string(),
            stage => format!("{stage:?}"),
        });
        let others = slot.is_some_and(|slot| slot.staying().any(|process| process.generation > 1));
        (stage, slot.map_or(0, |slot| slot.failures), slot.is_some_and(|slot| slot.listened), others)
    };
    let (stage_before, failures_before, listened_before, _) = state(&pool);
    let (event, now) = match event {
        "Spawned" => (spawned(1, 11), 10),
        "SpawnFailed" => (Event::SpawnFailed { slot: 1 }, 10),
        "Listening" => (listening(11), 10),
        "Ready" => (ready(11), 10),
        "Stalled" | "Stalled(abort)" => (stalled(11), 10),
        "Misbehaved" => (Event::Misbehaved { pid: Pid(11) }, 10),
        "Suspended" => (Event::Suspended { pid: Pid(11) }, 10),
        "Resumed" => (Event::Resumed { pid: Pid(11) }, 10),
        "Recycle" => (Event::Recycle { pid: Pid(11), why: Recycle::Requests }, 10),
        "Disconnected" => (Event::Disconnected { pid: Pid(11) }, 10),
        "Leaves" => (Event::Leaves { pid: Pid(11) }, 10),
        "Exited(0)" => (exited(11, 0), 10),
        "Exited(1)" => (exited(11, 1), 10),
        "Exited(served)" => (served(11), 10),
        "Exited(stable)" => (exited(11, 1), SECOND),
        "Exited(stranger)" => (exited(99, 1), 10),
        "Frozen" => (Event::Frozen(Duration::from_secs(100)), 10),
        "Tick(late)" => (Event::Tick, 1000 * SECOND),
        "Restart" => (Event::Restart, 10),
        "Scale(up)" => (Event::Scale { workers: 3 }, 10),
        "Scale(down)" => (Event::Scale { workers: 1 }, 10),
        "Upgrade" => (Event::Upgrade, 10),
        "SuccessorReady" => (Event::SuccessorReady, 10),
        "SuccessorGone" => (Event::SuccessorGone { exit: None }, 10),
        "Stop(Drain)" => (Event::Stop(Stop::Drain), 10),
        "Stop(Quick)" => (Event::Stop(Stop::Quick), 10),
        "Stop(Force)" => (Event::Stop(Stop::Force), 10),
        _ => panic!("no such event: {event}"),
    };
    pool.at(now).tell(event);
    let (stage_after, failures_after, listened_after, is_replaced) = state(&pool);
    let mut changes = Vec::new();
    changes.extend((stage_after != stage_before).then_some(stage_after.as_str()));
    changes.extend((failures_after > failures_before).then_some("fail"));
    changes.extend((listened_after != listened_before).then_some("custody"));
    changes.extend((is_replaced && stage_after == stage_before && stage == "Ready").then_some("replaced"));
    // Told twice, it changes nothing more.
    let once = state(&pool);
    pool.tell(event);
    assert_eq!(state(&pool), once, "{event:?} twice while {stage}");
    if changes.is_empty() {
        "·".to_string()
    } else {
        changes.join("+")
    }
}

#[test]
fn first_starts_take_turns() {
    let mut pool = Pool::new(3);
    pool.expect(&[spawn(0, 1)]);
    pool.tell(spawned(0, 10)).expect(&[]);
    pool.tell(listening(10)).expect(&[spawn(1, 1)]);
    // A worker that is ready without having listened holds up nobody either.
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
    // Being ready when it is too late is not to have been ready.
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
            (0..20_000).map(|_| policy.backoff(failures, random.next()).as_millis() as u64).collect();
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

fn served(pid: i32) -> Event {
    Event::Exited { pid: Pid(pid), exit: Exit::Code(1), has_served: true, respawn: Respawn::Backoff }
}

#[test]
fn a_worker_that_has_served_is_replaced_at_once_however_young() {
    // The slot's own pace has a test below.
    let mut pool = Pool::paced(Policy { give_up: 2, slot_pace: Duration::ZERO, ..Policy::default() }, 1);
    pool.boot(0..1, 10);
    pool.at(100).tell(served(10)).expect(&[spawn(0, 2)]).start(0, 11);
    // From then on each dies after ten milliseconds: the floor of 30 is all that its slot waits for.
    for (pid, generation) in (11..30).zip(3..) {
        let started = pool.now;
        pool.at(started + 10).tell(served(pid)).expect(&[]);
        assert_eq!((pool.deadline(), pool.failures(0)), (Some(started + 30), 0));
        pool.at(started + 30).tell(Event::Tick).expect(&[spawn(0, generation)]).start(0, pid + 1);
    }
    // What has not served gives up all the same.
    pool.tell(exited(30, 1)).at(SECOND).tell(Event::Tick).effects();
    pool.tell(spawned(0, 31)).tell(exited(31, 1));
    assert!(matches!(pool.effects()[0], Effect::Notice(Notice::GaveUp { slot: 0, failures: 2, .. })));
}

/// A worker may lie about what it has served, or ask to leave or to be recycled again and again.
/// Two of four claim to have served as soon as they are ready, and exit: each is started twenty times a second.
#[test]
fn few_workers_that_come_and_go_cost_few_forks() {
    let mut pool = Pool::paced(Policy::default(), 4);
    pool.boot(0..4, 10);
    let (mut pid, mut forks) = (20, 0);
    for now in SECOND..11 * SECOND {
        pool.at(now).tell(Event::Tick);
        let living: Vec<_> = pool.supervisor.processes().filter_map(|(id, it)| Some((id, it.pid?, it.stage))).collect();
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
    assert!((400..=2 * (200 + Policy::SLOT_AT_ONCE)).contains(&forks), "{forks} forks in ten seconds");
}

#[test]
fn no_worker_has_the_pool_fork_without_end() {
    type Lie = fn(i32) -> Event;
    let by_own_word = 8 * (Policy::OWN_WORD_AT_ONCE + 10);
    let lies: [(Lie, usize); 4] = [
        // One in each pace.
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
            let living: Vec<_> = pool.supervisor.processes().filter_map(|(_, it)| Some((it.pid?, it.stage))).collect();
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
    // What the parent has seen by itself is no worker's word.
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
    // The application's word is another matter, and so is an empty pool.
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
    // One comes to serve: a second later the others are tried as soon as their own backoff allows.
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
    // While somebody serves, the other one waits.
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
        pool.supervisor.slots.get_mut(&0).expect("it is wanted").failures = 2;
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
    pool.supervisor.slots.get_mut(&0).expect("it is wanted").failures = 9;
    pool.tell(Event::Restart).expect(&[BEGUN, spawn(0, 2)]);
    // The old worker's failure asks for seconds of backoff, but its replacement is there.
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
    // It hangs in the kernel; its successor does, too: now the slot is full.
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

/// Frozen for a minute half a second before it is due, each thing is due as much later.
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
        let mut pool = Pool::with(Policy { lame_duck: Duration::from_secs(5), ..Policy::default() }, 1);
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
    let mut pool = Pool::with(Policy { max_age: Duration::from_secs(100), ..Policy::default() }, 1);
    pool.boot(0..1, 10);
    let due = pool.deadline();
    pool.at(60 * SECOND).tell(Event::Frozen(Duration::from_secs(60)));
    assert_eq!(pool.deadline(), due);
}

#[test]
fn a_time_out_of_zero_is_never() {
    let repeat = Duration::MAX;
    let never = Policy { boot_timeout: Duration::ZERO, drain_timeout: Duration::ZERO, repeat, ..Policy::default() };
    let mut pool = Pool::with(Policy { quick_timeout: Duration::ZERO, ..never }, 1);
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
    // The last slot's first failure decides; what lives is told to go, and only then is it over.
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
    assert!(!pool.supervisor.is_stopping());
}

#[test]
fn a_rolling_restart_replaces_slot_by_slot_and_drains_only_what_is_replaced() {
    let mut pool = Pool::ready(2);
    pool.tell(Event::Restart).expect(&[BEGUN, spawn(0, 2)]);
    pool.tell(spawned(0, 20)).tell(listening(20)).expect(&[]);
    // It does not wait for the exit of the old worker.
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
    let mut pool = Pool::with(Policy { surge: 2, ..Policy::default() }, 3);
    pool.boot(0..3, 10);
    pool.tell(Event::Restart).expect(&[BEGUN, spawn(0, 2), spawn(1, 2)]);
    pool.tell(spawned(0, 20)).tell(spawned(1, 21)).tell(ready(21)).expect(&[drain(11), spawn(2, 2)]);
    // One fails: what else is on its way is called back, and the old ones stay.
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
    let delay = Policy::default().backoff_max;
    pool.expect(&[Effect::Notice(Notice::RecyclingFailed { slot: 0, reason: EXIT_1, delay })]);
    assert_eq!((pool.stage(10), pool.failures(0)), (Some(Stage::Ready), 0));
    pool.tell(exited(11, 0)).at(5 * SECOND).tell(Event::Tick);
    pool.expect(&[recycling(0, Recycle::Memory), spawn(0, 3)]);
    // A restart replaces all anyway.
    pool.tell(spawned(0, 30)).tell(ready(30)).expect(&[drain(10)]);
    pool.tell(recycle(12, Recycle::Requests)).tell(Event::Restart).effects();
    pool.tell(spawned(2, 32)).tell(ready(32)).tell(exited(12, 0)).effects();
    assert_eq!(pool.stage(21), Some(Stage::Ready));
}

#[test]
fn workers_grow_old_at_different_times() {
    let mut pool = Pool::with(Policy { max_age: Duration::from_secs(100), ..Policy::default() }, 2);
    pool.boot(0..2, 10);
    let ages: Vec<_> = pool.supervisor.processes().filter_map(|(_, process)| process.expires).collect();
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
    assert_eq!(pool.supervisor.ready_workers(), 1);
    pool.tell(spawned(0, 20)).tell(ready(20)).expect(&[drain(10)]);
    // It runs again, and finishes what it has.
    pool.tell(Event::Resumed { pid: Pid(10) }).tell(exited(10, 0)).expect(&[]);
    assert_eq!((pool.stage(20), pool.failures(0)), (Some(Stage::Ready), 0));
    // One that runs again before its replacement is ready stays.
    pool.tell(Event::Suspended { pid: Pid(11) }).effects();
    pool.tell(spawned(1, 21)).tell(Event::Resumed { pid: Pid(11) }).expect(&[drain(21)]);
    pool.tell(ready(21)).tell(exited(21, 0)).expect(&[]);
}

#[test]
fn a_disconnected_worker_drains_while_its_slot_gets_another() {
    let mut pool = Pool::ready(2);
    pool.tell(Event::Disconnected { pid: Pid(10) }).expect(&[drain(10), spawn(0, 2)]);
    // Told twice, or of a stranger.
    pool.tell(Event::Disconnected { pid: Pid(10) }).tell(Event::Disconnected { pid: Pid(99) }).expect(&[]);
    pool.start(0, 20);
    pool.tell(Event::Disconnected { pid: Pid(20) }).expect(&[drain(20)]);
    // Two are as many as a slot has.
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
    let mut pool = Pool::with(Policy { abort_stalled: true, ..Policy::default() }, 1);
    pool.boot(0..1, 10);
    pool.tell(stalled(10)).tell(stalled(10)).expect(&[Effect::Abort { pid: Pid(10) }, spawn(0, 2)]);
    pool.start(0, 20);
    pool.at(SECOND).tell(Event::Tick).expect(&[kill(10, KillReason::Stalled)]);
    pool.tell(exited(10, 0)).expect(&[]);
}

#[test]
fn a_lame_duck_serves_on_and_is_replaced_if_it_dies() {
    let policy = Policy { lame_duck: Duration::from_secs(5), ..Policy::default() };
    let mut pool = Pool::with(policy, 1);
    pool.boot(0..1, 10);
    let delay = policy.lame_duck;
    pool.tell(Event::Stop(Stop::Drain)).expect(&[Effect::Notice(Notice::LameDuck { delay })]);
    pool.tell(exited(10, 1)).expect(&[spawn(0, 2)]);
    pool.start(0, 20);
    pool.at(5 * SECOND).tell(Event::Tick).expect(&[Effect::LetGo, drain(20)]);
    pool.tell(exited(20, 0)).expect(&[STOPPED]);
    // A firmer stop does not wait.
    let mut pool = Pool::with(policy, 1);
    pool.boot(0..1, 10);
    pool.tell(Event::Stop(Stop::Drain)).tell(Event::Stop(Stop::Quick)).effects();
    assert_eq!(pool.stage(10), Some(Stage::Quitting));
}

#[test]
fn the_pool_ends_when_a_slot_fails_too_often() {
    let mut pool = Pool::with(Policy { give_up: 3, ..Policy::default() }, 2);
    pool.boot(0..2, 10);
    for (pid, now) in [(10, 0), (20, 0), (21, SECOND)] {
        pool.at(now).tell(Event::Tick).effects();
        pool.tell(spawned(0, pid)).tell(exited(pid, 1));
    }
    let gave_up = Effect::Notice(Notice::GaveUp { slot: 0, failures: 3, reason: EXIT_1 });
    pool.expect(&[gave_up, Effect::LetGo, drain(11)]);
    let last = EXIT_1;
    pool.tell(exited(11, 0)).expect(&[Effect::Finish(Outcome::GaveUp { slot: 0, failures: 3, last })]);
}

/// What each answer does to a slot whose worker has just failed for the second time, and when it is started again.
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
        pool.supervisor.effects.retain(|effect| matches!(effect, Effect::Spawn { .. }));
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
        assert_eq!((pool.deadline(), pool.supervisor.ready_workers()), (None, 1));
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
    pool.tell(answered(11, 0, Respawn::Never)).expect(&[empty(1), all, Effect::LetGo, STOPPED]);
}

#[test]
fn the_application_may_stop_the_pool_when_a_worker_exits() {
    let mut pool = Pool::ready(2);
    pool.tell(answered(10, 1, Respawn::Stop)).expect(&[drain(11)]);
    pool.tell(exited(11, 0)).expect(&[STOPPED]);
    // A second exit does not make a lame duck hurry.
    let mut pool = Pool::with(Policy { lame_duck: Duration::from_secs(5), ..Policy::default() }, 2);
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
    let mut pool = Pool::with(Policy { give_up: 2, ..Policy::default() }, 1);
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
    assert!(!pool.supervisor.is_stopping());
}

#[test]
fn a_new_binary_takes_over_when_it_is_ready() {
    let mut pool = Pool::ready(2);
    let pid = Pid(50);
    pool.tell(Event::Upgrade).expect(&[Effect::Notice(Notice::UpgradeBegun), Effect::Upgrade]);
    let in_the_way = Effect::Notice(Notice::UpgradeInTheWay);
    pool.tell(Event::SuccessorSpawned { pid }).tell(Event::Upgrade).expect(&[in_the_way]);
    // Meanwhile this pool is left as it is, but for what fails.
    pool.tell(Event::Restart).tell(Event::Scale { workers: 7 }).expect(&[in_the_way, in_the_way]);
    pool.tell(exited(10, 1)).expect(&[spawn(0, 2)]);
    pool.start(0, 20);
    pool.tell(Event::SuccessorReady);
    pool.expect(&[Effect::Notice(Notice::UpgradeDone { pid }), Effect::LetGo, drain(20), drain(11)]);
    pool.tell(exited(20, 0)).tell(exited(11, 0)).expect(&[Effect::Finish(Outcome::Replaced)]);
}

#[test]
fn a_new_binary_that_fails_leaves_this_pool_as_it_is() {
    let failed = |reason| Effect::Notice(Notice::UpgradeFailed { reason });
    let (pid, exit) = (Pid(50), Some(Exit::Code(1)));
    let mut pool = Pool::ready(1);
    pool.tell(Event::Upgrade).effects();
    pool.tell(Event::SuccessorGone { exit: None }).expect(&[failed(UpgradeFailure::Spawn)]);
    pool.tell(Event::Upgrade).tell(Event::SuccessorSpawned { pid }).effects();
    pool.tell(Event::SuccessorGone { exit }).expect(&[failed(UpgradeFailure::Exit(Exit::Code(1)))]);
    // Late, it is told to leave, then killed; and what it says then comes too late.
    pool.tell(Event::Upgrade).tell(Event::SuccessorSpawned { pid }).effects();
    let end = |how| Effect::EndSuccessor { pid, how };
    pool.at(60 * SECOND).tell(Event::Tick).expect(&[failed(UpgradeFailure::Late), end(Stop::Drain)]);
    pool.tell(Event::SuccessorReady).expect(&[]);
    pool.at(90 * SECOND).tell(Event::Tick).expect(&[end(Stop::Force)]);
    pool.tell(Event::SuccessorGone { exit }).expect(&[]);
    assert_eq!((pool.stage(10), pool.deadline()), (Some(Stage::Ready), None));
}

#[test]
fn a_stop_ends_an_upgrade() {
    let pid = Pid(50);
    let mut pool = Pool::ready(1);
    pool.tell(Event::Upgrade).tell(Event::SuccessorSpawned { pid }).effects();
    let end = |how| Effect::EndSuccessor { pid, how };
    pool.tell(Event::Stop(Stop::Quick)).expect(&[Effect::LetGo, quit(10), end(Stop::Quick)]);
    pool.tell(exited(10, 0)).expect(&[]);
    pool.tell(Event::SuccessorGone { exit: Some(Exit::Code(0)) }).expect(&[STOPPED]);
}

#[test]
fn a_lame_duck_has_no_successor() {
    let lame_duck = || {
        let mut pool = Pool::with(Policy { lame_duck: Duration::from_secs(5), ..Policy::default() }, 1);
        pool.boot(0..1, 10);
        pool
    };
    let pid = Pid(50);
    let spawned = Event::SuccessorSpawned { pid };
    let told = Effect::Notice(Notice::LameDuck { delay: Duration::from_secs(5) });
    let end = Effect::EndSuccessor { pid, how: Stop::Drain };
    let mut pool = lame_duck();
    pool.tell(Event::Upgrade).tell(spawned).effects();
    pool.tell(Event::Stop(Stop::Drain)).expect(&[told, end]);
    // Its word comes too late.
    pool.tell(Event::SuccessorReady).expect(&[]);
    pool.tell(Event::SuccessorGone { exit: Some(Exit::Code(0)) }).expect(&[]);
    pool.at(5 * SECOND).tell(Event::Tick).expect(&[Effect::LetGo, drain(10)]);
    // One that is being started is told as soon as it has a pid.
    let mut pool = lame_duck();
    pool.tell(Event::Upgrade).effects();
    pool.tell(Event::Stop(Stop::Drain)).expect(&[told]);
    pool.tell(spawned).expect(&[end]);
    // And none is started then.
    let mut pool = lame_duck();
    pool.tell(Event::Stop(Stop::Drain)).tell(Event::Upgrade).expect(&[told]);
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
    // And if it fails after all, the slot is started like any other.
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

#[test]
fn scaling_up_adds_slots_and_scaling_down_retires_the_highest() {
    let mut pool = Pool::ready(2);
    pool.tell(Event::Scale { workers: 4 }).expect(&[scaled(2, 4), spawn(2, 1)]);
    pool.tell(spawned(2, 12)).expect(&[]);
    pool.tell(listening(12)).expect(&[spawn(3, 1)]);
    // The fork of slot 3 is in flight, the worker of slot 2 still starting.
    pool.tell(Event::Scale { workers: 1 }).expect(&[scaled(4, 1), drain(11), drain(12)]);
    pool.tell(spawned(3, 13)).expect(&[drain(13)]);
    pool.tell(exited(12, 0)).expect(&[retire(2)]);
    pool.tell(exited(13, 1)).tell(exited(11, 9)).expect(&[retire(3), retire(1)]);
    pool.tell(Event::Scale { workers: 0 }).tell(Event::Scale { workers: 1 }).expect(&[]);
    // A slot of the same number is a new one.
    pool.tell(Event::Scale { workers: 2 }).expect(&[scaled(1, 2), spawn(1, 1)]);
}

#[test]
fn scaling_fails_when_a_worker_never_serves_and_only_until_all_have() {
    let failed = |slot| Effect::Notice(Notice::ScalingFailed { slot, wanted: 3, reason: EXIT_1 });
    let mut pool = Pool::ready(2);
    pool.tell(Event::Scale { workers: 3 }).expect(&[scaled(2, 3), spawn(2, 1)]);
    // As many are wanted still; it is said once, and again for who asks again.
    pool.tell(spawned(2, 12)).tell(exited(12, 1)).expect(&[failed(2), spawn(2, 2)]);
    pool.tell(spawned(2, 13)).tell(exited(13, 1));
    assert!(matches!(pool.effects()[..], [Effect::Notice(Notice::BackingOff { .. })]));
    pool.at(SECOND).tell(Event::Scale { workers: 3 }).expect(&[spawn(2, 3)]);
    // Being ready is not yet to have served.
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
    assert_eq!(pool.supervisor.ready_workers(), 2);
}

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

#[test]
fn requests_to_stop_within_a_second_are_one_and_a_later_one_forces() {
    let lame_duck = Duration::from_secs(5);
    for (requests, expected) in [
        // The firmest of those within a second of the first.
        (&[(0, Stop::Drain), (3, Stop::Drain), (999, Stop::Drain)][..], Stage::Draining),
        (&[(0, Stop::Drain), (3, Stop::Quick), (5, Stop::Drain)], Stage::Quitting),
        (&[(0, Stop::Quick), (999, Stop::Drain)], Stage::Quitting),
        // Any later one, be it within a second of another.
        (&[(0, Stop::Drain), (999, Stop::Drain), (1000, Stop::Drain)], Stage::Killing(KillReason::Forced)),
        (&[(0, Stop::Quick), (1000, Stop::Drain)], Stage::Killing(KillReason::Forced)),
    ] {
        for lame_duck in [Duration::ZERO, lame_duck] {
            let mut pool = Pool::with(Policy { lame_duck, ..Policy::default() }, 1);
            pool.boot(0..1, 10);
            for (at, how) in requests {
                pool.at(*at).tell(Event::Stop(*how));
            }
            let waits = expected == Stage::Draining && !lame_duck.is_zero();
            let expected = if waits { Stage::Ready } else { expected };
            assert_eq!(pool.stage(10), Some(expected), "{requests:?} {lame_duck:?}");
        }
    }
    // A pool that stops by itself has not been asked yet.
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
    // The firmest stop counts, not the latest.
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
    assert_eq!((pool.supervisor.ready_workers(), pool.supervisor.wanted()), (4, 4));
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
        let mut pool = Pool::with(Policy { lame_duck, ..Policy::default() }, 1);
        pool.expect(&[spawn(0, 1)]);
        // Both are told in one turn of the parent's loop.
        pool.start(0, 10);
        pool.tell(Event::Stop(Stop::Drain));
        let effects = pool.effects();
        assert!(!effects.iter().any(|it| matches!(it, Effect::Notice(Notice::AllReady { .. }))), "{effects:?}");
        assert!(!effects.is_empty());
    }
}
