//! Descriptors run out: no process spins, and nothing is lost.

mod support;

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use nix::sys::resource::{getrlimit, Resource};
use nix::sys::signal::Signal;
use support::{example, limit_descriptors, testbed, until, Client, Server};

/// The testbed with one worker and few descriptors.
fn confined(descriptors: u64) -> Server {
    let program = example("testbed");
    let mut command = std::process::Command::new("sh");
    command.args([
        "-c",
        &format!("ulimit -n {descriptors} && exec \"$0\""),
        program.get_program().to_str().expect("UTF-8"),
    ]);
    command.envs([("FORKPOOL_LISTEN", "127.0.0.1:0"), ("FORKPOOL_WORKERS", "1")]);
    Server::start(command)
}

/// Begins requests until the worker has no descriptor for the next. Those that have begun do not make room.
fn exhaust(server: &mut Server) -> Vec<Client<TcpStream>> {
    let mut clients = Vec::new();
    while server.count("stops accepting until a descriptor is free") == 0 {
        let mut client = server.connect();
        client.send("POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n");
        // An answer says that it is in progress; where none comes, it waits.
        client.stream().set_read_timeout(Some(Duration::from_millis(50))).expect("a socket");
        let _ = client.stream().peek(&mut [0]);
        client.stream().set_read_timeout(Some(support::DEADLINE)).expect("a socket");
        clients.push(client);
    }
    clients
}

#[test]
fn connections_beyond_the_descriptors_wait_their_turn() {
    let mut server = confined(40);
    let begun = exhaust(&mut server);
    let mut waiting: Vec<_> = (0..80).map(|_| server.connect()).collect();
    let clients = begun.len() + waiting.len() + 1;
    for client in &mut waiting {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    // As the first ones end, the next ones get their places.
    for mut client in begun {
        // Before that the last of them may not be in progress yet, and where a body comes with its head, no 100 does.
        assert_eq!(client.answer().status, 100);
        client.send("x");
        assert_eq!(client.answer().status, 200);
    }
    for mut client in waiting {
        assert_eq!(client.answer().status, 200);
    }
    // It rests meanwhile: a line each time that it tries again would be many.
    assert_eq!(server.get("/").status, 200);
    assert!(server.count("stops accepting") <= clients, "of {clients} clients");
}

#[test]
fn a_worker_out_of_descriptors_sleeps() {
    let mut server = confined(40);
    let _begun = exhaust(&mut server);
    let _waiting: Vec<_> = (0..80).map(|_| server.connect()).collect();
    let worker = server.workers()[0];
    // Voluntary switches are sleeps; involuntary ones and CPU time would show a loop that spins. Ten retries a second
    // are the plan.
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{worker}/stat")).expect("it runs");
        let fields: Vec<&str> = stat.rsplit(") ").next().expect("fields").split(' ').collect();
        let ticks = |field: usize| fields[field].parse::<u64>().expect("a number");
        ticks(11) + ticks(12)
    };
    let sleeps = || {
        let status = std::fs::read_to_string(format!("/proc/{worker}/status")).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).expect("a line");
        line.split_whitespace().last().and_then(|count| count.parse::<u64>().ok()).expect("a number")
    };
    let (busy, slept) = (ticks(), sleeps());
    support::until("it has slept a few times", || (sleeps() >= slept + 5).then_some(()));
    // Between two sleeps a spinning loop would fill several ticks of ten milliseconds.
    let (busy, slept) = (ticks() - busy, sleeps() - slept);
    assert!(busy < slept, "{busy} ticks in {slept} sleeps");
}

#[test]
fn the_soft_limit_of_descriptors_is_raised() {
    let mut command = example("testbed");
    command.env("FORKPOOL_WORKERS", "1");
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "ulimit -S -n 64 && exec \"$0\"", command.get_program().to_str().expect("UTF-8")]);
    shell.envs([("FORKPOOL_LISTEN", "127.0.0.1:0"), ("FORKPOOL_WORKERS", "1")]);
    let server = Server::start(shell);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.workers()[0])).expect("it runs");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a line");
    assert_eq!(line.split_whitespace().nth(3), Some(hard.to_string().as_str()), "{line}");
}

#[test]
fn requests_per_connection_are_limited() {
    let mut server = testbed(&[("FORKPOOL_MAX_REQUESTS_PER_CONNECTION", "2")]);
    let mut client = server.connect();
    assert!(!client.get("/").closes());
    assert!(client.get("/").closes());
    assert!(client.is_closed());
}

/// How many descriptors the parent has.
fn open(server: &Server) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", server.pid())).expect("it runs").count()
}

/// A new worker hands its sockets to the parent, which has numbers for some of them only: what has come is closed, the
/// log says what to do, and nothing of it stays in the kernel's groups, where connections would wait for nobody.
#[test]
fn a_birth_that_is_cut_leaves_nothing_behind() {
    // More than the parent has free once the fork, which takes some of its own, is done.
    let listen = (1..=12).map(|last| format!("127.0.0.{last}:0")).collect::<Vec<_>>().join(",");
    let mut server = testbed(&[("FORKPOOL_WORKERS", "1"), ("FORKPOOL_LISTEN", &listen), ("FORKPOOL_BALANCE", "hash")]);
    let addresses = until("all addresses are announced", || {
        let addresses = server.addresses();
        (addresses.len() == 12).then_some(addresses)
    });
    // So soon after the start it may have more than it keeps.
    let least = open(&server).saturating_sub(24);
    if !limit_descriptors(server.pid(), least) {
        return;
    }
    let mut held = 0;
    const CUT: &str = "no descriptor is free for its sockets: raise RLIMIT_NOFILE";
    let cut = (least..least + 80).find_map(|most| {
        held = open(&server);
        limit_descriptors(server.pid(), most);
        server.signal(Signal::SIGTTIN);
        let outcome = server.wait_for_any(&["scaling failed", "worker=1 gen=1 pid="]);
        let cut = outcome.contains(CUT).then_some(outcome.clone());
        if cut.is_none() {
            assert!(outcome.contains("is RLIMIT_NOFILE too low?"), "neither refused nor cut: {outcome}");
            server.signal(Signal::SIGTTOU);
            server.wait_for("scaled from 2 to 1 workers");
        }
        cut
    });
    assert!(cut.expect("one is cut").contains("killed: "));
    // The reason is this one, not that of the forks before.
    assert!(server.wait_for("scaling failed").contains(CUT));
    server.signal(Signal::SIGTTOU);
    server.wait_for("scaled from 2 to 1 workers");
    until("nothing is left", || (open(&server) <= held && server.workers().len() == 1).then_some(()));
    assert_answered(&addresses);
    limit_descriptors(server.pid(), held + 100);
    server.signal(Signal::SIGTTIN);
    server.wait_for(" ready");
    assert_answered(&addresses);
}

/// Every address, often enough for each socket in its group to get connections.
fn assert_answered(addresses: &[SocketAddr]) {
    for address in addresses {
        for _ in 0..20 {
            let stream = TcpStream::connect_timeout(address, support::DEADLINE).expect("somebody listens");
            stream.set_read_timeout(Some(support::DEADLINE)).expect("a socket");
            assert_eq!(Client::new(stream).get("/").status, 200);
        }
    }
}
