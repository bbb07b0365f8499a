//! Workers that pass on whatever they have, in place of their connections, when they are told to leave. Those after
//! them must serve on, and keep nothing of it.

use std::collections::BTreeSet;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::attacked::Attacked;
use super::{answer, in_tier, Tier};
use crate::support::{is_gone, until};

#[test]
fn a_worker_of_the_same_user() {
    passes_on_what_is_no_connection(Tier::SameUser);
}

#[test]
fn a_worker_of_another_user() {
    passes_on_what_is_no_connection(Tier::OtherUser);
}

#[test]
fn a_worker_in_the_sandbox() {
    passes_on_what_is_no_connection(Tier::Sandbox);
}

#[track_caller]
fn passes_on_what_is_no_connection(tier: Tier) {
    let Some(mut command) = in_tier(tier) else { return };
    // They are in their attack, and so seem to be stalled, until all is passed on.
    command.envs([("FORKPOOL_STALL_TIMEOUT", "0"), ("FORKPOOL_DRAIN_TIMEOUT", "1h"), ("FORKPOOL_REBALANCE", "off")]);
    let Some(mut pool) = Attacked::of(command) else { return };
    // Each gets copies of the three others' sockets soon after it is ready, which may be after this.
    let (before, most) = (pool.parent(), descriptors_of_workers(&pool) + 3);
    let attackers: Vec<Pid> = pool.clients.iter().take(2).map(|(pid, _)| *pid).collect();
    for (_, client) in &mut pool.clients[..2] {
        client.send("GET /attack?pass-on HTTP/1.1\r\nHost: a\r\n\r\n");
        pool.server.wait_for("waits for orders");
    }
    pool.server.signal(Signal::SIGHUP);
    until("both attackers have done it", || (pool.server.count("passed on ") == 2).then_some(()));
    let passed = pool.server.log().iter().filter_map(|line| line.split_once("passed on ")?.1.split(' ').next());
    assert!(passed.map(|count| count.parse::<usize>().expect("a number")).all(|count| count > 500));
    until("all that is none was refused", || (refused(pool.admin) > 500).then_some(()));
    until("the attackers are gone", || attackers.iter().all(|pid| is_gone(*pid)).then_some(()));
    until("the restart is done", || (pool.server.count("rolling restart done") > 0).then_some(()));

    // The connections of the others have moved, and move again, as do those of the attackers' successors.
    pool.clients.drain(..2);
    for (pid, client) in &mut pool.clients {
        let answer = client.get("/");
        assert!(answer.status == 200 && !answer.closes() && answer.worker() != *pid, "{answer:?}");
        *pid = answer.worker();
    }
    let mut served = BTreeSet::new();
    until("all four slots have clients", || {
        let mut client = pool.server.connect();
        let answer = client.get("/");
        served.insert(answer.field("x-slot").expect("it says its slot").to_owned());
        pool.clients.push((answer.worker(), client));
        (served.len() == 4).then_some(())
    });
    let old: BTreeSet<Pid> = pool.clients.iter().map(|(pid, _)| *pid).collect();
    pool.server.signal(Signal::SIGHUP);
    until("the old workers are gone", || old.iter().all(|pid| is_gone(*pid)).then_some(()));
    for (_, client) in &mut pool.clients {
        let answer = client.get("/");
        assert!(answer.status == 200 && !answer.closes(), "{answer:?}");
    }
    pool.clients.clear();
    until(&format!("no worker holds more than {most} descriptors"), || {
        (descriptors_of_workers(&pool) <= most).then_some(())
    });
    pool.parent_is_well(&before);
    pool.holds_nothing_more(&before);
    pool.ends();
}

/// How many the child of the parent has that has the most.
fn descriptors_of_workers(pool: &Attacked) -> usize {
    let count = |pid: Pid| std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    pool.server.workers().into_iter().map(count).max().unwrap_or(0)
}

/// How many messages the workers have refused.
fn refused(admin: u16) -> usize {
    let status = answer(admin, "/status.json").unwrap_or_default();
    let count = status.split_once("\"handover_refused\":").map(|(_, rest)| rest.split(&[',', '}'][..]).next());
    count.flatten().and_then(|count| count.parse().ok()).unwrap_or(0)
}
