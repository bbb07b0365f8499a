//! Upgrades that succeed and fail.

use super::*;

#[test]
fn a_new_binary_takes_over_when_it_is_ready() {
    let mut pool = Pool::ready(2);
    let pid = Pid(50);
    pool.tell(Event::Upgrade).expect(&[Effect::Notice(Notice::UpgradeBegun), Effect::Upgrade]);
    let in_the_way = Effect::Notice(Notice::UpgradeInTheWay);
    pool.tell(Event::SuccessorSpawned { pid }).tell(Event::Upgrade).expect(&[in_the_way]);
    // Meanwhile this pool does not change, except for failures.
    pool.tell(Event::Restart).tell(Event::Scale { workers: 7 }).expect(&[in_the_way, in_the_way]);
    pool.tell(exited(10, 1)).expect(&[spawn(0, 2)]);
    pool.start(0, 20);
    pool.tell(Event::SuccessorReady);
    pool.expect(&[Effect::Notice(Notice::UpgradeDone { pid }), Effect::ReleaseSockets, drain(20), drain(11)]);
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
    // If it is late, it is told to leave, then killed; and its readiness then comes too late.
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
    pool.tell(Event::Stop(Stop::Quick)).expect(&[Effect::ReleaseSockets, quit(10), end(Stop::Quick)]);
    pool.tell(exited(10, 0)).expect(&[]);
    pool.tell(Event::SuccessorGone { exit: Some(Exit::Code(0)) }).expect(&[STOPPED]);
}

#[test]
fn a_lame_duck_has_no_successor() {
    let lame_duck = || {
        let mut pool = Pool::with(Policy::with(|policy| policy.shutdown.lame_duck = Duration::from_secs(5)), 1);
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
    // Its readiness comes too late.
    pool.tell(Event::SuccessorReady).expect(&[]);
    pool.tell(Event::SuccessorGone { exit: Some(Exit::Code(0)) }).expect(&[]);
    pool.at(5 * SECOND).tell(Event::Tick).expect(&[Effect::ReleaseSockets, drain(10)]);
    // A new binary that is being started is told as soon as it has a pid.
    let mut pool = lame_duck();
    pool.tell(Event::Upgrade).effects();
    pool.tell(Event::Stop(Stop::Drain)).expect(&[told]);
    pool.tell(spawned).expect(&[end]);
    // And none is started then.
    let mut pool = lame_duck();
    pool.tell(Event::Stop(Stop::Drain)).tell(Event::Upgrade).expect(&[told]);
}
