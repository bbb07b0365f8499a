//! The rules one by one, with invented pids and times. `simulation/` combines them.

mod application;
mod exits;
mod replacing;
mod scaling;
mod starts;
mod stopping;
mod timeouts;
mod upgrade;

use std::time::Duration;

use super::policy::{Rates, SplitMix64};
use super::*;

const SECOND: u64 = 1000;

/// Times are milliseconds since the pool began; `stable` is one second, and the first backoff 50 to 100 ms.
struct Pool {
    supervisor: Supervisor,
    now: u64,
}

impl Pool {
    fn new(workers: usize) -> Pool {
        Pool::with(Policy::default(), workers)
    }

    /// Without the limits on rates, which have their own tests.
    fn with(policy: Policy, workers: usize) -> Pool {
        let none = Duration::ZERO;
        Pool::paced(Policy { rates: Rates { floor: none, pool: none, slot: none, ..policy.rates }, ..policy }, workers)
    }

    fn paced(policy: Policy, workers: usize) -> Pool {
        Pool { supervisor: Supervisor::new(policy, workers, 1, Time::from_millis(0)), now: 0 }
    }

    /// A pool in which slot `n` is served by pid `10 + n`, ready since the beginning.
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

    /// The whole start of a worker whose spawn was returned.
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
        if !expected.contains(&Effect::ReleaseSockets) {
            // Every stop has this effect; the simulation checks that.
            effects.retain(|effect| *effect != Effect::ReleaseSockets);
        }
        assert_eq!(effects, expected);
        self
    }

    fn stage(&self, pid: i32) -> Option<Stage> {
        self.supervisor.slots().process(Pid(pid)).map(|(_, process)| process.stage)
    }

    fn deadline(&self) -> Option<u64> {
        self.supervisor.deadline().map(Time::as_millis)
    }

    fn failures(&self, slot: SlotId) -> u32 {
        self.supervisor.slots.get(slot).expect("it is wanted").failures
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
fn served(pid: i32) -> Event {
    Event::Exited { pid: Pid(pid), exit: Exit::Code(1), has_served: true, respawn: Respawn::Backoff }
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

/// The table in the module's documentation, cell by cell. Slot 1's first process, pid 11, is in the stage of the
/// column, while pid 10 serves slot 0.
#[test]
fn every_event_in_every_stage() {
    let lines = include_str!("../mod.rs").lines().filter_map(|line| line.strip_prefix("//!   "));
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
    let mut pool = Pool::with(
        Policy::with(|policy| {
            policy.abort_stalled = abort_stalled;
            policy.surge = 2;
        }),
        2,
    );
    pool.boot(0..1, 10);
    // The start of slot 0 has queued that of slot 1; `boot` returned it.
    match stage {
        "Spawning" => {}
        "Queued" => pool.supervisor.effects.push(spawn(1, 1)),
        _ => {
            pool.tell(spawned(1, 11));
            let process = &mut pool.supervisor.slots.get_mut(1).expect("it is wanted").processes[0];
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
        let slot = &pool.supervisor.slots.get(1);
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
    // A repeated event changes nothing more.
    let once = state(&pool);
    pool.tell(event);
    assert_eq!(state(&pool), once, "{event:?} twice while {stage}");
    if changes.is_empty() {
        "·".to_string()
    } else {
        changes.join("+")
    }
}
