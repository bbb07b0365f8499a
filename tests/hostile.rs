//! Workers that attack their own pool, and what that costs the others. The attacker, `tests/tools/hostile`, uses only
//! what any process can find out about itself.
//!
//! Two of four workers attack. Meanwhile the parent must neither end nor spin nor log without limit, and the other
//! workers and the admin process must answer. Once the attackers were killed and a rolling restart is done, all four
//! slots must serve every request, the parent must hold no more descriptors than before, and the pool must stop on
//! request.
//!
//! What is promised depends on the tier (`src/shared/mod.rs`, "Who trusts whom"): workers of the parent's own user, of
//! another user, and of another user in the sandbox.

mod support;

#[path = "hostile/attacked.rs"]
mod attacked;
#[path = "hostile/passing.rs"]
mod passing;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use attacked::Attacked;
use nix::sys::signal::Signal;
use nix::unistd::{self, Pid, SysconfVar};
use support::sockets::{count_tcp_sockets, LISTEN};
use support::{example, skip, until, Server};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tier {
    SameUser,
    OtherUser,
    Sandbox,
}

/// What may become of the workers that do not attack.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Siblings {
    /// They go on as if nothing were.
    GoOn,
    /// They may be replaced, without anybody's doing: they have been killed, or were blocked by what they share.
    AreReplaced,
    /// New clients may not reach them before the repair, as what they share was spoilt.
    AreCutOff,
}

macro_rules! attacks {
    ($($name:ident: $what:literal, $siblings:ident;)*) => {
        $(#[test] fn $name() { super::attack(TIER, $what, super::Siblings::$siblings); })*
    };
}

/// What no tier lets harm anybody else.
macro_rules! attacks_that_harm_nobody {
    () => {
        attacks! {
            fills_memory_beyond_its_own: "memory-beyond", GoOn;
            fills_memory_for_ever: "memory-for-ever", GoOn;
            floods: "flood", GoOn;
            passes_descriptors: "descriptors", GoOn;
            passes_lingering_clients: "lingering", GoOn;
            shuts_listeners_down: "shut-down", GoOn;
        }
    };
}

/// The same, of which the tiers in between show nothing more.
macro_rules! more_attacks_that_harm_nobody {
    () => {
        attacks! {
            fills_memory_with_ones: "memory-ones", GoOn;
            fills_memory_with_large_words: "memory-large", GoOn;
            fills_memory_with_small_words: "memory-small", GoOn;
            fills_memory_with_random_words: "memory-random", GoOn;
            sends_junk: "junk", GoOn;
            sends_letters: "letters", GoOn;
            closes_everything: "close-all", GoOn;
            drops_connections: "accept", GoOn;
            shuts_listeners_down_by_other_numbers: "replace", GoOn;
            takes_what_is_not_for_it: "orders", GoOn;
            makes_connections_linger: "linger-later", GoOn;
        }
    };
}

/// What no user can be kept from but by the design: memory, records, descriptors.
mod a_worker_of_the_same_user {
    const TIER: super::Tier = super::Tier::SameUser;
    attacks_that_harm_nobody! {}
    more_attacks_that_harm_nobody! {}
    attacks! {
        blocks_listeners: "block", AreReplaced;
        programs_listeners: "program", AreCutOff;
        leaves_a_process_that_holds_all_it_holds: "child", GoOn;
        becomes_another_program: "exec", GoOn;
    }
}

mod a_worker_of_another_user {
    const TIER: super::Tier = super::Tier::OtherUser;
    attacks_that_harm_nobody! {}
    attacks! {
        blocks_listeners: "block", AreReplaced;
        programs_listeners: "program", AreCutOff;
        signals_everybody: "signal", AreReplaced;
    }
}

mod a_worker_in_the_sandbox {
    const TIER: super::Tier = super::Tier::Sandbox;
    attacks_that_harm_nobody! {}
    more_attacks_that_harm_nobody! {}
    attacks! {
        blocks_listeners: "block", GoOn;
        programs_listeners: "program", GoOn;
        sets_options_of_listeners: "options", GoOn;
        sets_what_connections_inherit: "inherited", GoOn;
        gives_its_numbers_to_something_else: "low-numbers", GoOn;
        sets_flags_of_what_others_have_open: "flags", GoOn;
        takes_leases: "leases", GoOn;
        shuts_down_what_it_writes_to: "mute", GoOn;
        signals_everybody: "signal", GoOn;
        does_everything: "everything", GoOn;
    }
}

/// Whoever chooses where connections go, and so wherever the memory lies.
#[test]
fn a_worker_can_write_to_one_page() {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("it is Linux");
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse::<u32>().ok());
    if (numbers.next(), numbers.next()) < (Some(6), Some(10)) {
        return skip("this kernel lets mremap(2) stretch a page over the next ones");
    }
    for balance in ["random", "auto"] {
        let mut command = example("hostile");
        command.envs([("FORKPOOL_WORKERS", "3"), ("FORKPOOL_ADMIN", "127.0.0.1:0"), ("FORKPOOL_BALANCE", balance)]);
        let mut server = Server::spawn(command);
        server.wait_for("listening on http://");
        let words = unistd::sysconf(SysconfVar::PAGE_SIZE).expect("it is known").expect("it is known") / 8;
        for what in ["memory-ones", "memory-random"] {
            let answer = server.connect().get(&format!("/attack?{what}"));
            let text = answer.text();
            assert!(text.starts_with(&format!("{words} words of ")), "{balance}: {text}");
        }
        server.signal(Signal::SIGTERM);
        assert_eq!(server.wait().code(), Some(0));
    }
}

/// Workers that ask to be replaced at once, as do their successors: the parent replaces them at its own pace.
mod workers_that_ask_to_be_replaced_again_and_again {
    use super::{asks_again_and_again, Tier};

    fn in_each_tier(says: &str) {
        for tier in [Tier::SameUser, Tier::OtherUser, Tier::Sandbox] {
            asks_again_and_again(tier, says);
        }
    }

    #[test]
    fn because_of_their_requests() {
        in_each_tier("M");
    }

    #[test]
    fn to_leave() {
        in_each_tier("Q");
    }

    #[test]
    fn because_a_socket_fails() {
        in_each_tier("B");
    }
}

#[track_caller]
fn asks_again_and_again(tier: Tier, says: &str) {
    let Some(mut command) = in_tier(tier) else { return };
    command.env("HOSTILE_SAYS", says);
    let (begun, mut server) = (Instant::now(), Server::spawn(command));
    let admin = server.wait_for_admin();
    // That it listens may never be announced: that takes a moment in which all four serve.
    let port = until("the status says where it listens", || {
        let status = answer(admin, "/status.json")?;
        status.split_once("\"listening\":[\"http://127.0.0.1:")?.1.split('"').next()?.parse().ok()
    });
    // Four at once, and a few of those that have to wait for their time.
    until("the slot has its sixth worker", || (server.count("worker=0 gen=6 ") > 0).then_some(()));
    let made = server.log().iter().filter(|line| line.contains("worker=0 gen=") && line.ends_with(" ready")).count();
    let seconds = begun.elapsed().as_secs();
    assert!(made as u64 <= 6 + seconds, "{says:?}: {made} workers in {seconds} s");
    let mut others = BTreeSet::new();
    until(&format!("both of the others serve at {port}, where {says:?} is said"), || {
        others.extend(
            answer(port, "/")
                .and_then(|it| it.lines().find_map(|line| line.strip_prefix("X-Slot: ").map(str::to_owned))),
        );
        ["2", "3"].iter().all(|slot| others.contains(*slot)).then_some(())
    });
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0), "{says:?}");
}

/// A worker may say that it has let go of the sockets of a slot that was scaled away, and keep copies: they are none of
/// the group's any more.
#[test]
fn a_worker_cannot_keep_the_place_of_a_slot_that_was_scaled_away() {
    let Some(mut pool) = Attacked::start(Tier::Sandbox, false) else { return };
    for (_, client) in &mut pool.clients {
        client.get("/attack?keep");
    }
    let port = pool.server.port();
    let listening = || count_tcp_sockets(Pid::this(), port, LISTEN);
    assert_eq!(listening(), 4);
    pool.server.signal(Signal::SIGTTOU);
    until("three sockets listen", || (listening() == 3).then_some(()));
    pool.ends();
}

/// Whatever options the kernel has: what a worker changes is put back before its successor gets the sockets, and where
/// that cannot be done it gets others.
#[test]
fn options_of_listeners_do_not_outlast_the_worker_that_changed_them() {
    // SO_REUSEPORT, SO_LOCK_FILTER, SO_BINDTODEVICE, SO_BINDTOIFINDEX, TCP_WINDOW_CLAMP.
    const FOR_GOOD: [&str; 5] = ["1/15", "1/44", "1/25", "1/62", "6/10"];
    for address in ["127.0.0.1:0", ":0"] {
        let mut command = example("hostile");
        command.envs([("FORKPOOL_WORKERS", "1"), ("FORKPOOL_LISTEN", address)]);
        let mut server = Server::start(command);
        let mut is_replaced_after = |attack: &str| {
            let before = options_of(&mut server);
            let changed = server.get(&format!("/attack?{attack}")).text().trim_end().to_owned();
            server.signal(Signal::SIGHUP);
            server.wait_for("rolling restart done");
            let after = options_of(&mut server);
            for option in changed.split(',').filter(|option| !option.is_empty()) {
                assert_eq!(after[option], before[option], "{option}, of {changed}");
            }
            (changed, after["inode"] != before["inode"], server.log().join("\n"))
        };
        let (changed, is_anew, log) = is_replaced_after(&format!("change-options:{}", FOR_GOOD.join(",")));
        eprintln!("{address}: {changed}");
        assert!(changed.split(',').count() > 30, "{changed}");
        assert!(!is_anew, "all are put back: {log}");
        for option in FOR_GOOD {
            let (changed, is_anew, _) = is_replaced_after(&format!("change-option:{option}"));
            assert_eq!(is_anew, !changed.is_empty(), "{option}");
        }
    }
}

/// The options of a worker's listener, by their numbers, and its inode.
#[track_caller]
fn options_of(server: &mut Server) -> BTreeMap<String, String> {
    // After a restart its predecessor may still answer, which has let go of its own while it drains.
    let answer = until("a worker with a listener answers", || {
        let answer = server.get("/attack?every-option");
        (!answer.text().trim().is_empty()).then_some(answer)
    });
    let lines = answer.text().lines().filter_map(|line| line.split_once('='));
    lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Two of four workers do it, and all that is promised is looked at.
#[track_caller]
fn attack(tier: Tier, what: &str, siblings: Siblings) {
    for hook in [false, true] {
        // What an application with a hook is open to besides are its messages.
        let is_about_messages = ["junk", "letters", "flood", "descriptors", "everything"].contains(&what);
        if hook && !is_about_messages {
            continue;
        }
        let Some(mut pool) = Attacked::start(tier, hook) else { return };
        let before = pool.parent();
        let attackers = pool.attack(what);
        if what == "linger-later" {
            pool.others_close_connections(&attackers);
        }
        pool.others_answer(&attackers, siblings);
        pool.parent_is_well(&before);
        pool.is_repaired(&attackers);
        pool.holds_nothing_more(&before);
        pool.ends();
    }
}

/// What starts four hostile workers; `None` where this machine has not got the tier.
fn in_tier(tier: Tier) -> Option<std::process::Command> {
    if tier != Tier::SameUser && !nix::unistd::getuid().is_root() {
        skip("only root can run workers as another user");
        return None;
    }
    let mut command = example("hostile");
    command.envs([
        ("FORKPOOL_WORKERS", "4"),
        ("FORKPOOL_ADMIN", "127.0.0.1:0"),
        ("FORKPOOL_STALL_TIMEOUT", "2s"),
        ("FORKPOOL_DRAIN_TIMEOUT", "2s"),
        // So that there is memory for its lines, which the parent reads.
        ("FORKPOOL_ACCESS_LOG", "/dev/null"),
    ]);
    if tier != Tier::SameUser {
        command.env("FORKPOOL_USER", "nobody");
    }
    if tier == Tier::Sandbox {
        command.env("FORKPOOL_SANDBOX", "strict");
    }
    Some(command)
}

fn answer(port: u16, path: &str) -> Option<String> {
    let patience = Duration::from_secs(1);
    let mut stream = TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), patience).ok()?;
    stream.set_read_timeout(Some(patience)).ok()?;
    std::io::Write::write_all(&mut stream, format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}
