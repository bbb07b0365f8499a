//! Resources run out: nothing spins, nothing is lost.

mod support;

use std::net::TcpStream;
use std::time::Duration;

use nix::sys::resource::{getrlimit, Resource};
use support::{example, testbed, Client, Server};

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
    while server.count("accepts nothing until a descriptor is free") == 0 {
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
        client.send("x");
        assert_eq!((client.answer().status, client.answer().status), (100, 200));
    }
    for mut client in waiting {
        assert_eq!(client.answer().status, 200);
    }
    // It rests meanwhile: a line each time that it tries again would be many.
    assert_eq!(server.get("/").status, 200);
    assert!(server.count("accepts nothing") <= clients, "of {clients} clients");
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
    // Between five sleeps a spinning loop would fill ticks of ten milliseconds.
    assert!(ticks() - busy < 5, "{} ticks", ticks() - busy);
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
