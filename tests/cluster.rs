//! What Node's `cluster` promises, as its own tests (`test/parallel/test-cluster-*.js`) tell it, and where the same is
//! tested here: 38 rows ported, 11 not applicable, none open. A name without a file is a test of this one.
//!
//! | | Node's tests | |
//! |---|---|---|
//! | 1 | basic: events in order, ids, addresses | `replace`: `events_reach_the_application_in_order` |
//! | 1 | basic: no role marker in a worker's environment | not applicable: it is for the worker's children, and gives no role |
//! | 2 | worker-exit: code, once, the process is gone | `an_exit_is_reported_once_with_its_code_or_signal` |
//! | 2 | the event `disconnect`, once, before `exit` | `an_exit_is_reported_once_with_its_code_or_signal` |
//! | 3 | worker-death: before anything else | `an_exit_before_ready_is_reported_with_its_code` |
//! | 4 | worker-kill, -signal | `a_signal_to_a_worker_ends_it_as_that_signal_does`; `messages`: `the_parent_kills_whom_it_is_asked_to` |
//! | 5 | kill-infinite-loop | `a_worker_in_an_endless_loop_is_killed_after_sigterm`: SIGTERM drains, within its timeout |
//! | 6 | kill-disconnect: told by itself | `messages`: `a_worker_can_ask_to_leave`; an exit without asking is not voluntary |
//! | 7 | worker-destroy, call-and-destroy | `crash`: `the_log_says_how_a_worker_has_ended`; `a_worker_may_ask_to_leave_more_than_once` |
//! | 8 | worker-isdead | `a_worker_is_in_the_status_from_its_start_to_its_end` |
//! | 8 | worker-isconnected | `replace`: `events_reach_the_application_in_order` |
//! | 9 | worker-constructor | not applicable: applications make no workers |
//! | 10 | worker-events, rr-ref, -unref, -keep-loop-alive | not applicable: a worker lives until its code returns |
//! | 11 | worker-disconnect: by the parent | `messages`: `a_worker_gets_what_was_sent_before_it_was_told_to_finish` |
//! | 12 | worker-wait-server-close | `a_worker_told_to_leave_ends_after_its_connections` |
//! | 13 | worker-no-exit: outgoing connections | not applicable: they do not keep a worker; its code waits, or not |
//! | 14 | worker-forced-exit: the channel is cut | `parent`: `workers_of_a_killed_parent_finish_what_they_have`, not at once |
//! | 15 | process-disconnect: cut by the worker | `drain`: `a_sigterm_to_one_worker_drains_and_replaces_it` |
//! | 16 | disconnect: 8 workers, 2 ports, and again | `eight_workers_on_two_ports_stop_and_start_again` |
//! | 17 | disconnect-idle-worker, -before-exit, -race | `a_pool_stops_whose_workers_are_not_ready`; `drain`: `idle_connections_do_not_hold_the_drain_up` |
//! | 17 | disconnect-with-no-workers | not applicable: a pool has one at least |
//! | 18 | disconnect-exitedAfterDisconnect-race | `messages`: `a_worker_can_ask_to_leave`: the parent is asked first |
//! | 19 | concurrent-disconnect | `all_may_be_told_to_leave_at_once_from_both_sides` |
//! | 20 | server-restart, child-index, shared-leak | not applicable: a socket is its slot's, as long as the pool runs |
//! | 21 | primary-kill | `parent`: `workers_end_with_a_killed_parent_and_free_the_port` |
//! | 21 | primary-error | not applicable: a panic of a hook is survived (`replace`), and there is nothing else of the parent's to throw |
//! | 22 | uncaught-exception: a handler in the parent | not applicable: as 21; a panic hook is the standard library's |
//! | 23 | ipc-throw: an error after the end was asked for | `a_panic_while_it_drains_wedges_neither_worker_nor_parent` |
//! | 24 | bind-twice | `instances`: `a_second_instance_is_refused_and_the_first_goes_on` |
//! | 24 | eaddrinuse: and again when it is free | `instances`: `a_second_instance_may_start_when_the_first_has_stopped` |
//! | 24 | shared-handle-bind-error | `instances`: `an_address_that_cannot_be_bound_ends_the_pool_before_any_worker_runs` |
//! | 25 | bind-privileged-port, eaccess | `instances`: `a_privileged_port_is_refused_with_the_remedy` |
//! | 26 | listening-port | `instances`: `all_workers_share_a_free_port`; `replace`: as 1 |
//! | 26 | net-listen-backlog | `the_backlog_is_the_kernel_s` |
//! | 27 | net-listen-ipv6only | `each_family_may_have_a_socket_of_its_own_on_one_port`; `serve`: `every_interface_means_both_families` |
//! | 27 | net-reuseport: twice in one worker | not applicable: a worker has one socket for each address |
//! | 28 | http-pipe, net-listen-relative-path | `serve`: `several_addresses_of_all_kinds_are_served`; `a_socket_file_may_be_named_from_the_working_directory` |
//! | 29 | dgram-1, -2, -reuse | `udp`: `datagrams_reach_all_workers` |
//! | 30 | accept-fail | `limits`: `a_worker_out_of_descriptors_sleeps` |
//! | 30 | net-server-drop-connection | `lossless`: `a_full_worker_gets_no_new_connections` |
//! | 31 | message, worker-init | `messages`: `messages_come_up_whole_and_in_order`, `each_worker_gets_a_broadcast` |
//! | 31 | fork-env: of its own for each worker | `each_worker_may_execute_a_program_of_its_own` |
//! | 32 | invalid-message | `messages`: `nobody_and_nonsense_are_errors_and_no_end` |
//! | 33 | send-handle-twice, net-send | `messages`: `a_socket_goes_up_and_down_with_its_message`; `sockets_that_pass_through_the_parent_leave_nothing_there` |
//! | 33 | send-deadlock | `messages`: `sending_to_a_parent_that_does_not_read_fails_and_loses_nothing`: nobody waits |
//! | 33 | send-socket-to-worker-http-server | `messages`: `a_connection_goes_on_with_another_worker` |
//! | 34 | advanced-serialization | `typed`: `values_go_both_ways_and_others_are_typed_errors`, with the feature `serde` |
//! | 35 | setup-primary and its kin | not applicable: a builder's settings are given before the pool runs |
//! | 36 | cwd, fork-stdio | not applicable: a fork has its parent's; programs may be started with others |
//!
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use support::{connect_unix, example, fresh_path, is_gone, skip, testbed, until, Client, Server};

/// The testbed with one worker, whose application prints its events.
fn hooked(variables: &[(&str, &str)]) -> Server {
    let mut command = example("testbed");
    command.envs([("TESTBED", "hook"), ("FORKPOOL_WORKERS", "1")]).envs(variables.iter().copied());
    Server::start(command)
}

/// The example whose workers tell its parent what they are asked by HTTP.
fn messages(workers: &str) -> Server {
    let mut command = example("messages");
    command.env("FORKPOOL_WORKERS", workers);
    Server::start(command)
}

/// A request whose handler runs when the body comes: `x`. The worker has it when this returns.
fn begin(server: &mut Server, target: &str) -> Client<TcpStream> {
    let mut client = server.connect();
    client.send(format!("POST {target} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n"));
    assert_eq!(client.answer().status, 100);
    client
}

/// How many descriptors a process has open.
fn descriptors(pid: Pid) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count()
}

#[test]
fn an_exit_is_reported_once_with_its_code_or_signal() {
    for (target, end) in [
        ("/exit?code=33", "code: Some(33), signal: None, was_requested: false"),
        ("/abort", "code: None, signal: Some(6), was_requested: false"),
    ] {
        let mut server = hooked(&[]);
        let worker = server.workers()[0];
        let mut client = server.connect();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let line = server.wait_for("event Exited");
        assert!(line.contains(&format!("pid: {worker}, unique_id: 1 }}, {end}")), "{line}");
        assert!(is_gone(worker));
        server.wait_for("event Ready(Process { worker: 0, generation: 2");
        server.signal(Signal::SIGKILL);
        let (_, log) = server.finish();
        let ends = log.iter().filter(|line| line.contains("unique_id: 1 }"));
        let ends = ends.filter_map(|line| line.strip_prefix("event ")?.split('(').next()?.split(' ').next());
        let ends: Vec<_> = ends.skip_while(|event| *event != "Disconnected").collect();
        assert_eq!(ends, ["Disconnected", "Exited"], "{log:?}");
    }
}

#[test]
fn an_exit_before_ready_is_reported_with_its_code() {
    let mut command = example("testbed");
    command.envs([("TESTBED", "exit"), ("FORKPOOL_WORKERS", "1")]);
    let mut server = Server::spawn(command);
    let line = server.wait_for("event Exited");
    assert!(
        line.contains("generation: 1") && line.contains("code: Some(9), signal: None, was_requested: false"),
        "{line}"
    );
    let (status, log) = server.finish();
    assert_eq!(status.code(), Some(1));
    assert!(!log.iter().any(|line| line.starts_with("event Ready")), "{log:?}");
}

#[test]
fn a_signal_to_a_worker_ends_it_as_that_signal_does() {
    for (signal, end) in [
        (Signal::SIGKILL, "code: None, signal: Some(9), was_requested: false"),
        (Signal::SIGABRT, "code: None, signal: Some(6), was_requested: false"),
        // It drains.
        (Signal::SIGTERM, "code: Some(0), signal: None, was_requested: false"),
    ] {
        let mut server = hooked(&[]);
        let worker = server.workers()[0];
        kill(worker, signal).expect("it runs");
        let line = server.wait_for("event Exited");
        assert!(line.contains(&format!("pid: {worker}, unique_id: 1 }}, {end}")), "{line}");
        assert!(is_gone(worker));
    }
}

#[test]
fn a_worker_in_an_endless_loop_is_killed_after_sigterm() {
    let mut server = hooked(&[("FORKPOOL_DRAIN_TIMEOUT", "100ms")]);
    begin(&mut server, "/burn?ms=86400000").send("x");
    let worker = server.workers()[0];
    kill(worker, Signal::SIGTERM).expect("it runs");
    server.wait_for("killed by SIGALRM (its own alarm at the end of the drain timeout");
    let line = server.wait_for("event Exited");
    assert!(line.contains("code: None, signal: Some(14)"), "{line}");
    assert!(is_gone(worker));
}

#[test]
fn a_worker_is_in_the_status_from_its_start_to_its_end() {
    let mut server = Server::spawn({
        let mut command = example("testbed");
        command.envs([("TESTBED", "hook"), ("FORKPOOL_WORKERS", "1")]);
        command
    });
    let line = server.wait_for("status Status");
    assert!(line.contains("generation: 1") && line.contains("state: Ready"), "{line}");
    let worker = server.workers()[0];
    kill(worker, Signal::SIGKILL).expect("it runs");
    server.wait_for("still there: None");
    let line = server.wait_for("status Status");
    assert!(line.contains("generation: 2") && !line.contains("generation: 1"), "{line}");
}

#[test]
fn a_worker_told_to_leave_ends_after_its_connections() {
    let mut server = messages("1");
    let mut begun = begin(&mut server, "/say?late");
    server.get("/disconnect");
    server.wait_for("worker 0 number 1 got \"before the end 9\"");
    // The replacement serves meanwhile.
    until("that is there", || (server.count("worker 0 number 2 says \"here is 0\"") == 1).then_some(()));
    assert_eq!(server.count("number 1 exited"), 0);
    begun.send("x");
    assert!(begun.answer().closes());
    // What it sends is still heard.
    server.wait_for("worker 0 number 1 says \"late\"");
    server.wait_for("worker 0 number 1 exited, code Some(0), told true");
    until("its code has gone on after that", || (server.count("worker 0 number 1 has served") == 1).then_some(()));
}

#[test]
fn a_worker_may_ask_to_leave_more_than_once() {
    let mut server = messages("1");
    let mut client = server.connect();
    let leave = "GET /leave HTTP/1.1\r\nHost: a\r\n";
    client.send(format!("{leave}\r\n{leave}\r\n{leave}Connection: close\r\n\r\n"));
    assert_eq!(client.answer().status, 200);
    server.wait_for("worker 0 number 1 exited, code Some(0), told true");
    assert_eq!(server.get("/").status, 200);
    server.signal(Signal::SIGTERM);
    let (status, log) = server.finish();
    assert_eq!(status.code(), Some(0));
    let number = |n: u32| log.iter().filter(|line| line.contains(&format!("number {n} exited"))).count();
    assert_eq!((number(1), number(2), number(3)), (1, 1, 0), "{log:?}");
}

#[test]
fn all_may_be_told_to_leave_at_once_from_both_sides() {
    let mut server = messages("4");
    let mut clients: Vec<_> = (0..16).map(|_| server.connect()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        let order = ["/leave", "/disconnect"][n % 2];
        client.send(format!("GET {order} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
    }
    server.signal(Signal::SIGHUP);
    for client in &mut clients {
        assert_eq!(client.answer().status, 200);
    }
    server.wait_for("rolling restart done");
    assert_eq!(server.get("/").status, 200);
    server.signal(Signal::SIGTERM);
    let (status, log) = server.finish();
    assert_eq!(status.code(), Some(0));
    let exits: Vec<_> = log.iter().filter(|line| line.contains(" exited, code ")).collect();
    assert!(exits.len() >= 8, "{exits:?}");
    assert!(exits.iter().all(|line| line.ends_with("code Some(0), told true")), "{exits:?}");
}

#[test]
fn a_pool_stops_whose_workers_are_not_ready() {
    let mut command = example("testbed");
    command.envs([("TESTBED", "hang"), ("FORKPOOL_WORKERS", "3"), ("FORKPOOL_DRAIN_TIMEOUT", "100ms")]);
    let mut server = Server::spawn(command);
    until("they are forked", || (server.workers().len() == 3).then_some(()));
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn eight_workers_on_two_ports_stop_and_start_again() {
    let mut listen = "127.0.0.1:0,127.0.0.1:0".to_owned();
    for _ in 0..2 {
        let variables = [("FORKPOOL_LISTEN", listen.as_str()), ("FORKPOOL_WORKERS", "8")];
        let mut server = testbed(&variables);
        server.wait_for("listening on ");
        let ports: Vec<u16> =
            server.log().iter().filter_map(|line| line.split_once("http://127.0.0.1:")).map(port).collect();
        let [first, second] = ports[..] else { panic!("{ports:?}") };
        for port in [first, second] {
            let workers: BTreeSet<_> = server.workers().into_iter().collect();
            let (mut seen, mut kept) = (BTreeSet::new(), Vec::new());
            until("each has answered", || {
                let mut client = Client::new(TcpStream::connect(("127.0.0.1", port)).expect("open"));
                seen.insert(client.get("/").worker());
                // Whoever has one is not the one with the fewest.
                kept.push(client);
                (seen == workers).then_some(())
            });
        }
        server.signal(Signal::SIGTERM);
        assert_eq!(server.wait().code(), Some(0));
        listen = format!("127.0.0.1:{first},127.0.0.1:{second}");
    }
}

/// The number that the rest of a line of the log begins with.
fn port((_, rest): (&str, &str)) -> u16 {
    rest.split(' ').next().and_then(|port| port.parse().ok()).expect("a port")
}

#[test]
fn a_panic_while_it_drains_wedges_neither_worker_nor_parent() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "1")]);
    let mut begun = begin(&mut server, "/panic");
    server.signal(Signal::SIGTERM);
    server.wait_for("draining: SIGTERM");
    begun.send("x");
    assert_eq!(begun.answer().status, 500);
    let (status, log) = server.finish();
    assert_eq!(status.code(), Some(0));
    assert!(log.iter().any(|line| line.contains("exited with code 0, 1 requests")), "{log:?}");
}

#[test]
fn the_backlog_is_the_kernel_s() {
    if Command::new("ss").arg("-V").output().is_err() {
        return skip("no ss(8)");
    }
    let mut server = testbed(&[("FORKPOOL_BACKLOG", "17")]);
    let filter = format!("sport = :{}", server.port());
    let output = Command::new("ss").args(["-H", "-l", "-t", "-n", &filter]).output().expect("it runs");
    let table = String::from_utf8(output.stdout).expect("text");
    let backlogs: Vec<_> = table.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    assert_eq!(backlogs, ["17", "17"], "{table}");
}

#[test]
fn each_family_may_have_a_socket_of_its_own_on_one_port() {
    let port = support::sockets::unused_port();
    // The one for IPv6 would take the place of the other if it took IPv4 connections too.
    let mut server = testbed(&[("FORKPOOL_LISTEN", &format!("0.0.0.0:{port},[::]:{port}"))]);
    server.wait_for(&format!("listening on http://[::]:{port} "));
    for host in ["127.0.0.1", "::1"] {
        let stream = TcpStream::connect((host, port)).expect(host);
        assert_eq!(Client::new(stream).get("/").status, 200, "{host}");
    }
}

#[test]
fn a_socket_file_may_be_named_from_the_working_directory() {
    let directory = fresh_path("working-directory").join("a".repeat(120));
    fs::create_dir_all(&directory).expect("a writable directory");
    let mut command = example("testbed");
    // As a whole the path would be too long for unix(7).
    command.current_dir(&directory).env("FORKPOOL_LISTEN", "unix:./x.sock").env("FORKPOOL_WORKERS", "2");
    let mut server = Server::start(command);
    let path = format!("/proc/{}/cwd/x.sock", server.pid());
    assert_eq!(connect_unix(path.as_ref()).get("/").status, 200);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
    fs::remove_dir(&directory).expect("nothing is left in it");
    fs::remove_dir(directory.parent().expect("made above")).expect("nothing else was made");
}

#[test]
fn sockets_that_pass_through_the_parent_leave_nothing_there() {
    let mut server = messages("2");
    let pids: Vec<_> = server.workers().into_iter().chain([server.pid()]).collect();
    let before: Vec<_> = pids.iter().map(|pid| descriptors(*pid)).collect();
    let mut client = server.connect();
    for _ in 0..100 {
        assert!(client.get("/socket").text().starts_with("from worker "));
    }
    // Each process has had a copy of each. A few come and go for other reasons.
    let is_more = || pids.iter().zip(&before).any(|(pid, before)| descriptors(*pid) > before + 50);
    until("they are closed", || (!is_more()).then_some(()));
}

#[test]
fn each_worker_may_execute_a_program_of_its_own() {
    let mut server = Server::spawn({
        let mut command = example("testbed");
        command.envs([("TESTBED", "execute"), ("FORKPOOL_WORKERS", "2")]);
        command
    });
    for worker in 0..2 {
        let told = format!("argument {worker}, variable {worker}");
        until(&told, || (server.count(&told) > 0).then_some(()));
    }
}

#[test]
fn a_process_that_goes_on_after_its_pool_can_be_ended() {
    // Those that whoever runs the tests may have had ignored are left out: nohup(1), or a shell in the background.
    for signal in [Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGUSR2] {
        let mut server = testbed(&[("TESTBED", "goes-on")]);
        server.signal(Signal::SIGTERM);
        server.wait_for("the pool is over, and the process goes on");
        server.signal(signal);
        assert_eq!(server.wait().signal(), Some(signal as i32));
    }
}

#[test]
fn a_pool_stops_and_another_one_starts_in_the_same_process() {
    let path = fresh_path("twice.pid");
    let mut server = testbed(&[("TESTBED", "twice"), ("FORKPOOL_PID_FILE", path.to_str().expect("text"))]);
    let (parent, port) = (format!("{}\n", server.pid()), server.port());
    assert_eq!(fs::read_to_string(&path).expect("it is written"), parent);
    assert_eq!((server.get("/").text(), server.workers().len()), ("testbed\n", 2));
    server.signal(Signal::SIGTERM);
    server.wait_for("the first pool has given back: descriptors true, mask true, address true, pid file true");
    server.wait_for(&format!("listening on http://127.0.0.1:{port} with 3 workers"));
    assert_eq!((server.get("/").text(), server.workers().len()), ("second\n", 3));
    assert_eq!(fs::read_to_string(&path).expect("it is written again"), parent);
    // It supervises, as the first one did.
    kill(server.workers()[0], Signal::SIGKILL).expect("it runs");
    server.wait_for("killed by SIGKILL");
    server.wait_for(" gen=2 ");
    server.signal(Signal::SIGTERM);
    let (status, log) = server.finish();
    assert_eq!(status.code(), Some(0));
    assert!(!path.exists());
    let count = |part: &str| log.iter().filter(|line| line.contains(part)).count();
    assert_eq!((count("draining: SIGTERM"), count("stopped after "), count("killing")), (2, 2, 0), "{log:?}");
}
