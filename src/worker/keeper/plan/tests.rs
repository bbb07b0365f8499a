//! A program's life as a table of facts and effects.

use super::*;

const DRAIN: Duration = Duration::from_secs(10);
const FAILED: Exit = Exit::Code(3);
const TERMED: Exit = Exit::Signal { signal: 15, core_dumped: false };

struct Played(Plan, Time);

impl Played {
    fn new() -> Played {
        Played(Plan::new(DRAIN, ReadyCheck::Observation, Time::default()), Time::default())
    }

    fn at(&mut self, millis: u64, fact: Fact) -> Vec<Effect> {
        self.1 = Time::from_millis(millis);
        self.0.handle(fact, self.1);
        std::iter::from_fn(|| self.0.poll_effect()).collect()
    }
}

fn end(exit: Exit, why: Option<EndReason>) -> Vec<Effect> {
    vec![Effect::End { exit, why }]
}

const TICK: Fact = Fact::Tick { has_parent: true };
const ORPHANED: Fact = Fact::Tick { has_parent: false };

#[test]
fn it_is_ready_once_and_when_it_waits() {
    let mut it = Played::new();
    for observation in [Observation::Nothing, Observation::Holds, Observation::Hidden] {
        assert_eq!(it.at(1, Fact::Observed(observation)), []);
    }
    assert_eq!(it.at(2, Fact::Observed(Observation::WaitingCall)), [Effect::Ready]);
    assert_eq!(it.at(3, Fact::Observed(Observation::WaitingCall)), []);
    assert_eq!(it.0.deadline(), None, "an idle keeper sleeps");
}

#[test]
fn one_that_has_accepted_and_closes_the_socket_before_it_is_ready_is_told_to_finish() {
    let mut it = Played::new();
    assert_eq!(it.at(1, Fact::Observed(Observation::Holds)), []);
    assert_eq!(it.at(2, Fact::Observed(Observation::Closed)), [Effect::LetGo, Effect::Tell(Stop::Finish)]);
    assert_eq!(it.at(3, Fact::Observed(Observation::Closed)), []);
    it.at(4, Fact::Exited(TERMED));
    assert_eq!(it.at(5, Fact::Childless), end(TERMED, Some(EndReason::Closed)));
}

#[test]
fn one_that_closes_the_socket_is_told_to_finish_and_others_are_seldom_looked_at() {
    let mut it = Played::new();
    it.at(0, Fact::Observed(Observation::WaitingCall));
    let (mut checks, mut now) = (0, 0);
    while now < 60_000 {
        if it.0.next_look().is_some_and(|at| at.as_millis() <= now) {
            assert_eq!(it.at(now, Fact::Observed(Observation::Holds)), []);
            checks += 1;
        }
        assert_eq!(it.at(now, if it.0.watches_queues() { Fact::Queued } else { TICK }), []);
        now += 10;
    }
    assert!((5..=6).contains(&checks), "{checks} in a minute");
    let mut it = Played::new();
    it.at(0, Fact::Observed(Observation::WaitingCall));
    assert_eq!(it.at(5, Fact::Queued), []);
    assert_eq!((it.0.next_look(), it.0.watches_queues()), (Some(Time::from_millis(1005)), false));
    assert_eq!(it.at(1005, Fact::Observed(Observation::Nothing)), [Effect::LetGo, Effect::Tell(Stop::Finish)]);
    it.at(1006, Fact::Exited(TERMED));
    assert_eq!(it.at(1007, Fact::Childless), end(TERMED, Some(EndReason::Closed)));
}

#[test]
fn one_that_waits_is_asked_and_is_ready_when_it_answers() {
    let mut it = Played(Plan::new(DRAIN, ReadyCheck::Answer, Time::default()), Time::default());
    assert_eq!(it.at(1, Fact::Observed(Observation::WaitingCall)), [Effect::Ask]);
    assert_eq!(it.at(2, Fact::Observed(Observation::WaitingCall)), []);
    assert_eq!(it.at(3, Fact::Answered), [Effect::Ready]);
    let mut it = Played(Plan::new(DRAIN, ReadyCheck::Answer, Time::default()), Time::default());
    it.at(1, Fact::Observed(Observation::WaitingCall));
    it.at(2, Fact::Asked(Stop::Finish));
    assert_eq!(it.at(3, Fact::Answered), [], "it leaves");
}

#[test]
fn what_cannot_be_seen_is_believed_after_a_second() {
    let mut it = Played::new();
    assert_eq!(it.at(999, Fact::Observed(Observation::Hidden)), []);
    assert_eq!(it.at(1000, Fact::Observed(Observation::Holds)), []);
    assert_eq!(it.at(1000, Fact::Observed(Observation::Hidden)), [Effect::Ready]);
}

#[test]
fn looks_become_rarer() {
    let (mut it, mut now, mut checks) = (Played::new(), 0, 0);
    while now < 1000 {
        it.at(now, Fact::Observed(Observation::Holds));
        now = it.0.next_look().expect("it is not ready").as_millis();
        checks += 1;
    }
    assert!((20..60).contains(&checks), "{checks} in a second");
}

#[test]
fn it_is_asked_once_and_killed_when_the_parent_says_so() {
    let mut it = Played::new();
    assert_eq!(it.at(0, Fact::Asked(Stop::Finish)), [Effect::LetGo, Effect::Tell(Stop::Finish)]);
    assert_eq!(it.at(1, Fact::Asked(Stop::Finish)), []);
    assert_eq!(it.at(2, Fact::Asked(Stop::Quick)), [Effect::Tell(Stop::Quick)]);
    assert_eq!(it.at(3, Fact::Asked(Stop::Kill)), [Effect::Tell(Stop::Kill)]);
    assert_eq!(it.at(22, TICK), []);
    assert_eq!(it.at(23, TICK), [Effect::Tell(Stop::Kill)], "what was forked meanwhile");
    assert_eq!(it.at(24, Fact::Exited(TERMED)), []);
    assert_eq!(it.at(25, Fact::Childless).len(), 1);
}

#[test]
fn the_time_out_is_the_parent_s_to_say_while_there_is_one() {
    for (fact, killed_at) in [(TICK, 12_000), (ORPHANED, 10_000)] {
        let mut it = Played::new();
        it.at(0, Fact::Asked(Stop::Finish));
        it.at(5, Fact::Exited(Exit::Code(0)));
        let mut now = 0;
        loop {
            now = it.0.deadline().expect("a time-out").as_millis().max(now + 1);
            if it.at(now, fact) == [Effect::Tell(Stop::Kill)] {
                break;
            }
        }
        assert_eq!(now, killed_at, "others of its tree are there");
    }
    let mut it = Plan::new(Duration::ZERO, ReadyCheck::Elsewhere, Time::default());
    it.handle(Fact::Asked(Stop::Finish), Time::default());
    assert_eq!(it.deadline(), None, "zero is never");
}

#[test]
fn what_it_leaves_behind_has_a_second() {
    let mut it = Played::new();
    assert_eq!(it.at(100, Fact::Exited(FAILED)), [Effect::LetGo, Effect::Tell(Stop::Finish)]);
    it.0.left_behind();
    assert_eq!(it.at(1099, TICK), []);
    assert_eq!(it.at(1100, TICK), [Effect::Tell(Stop::Kill)]);
    assert_eq!(it.at(1101, Fact::Childless), end(FAILED, Some(EndReason::Early)));
}

#[test]
fn the_end_says_what_is_known() {
    let mut it = Played::new();
    it.at(1, Fact::Exited(Exit::Code(0)));
    it.0.left_behind();
    assert_eq!(it.at(2, Fact::Childless), end(Exit::Code(0), Some(EndReason::LeftOthers)));
    let mut it = Played::new();
    it.at(1, Fact::Observed(Observation::WaitingCall));
    it.at(2, Fact::Exited(FAILED));
    assert_eq!(it.at(3, Fact::Childless), end(FAILED, None), "it served");
    let stopped = |observation, after: u64, told| {
        let mut it = Played::new();
        it.at(1, Fact::Observed(observation));
        it.at(after, Fact::Asked(told));
        it.at(after + 1, Fact::Exited(TERMED));
        it.at(after + 2, Fact::Childless)
    };
    for (observation, why) in [
        (Observation::Nothing, Some(EndReason::NoSocket)),
        (Observation::Holds, Some(EndReason::NotWaiting)),
        (Observation::Hidden, None),
    ] {
        assert_eq!(stopped(observation, 2, Stop::Kill), end(TERMED, why));
        assert_eq!(stopped(observation, 2, Stop::Finish), end(TERMED, None), "it may not have been ready yet");
        assert_eq!(stopped(observation, 6000, Stop::Finish), end(TERMED, why));
    }
}

#[test]
fn a_program_that_is_stopped_all_the_time_is_told_of_at_its_pace_and_rightly() {
    let (mut it, mut told, mut count) = (Played::new(), false, 0);
    for now in 0..10_000 {
        for effect in it.at(now, Fact::Suspended(now % 2 == 0)) {
            let Effect::Suspended(is_stopped) = effect else { panic!("{effect:?}") };
            assert_ne!(is_stopped, told);
            (told, count) = (is_stopped, count + 1);
        }
    }
    assert!((10..=20).contains(&count), "{count} in ten seconds");
    it.at(10_000, Fact::Suspended(true));
    let due = it.0.deadline().filter(|_| !told).unwrap_or(it.1);
    it.at(due.as_millis(), TICK);
    assert!(it.0.suspension.is_stopped && it.0.suspension.reported);
}
