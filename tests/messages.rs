//! Messages between the parent and real workers, and what the parent can do to one of them.

mod support;

#[path = "messages/channel.rs"]
mod channel;

use std::fs;

use nix::sys::signal::{kill, Signal};
use support::{example, fresh_path, is_gone, testbed, until, Server};

/// The example `messages`, whose parent does what its workers are asked by HTTP.
fn start(workers: usize) -> Server {
    let mut command = example("messages");
    command.envs([("FORKPOOL_WORKERS", workers.to_string().as_str()), ("FORKPOOL_DRAIN_TIMEOUT", "1h")]);
    Server::start(command)
}

#[test]
fn messages_come_up_whole_and_in_order() {
    let mut server = start(1);
    server.get("/many?100");
    for n in 0..100 {
        server.wait_for(&format!("worker 0 number 1 says \"{n}\""));
    }
}

#[test]
fn messages_come_down_whole_and_in_order() {
    let mut server = start(1);
    server.get("/echo?one+two");
    for text in ["one two", "", "one two"] {
        let line = server.wait_for("worker 0 number 1 got");
        assert!(line.ends_with(&format!("got {text:?}")), "{line}");
    }
}

#[test]
fn what_is_too_large_is_refused_and_what_is_not_arrives() {
    let mut server = start(1);
    server.get("/count");
    let before = server.wait_for("counted");
    assert_eq!(server.get("/large?65536").status, 200);
    server.get("/count");
    let after = server.wait_for("counted");
    // The two requests to count are messages too.
    let numbers = |line: &str| -> Vec<usize> { line.split(' ').filter_map(|word| word.parse().ok()).collect() };
    let (before, after) = (numbers(&before), numbers(&after));
    assert_eq!((after[0] - before[0], after[1] - before[1]), (2, 65_536 + "count ".len()));
    let refused = server.get("/large?65537");
    assert_eq!(refused.text(), "the message has 65537 bytes, more than 65536; split it");
    assert_eq!(server.get("/").status, 200);
}

#[test]
fn sending_to_a_parent_that_does_not_read_fails_and_loses_nothing() {
    let mut server = start(1);
    server.get("/count");
    let before = server.wait_for("counted");
    server.signal(Signal::SIGSTOP);
    let mut client = server.connect();
    client.send("GET /flood HTTP/1.1\r\nHost: a\r\n\r\n");
    let sent: usize = client.answer().text().parse().expect("a number");
    assert!(sent > 1);
    server.signal(Signal::SIGCONT);
    // It may be told that the queue is full still.
    let after = until("the parent has read", || {
        let answer = server.get("/count");
        (!answer.text().contains("try again later")).then(|| server.wait_for("counted"))
    });
    let messages = |line: &str| -> usize { line.split(' ').nth(1).and_then(|n| n.parse().ok()).expect("a number") };
    assert_eq!(messages(&after) - messages(&before), sent + 1);
}

#[test]
fn sending_to_a_worker_that_does_not_read_fails_and_loses_nothing() {
    let mut server = start(1);
    let path = fresh_path("filled");
    let mut client = server.connect();
    client.send(format!("GET /fill?{} HTTP/1.1\r\nHost: a\r\n\r\n", path.display()));
    let line = server.wait_for("filled with ");
    let sent: u32 = line.rsplit(' ').next().and_then(|n| n.parse().ok()).expect("a number");
    assert!(sent > 1);
    fs::write(&path, "").expect("a file");
    for n in 0..sent {
        let line = server.wait_for("got");
        assert!(line.ends_with(&format!("got \"{n}\"")), "{line}");
    }
    assert_eq!(client.answer().status, 200);
    fs::remove_file(&path).expect("it is ours");
}

#[test]
fn each_worker_gets_a_broadcast() {
    let mut server = start(3);
    server.get("/broadcast?all+of+you");
    let mut lines = [(); 3].map(|()| server.wait_for("got \"all of you\""));
    lines.sort();
    for (worker, line) in lines.iter().enumerate() {
        assert!(line.starts_with(&format!("worker {worker} ")), "{line}");
    }
}

#[test]
fn what_a_worker_sent_before_its_exit_is_told_before_it() {
    let mut server = start(1);
    let mut client = server.connect();
    client.send("GET /exit HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.is_closed());
    for n in 0..100 {
        server.wait_for(&format!("worker 0 number 1 says \"{n}\""));
    }
    server.wait_for("worker 0 number 1 exited, code Some(7), told false");
    // Its successor is another process in the same slot.
    server.wait_for("worker 0 number 2 says \"here is 0\"");
    server.get("/echo?hello");
    server.wait_for("worker 0 number 2 got \"hello\"");
}

#[test]
fn a_worker_gets_what_was_sent_before_it_was_told_to_finish() {
    let mut server = start(1);
    server.get("/disconnect");
    for n in 0..10 {
        server.wait_for(&format!("worker 0 number 1 got \"before the end {n}\""));
    }
    server.wait_for("worker 0 number 1 has served");
    server.wait_for("worker 0 number 1 exited, code Some(0), told true");
    until("there is another one", || (server.count("worker 0 number 2 says \"here is 0\"") > 0).then_some(()));
    assert_eq!(server.get("/").status, 200);
}

#[test]
fn a_worker_can_ask_to_leave() {
    let mut server = start(1);
    server.get("/leave");
    server.wait_for("worker 0 number 1 exited, code Some(0), told true");
    assert_eq!(server.get("/").status, 200);
    assert_eq!(server.count("backing off"), 0);
}

#[test]
fn a_socket_goes_up_and_down_with_its_message() {
    let mut server = start(2);
    let answer = server.get("/socket");
    // It was made by one worker, and went through the parent to the other one.
    assert!(matches!(answer.text(), "from worker 0" | "from worker 1"), "{}", answer.text());
    assert_eq!(server.get("/").status, 200);
}

#[test]
fn a_connection_goes_on_with_another_worker() {
    let mut server = start(2);
    let mut client = server.connect();
    let first = client.get("/").text().to_owned();
    let other = if first == "0\n" { "1\n" } else { "0\n" };
    for expected in [other, &first, other] {
        client.send("GET /handover HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: handover\r\n\r\n");
        assert_eq!(client.answer_to_head().status, 101);
        assert_eq!(client.get("/").text(), expected);
        assert_eq!(client.get("/").text(), expected);
    }
}

#[test]
fn the_parent_kills_whom_it_is_asked_to() {
    for (signal, end) in [(9, "killed by SIGKILL"), (15, "exited with code 0")] {
        let mut server = start(1);
        let worker = server.workers()[0];
        server.get("/say?first");
        let mut client = server.connect();
        client.send(format!("GET /kill?{signal} HTTP/1.1\r\nHost: a\r\n\r\n"));
        server.wait_for(end);
        server.wait_for("worker 0 number 1 exited");
        assert!(is_gone(worker));
        server.wait_for("worker 0 number 2 says \"here is 0\"");
        assert_eq!(server.get("/").status, 200);
    }
    let mut server = start(1);
    server.get("/kill?12345");
    server.wait_for("refused kill: Invalid argument");
}

#[test]
fn a_message_to_no_worker_is_an_error_and_an_invalid_record_kills_its_sender() {
    let mut server = start(1);
    server.get("/to?7");
    server.wait_for("refused to: the receiver of the message is gone");
    let mut client = server.connect();
    client.send("GET /malformed HTTP/1.1\r\nHost: a\r\n\r\n");
    server.wait_for("killed: it sent an invalid message: it was not sent by this library");
    server.wait_for("worker 0 number 1 exited");
    assert_eq!(server.get("/").status, 200);
}

#[test]
fn without_a_hook_no_message_can_be_sent() {
    let mut server = testbed(&[]);
    assert_eq!(server.get("/send").text(), "the receiver of the message is gone");
    let mut server = testbed(&[("TESTBED", "hook")]);
    assert_eq!(server.get("/send").text(), "sent");
    server.wait_for("event Message { process: Process { worker: ");
}

#[test]
fn a_server_of_another_kind_waits_for_messages_by_itself() {
    for way in ["up", "down"] {
        let mut command = example("chatter");
        command.arg(way).env("FORKPOOL_WORKERS", "2");
        let mut server = Server::spawn(command);
        // The first second may be one in which nobody is ready.
        let flows = |server: &mut Server| !server.wait_for(" messages/s, ").starts_with("0 ");
        until("messages flow", || flows(&mut server).then_some(()));
        server.signal(Signal::SIGTERM);
        assert_eq!(server.wait().code(), Some(0));
    }
}

#[test]
fn the_parent_does_everything_else_during_a_flood_of_messages() {
    let mut server = start(2);
    let worker = server.workers()[0];
    for _ in 0..4 {
        server.get("/torrent");
    }
    kill(worker, Signal::SIGKILL).expect("it runs");
    server.wait_for("killed by SIGKILL");
    server.wait_for("number 3 says \"here is");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn each_worker_knows_its_slot_and_process() {
    let mut server = start(2);
    server.get("/role");
    server.wait_for("the parent is worker None");
    for line in ["worker 0 number 1 is Some(0), (\"0\", \"1\")", "worker 1 number 2 is Some(1), (\"1\", \"2\")"] {
        until(line, || (server.count(line) == 1).then_some(()));
    }
}

#[test]
fn requests_are_counted_by_messages_and_by_the_scoreboard() {
    for name in ["count_requests", "status"] {
        let mut command = example(name);
        command.envs([("FORKPOOL_WORKERS", "2"), ("RUST_LOG", "info")]);
        let mut server = Server::start(command);
        (0..10).for_each(|_| assert_eq!(server.get("/").text(), "hello world\n"));
        server.wait_for("numReqs = 10");
        // A worker's death takes none of them back.
        kill(server.workers()[0], Signal::SIGKILL).expect("it runs");
        server.wait_for("killed by SIGKILL");
        server.wait_for("numReqs = 10");
    }
}
