//! Thousands of random histories: workers crash, hang, stall and recycle, forks fail, commands come at any time, and
//! effects are performed late, with events between them. The invariants are checked after every step.
//!
//! `SEED=n cargo test simulation -- --nocapture` replays one history and prints it.

mod checks;
mod effects;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::policy::{Rates, SplitMix64};
use super::slot::Slot;
use super::*;

const HISTORIES: u64 = 3000;
const STEPS: u32 = 250;

/// One more than the policy's maximum, per second and in the whole pool, of starts of slots whose workers never serve.
const RETRIES_A_SECOND: usize = 5;
const SECOND: u64 = 1000;

#[test]
fn histories() {
    if let Ok(seed) = std::env::var("SEED") {
        history(seed.parse().expect("SEED is a number"), true);
        return;
    }
    let mut seen = BTreeMap::new();
    for seed in 0..HISTORIES {
        for kind in history(seed, false) {
            *seen.entry(kind).or_insert(0) += 1;
        }
    }
    // Every kind of effect must occur in some history, or it is not tested.
    for kind in
        ["Drain", "Quit", "BootTimeout", "DrainTimeout", "QuickTimeout", "Stalled", "Forced", "Retire", "BackingOff"]
            .into_iter()
            .chain(["AllReady", "RestartExtended", "RestartDone", "RestartAborted", "Scaled", "Stopped", "BootFailed"])
            .chain(["Abort", "Recycling", "RecyclingFailed", "Replacing", "LameDuck", "GaveUp"])
            .chain(["ScalingFailed", "LeftEmpty", "AllLeftEmpty"])
            .chain(["UpgradeDone", "UpgradeFailed", "UpgradeInTheWay", "EndSuccessor", "Replaced"])
    {
        let histories = seen.get(kind).copied().unwrap_or(0);
        assert!(histories >= HISTORIES / 100, "{kind} in {histories} histories of {HISTORIES}: {seen:?}");
    }
}

/// Plays one history; returns the kinds of effects that occurred.
fn history(seed: u64, trace: bool) -> BTreeSet<&'static str> {
    let mut world = World::new(seed, trace);
    for _ in 0..STEPS {
        match world.mood {
            Mood::CrashLoop | Mood::Poison | Mood::Mix => _ = world.turn(),
            Mood::Peace | Mood::Anything => world.step(),
        }
    }
    world.troubled = false;
    world.supervisor.policy.max_age = Duration::ZERO;
    world.settle();
    world.check_settled();
    let stop = world.pick(&[Stop::Drain, Stop::Quick, Stop::Force]);
    world.tell(Event::Stop(stop));
    world.settle();
    assert!(world.finished, "a stopped pool ends");
    assert!(world.workers.is_empty(), "and leaves nobody behind");
    std::mem::take(&mut world.seen)
}

/// The theme of a history.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    /// No failures and no commands.
    Peace,
    /// No worker ever serves; no commands.
    CrashLoop,
    /// Requests crash workers, at any time after they are ready; no commands.
    Poison,
    /// Both of these, in different slots.
    Mix,
    Anything,
}

struct World {
    seed: u64,
    trace: bool,
    mood: Mood,
    /// Whether workers misbehave and operators act; both stop at the end.
    troubled: bool,
    random: SplitMix64,
    now: u64,
    supervisor: Supervisor,
    /// By pid; a pid is reused as soon as its process was reaped.
    workers: BTreeMap<i32, Worker>,
    forks: Vec<(SlotId, u64)>,
    /// Whether each slot's latest worker had served, and when it ended.
    ends: BTreeMap<SlotId, (bool, u64)>,
    /// When slots were started whose previous worker had not served.
    retries: Vec<u64>,
    /// How many times each slot's workers were replaced at their own request.
    requested: BTreeMap<SlotId, u64>,
    first_listens: Vec<SlotId>,
    /// The kinds of effects performed.
    seen: BTreeSet<&'static str>,
    /// The application's answers to exits, chosen at random.
    answers: &'static [Respawn],
    answered_stop: bool,
    ever_ready: bool,
    ever_suspended: bool,
    ever_restarted: bool,
    stop: Option<Stop>,
    /// The new binary, and what it will do: become ready, or exit.
    successor: Option<(u64, Option<Exit>)>,
    let_go: bool,
    finished: bool,
}

const SUCCESSOR: Pid = Pid(500);

const ANSWERS: [Respawn; 9] = [
    Respawn::Backoff,
    Respawn::Backoff,
    Respawn::Now,
    Respawn::Now,
    Respawn::After(Duration::ZERO),
    Respawn::After(Duration::from_secs(1)),
    Respawn::After(Duration::from_secs(20)),
    Respawn::Never,
    Respawn::Stop,
];

/// A process, until it is reaped.
struct Worker {
    slot: SlotId,
    generation: u64,
    ordered: Option<Stop>,
    hears_drain: bool,
    hears_quit: bool,
    /// What it will do, and when; an exit ends the list.
    acts: Vec<(u64, Act)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Act {
    Listen,
    Ready,
    Stall,
    Exit(Exit),
}

impl World {
    fn new(seed: u64, trace: bool) -> World {
        let mut random = SplitMix64::new(seed);
        let mood = match random.next() % 9 {
            0 => Mood::Peace,
            1 => Mood::CrashLoop,
            2 => Mood::Poison,
            3 => Mood::Mix,
            _ => Mood::Anything,
        };
        let mut policy = Policy::default();
        (policy.timeouts.boot, policy.timeouts.drain) = (Duration::from_millis(800), Duration::from_millis(1000));
        policy.timeouts.quick = Duration::from_millis(300);
        match mood {
            Mood::Anything => {
                policy.surge = 1 + (random.next() % 3) as usize;
                policy.shutdown.lame_duck = Duration::from_millis(random.next() % 2 * 200);
                policy.backoff.give_up = [0, 0, 0, 3][(random.next() % 4) as usize];
                policy.max_age = Duration::from_millis(random.next() % 3 * 2000);
                policy.abort_stalled = random.next() % 2 == 0;
            }
            Mood::Poison | Mood::Mix => policy.backoff.give_up = random.next() as u32 % 2 * 3,
            Mood::Peace | Mood::CrashLoop => {}
        }
        let workers = 1 + (random.next() % 5) as usize;
        let answers: &[Respawn] = match (mood, random.next() % 8) {
            (Mood::Anything, 0..2) => &[Respawn::Never],
            (Mood::Anything, 2..4) => &ANSWERS,
            _ => &[Respawn::Backoff],
        };
        let supervisor = Supervisor::new(policy, workers, random.next(), Time::from_millis(0));
        let world = World {
            seed,
            trace,
            mood,
            troubled: true,
            random,
            now: 0,
            supervisor,
            workers: BTreeMap::new(),
            forks: Vec::new(),
            ends: BTreeMap::new(),
            retries: Vec::new(),
            first_listens: Vec::new(),
            requested: BTreeMap::new(),
            seen: BTreeSet::new(),
            answers,
            answered_stop: false,
            ever_ready: false,
            ever_suspended: false,
            ever_restarted: false,
            stop: None,
            successor: None,
            let_go: false,
            finished: false,
        };
        world.note(|| format!("{mood:?}, {workers} workers"));
        world
    }

    /// Lets one thing happen at random: an effect, an act, a command, a tick, or the passage of time.
    fn step(&mut self) {
        match self.random.next() % 16 {
            0..6 => _ = self.perform(),
            6..11 => self.one_act(),
            11 if self.mood == Mood::Anything => self.command(),
            // A tick before the other news makes a worker late that is not: this parent is unlucky, but possible.
            11 | 12 if self.mood != Mood::Peace || self.due_acts().next().is_none() => self.tell(Event::Tick),
            // Sometimes the whole machine sleeps.
            14 => _ = self.successor_acts(),
            13 if self.random.next() % 8 == 0 => self.now += self.random.next() % (4 * SECOND),
            15 if self.random.next() % 8 == 0 => self.freeze(),
            _ => self.wait(),
        }
    }

    /// Lets everything happen that happens by itself.
    fn settle(&mut self) {
        let end = self.now + 100 * SECOND;
        while self.turn() {
            assert!(self.now < end, "it comes to rest");
        }
    }

    /// Does what a prompt parent does next; returns false if nothing will happen any more.
    fn turn(&mut self) -> bool {
        if self.perform() {
            return true;
        }
        if self.due_acts().next().is_some() {
            self.one_act();
        } else if self.successor_acts() {
        } else if self.supervisor.deadline().is_some_and(|at| at.as_millis() <= self.now) {
            self.tell(Event::Tick);
        } else {
            return self.wait_for_next();
        }
        true
    }

    fn command(&mut self) {
        let pid = Pid(self.below(8) as i32);
        let event = match self.random.next() % 34 {
            0..10 => Event::Restart,
            10..20 => Event::Scale { workers: (self.random.next() % 7) as usize },
            24 | 25 => Event::Upgrade,
            26 | 27 => Event::Recycle { pid, why: Recycle::Requests },
            28 | 29 => {
                if let Some(worker) = self.workers.get_mut(&pid.0).filter(|worker| worker.ordered < Some(Stop::Force)) {
                    // It does nothing more unless it is killed.
                    worker.acts.clear();
                    (worker.hears_drain, worker.hears_quit) = (false, false);
                }
                Event::Suspended { pid }
            }
            30 => Event::Resumed { pid },
            31 => Event::Disconnected { pid },
            32 => Event::Leaves { pid },
            33 => Event::Recycle { pid, why: Recycle::Socket },
            20 => Event::Stop(self.pick(&[Stop::Drain, Stop::Quick, Stop::Force])),
            21 => Event::Stalled { pid },
            // News about unknown processes.
            22 => Event::Exited { pid: Pid(1000), exit: Exit::Code(0), has_served: true, respawn: Respawn::Stop },
            _ => Event::Ready { pid: Pid(1000) },
        };
        self.tell(event);
    }

    /// Lets the new binary become ready, or end, if it is due.
    fn successor_acts(&mut self) -> bool {
        match self.successor {
            Some((at, None)) if at <= self.now => {
                // It lives on, whether it has taken over or was too late.
                self.successor = None;
                self.tell(Event::SuccessorReady);
                // It was told to leave before.
                if self.supervisor.awaits_successor() {
                    self.successor = Some((self.now, Some(Exit::Code(0))));
                }
                true
            }
            Some((at, exit)) if at <= self.now => {
                self.successor = None;
                self.tell(Event::SuccessorGone { exit });
                true
            }
            _ => false,
        }
    }

    fn one_act(&mut self) {
        let due: Vec<(i32, usize)> = self.due_acts().collect();
        if due.is_empty() {
            return;
        }
        let (number, index) = self.pick(&due);
        let pid = Pid(number);
        let worker = self.workers.get_mut(&number).expect("its act is due");
        let slot = worker.slot;
        match worker.acts.remove(index).1 {
            Act::Listen => {
                if !self.first_listens.contains(&slot) {
                    self.first_listens.push(slot);
                }
                self.tell(Event::Listening { pid });
            }
            Act::Ready => {
                self.tell(Event::Ready { pid });
                if self.random.next() % 4 == 0 {
                    self.tell(Event::Ready { pid });
                }
            }
            Act::Stall => self.tell(Event::Stalled { pid }),
            Act::Exit(exit) => {
                self.workers.remove(&number);
                let respawn = self.pick(self.answers);
                self.answered_stop |= respawn == Respawn::Stop;
                let has_served = match self.mood {
                    Mood::Anything => self.chance(2),
                    _ => !self.never_serves(slot),
                };
                self.ends.insert(slot, (has_served, self.now));
                self.tell(Event::Exited { pid, exit, has_served, respawn });
            }
        }
    }

    /// Whether no worker of the slot ever serves, if nothing else happens.
    fn never_serves(&self, slot: SlotId) -> bool {
        match self.mood {
            Mood::CrashLoop => true,
            Mood::Mix => slot % 2 == 1,
            Mood::Peace | Mood::Poison | Mood::Anything => false,
        }
    }

    /// The events that may be reported now, in any order across processes, but in order within each.
    fn due_acts(&self) -> impl Iterator<Item = (i32, usize)> + '_ {
        self.workers.iter().filter_map(|(&pid, worker)| {
            let (index, (at, _)) = worker.acts.iter().enumerate().min_by_key(|(_, (at, _))| *at)?;
            (*at <= self.now).then_some((pid, index))
        })
    }

    /// Freezes all processes for a while.
    fn freeze(&mut self) {
        let span = self.below(4 * SECOND);
        self.now += span;
        let acts = self.workers.values_mut().flat_map(|worker| &mut worker.acts);
        acts.for_each(|(at, _)| *at += span);
        if let Some((at, _)) = &mut self.successor {
            *at = at.saturating_add(span);
        }
        self.tell(Event::Frozen(Duration::from_millis(span)));
    }

    fn wait(&mut self) {
        if self.random.next() % 2 == 0 {
            self.now += self.below(50);
        } else {
            self.wait_for_next();
        }
    }

    fn wait_for_next(&mut self) -> bool {
        let acts = self.workers.values().flat_map(|worker| &worker.acts).map(|(at, _)| *at);
        let successor = self.successor.map(|(at, _)| at).filter(|at| *at < u64::MAX);
        let next = acts.chain(self.supervisor.deadline().map(Time::as_millis)).chain(successor).min();
        self.now = next.map_or(self.now, |next| next.max(self.now));
        next.is_some()
    }

    fn tell(&mut self, event: Event) {
        self.note(|| format!("{event:?}"));
        let before = self.stages();
        if let Event::Stop(how) = event {
            self.stop = self.stop.max(Some(how));
        }
        self.supervisor.handle(event, Time::from_millis(self.now));
        self.check(event, &before);
    }

    fn stages(&self) -> BTreeMap<i32, (SlotId, Stage)> {
        let stages = self.supervisor.slots().processes();
        stages.filter_map(|(slot, process)| Some((process.pid?.0, (slot, process.stage)))).collect()
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random.next() % limit
    }

    fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    fn note(&self, line: impl Fn() -> String) {
        if self.trace {
            eprintln!("{:>8} ms  {}", self.now, line());
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay this history with SEED={}", self.seed);
        }
    }
}
