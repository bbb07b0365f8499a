//! The application learns that a client has disconnected, and a client that has only sent its last request gets the
//! response.

use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::sockets::{count_tcp_sockets, CLOSE_WAIT};
use crate::support::{self, example, until, Client, Server};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::TcpRepair;
use nix::unistd::Pid;

fn leaving(variables: &[(&str, &str)]) -> Server {
    let mut command = example("leaving");
    command.env("FORKPOOL_WORKERS", "1").envs(variables.iter().copied());
    Server::start(command)
}

/// How many connections to a port have had their client's end of file, and wait for the server's (CLOSE_WAIT).
fn half_closed(pid: Pid, port: u16) -> usize {
    count_tcp_sockets(pid, port, CLOSE_WAIT)
}

#[track_caller]
fn none_stays(server: &mut Server) {
    let (worker, port) = (server.workers()[0], server.port());
    until("no connection stays half closed", || (half_closed(worker, port) == 0).then_some(()));
}

/// A client whose request the handler has had.
fn asking(server: &mut Server, target: &str) -> Client<TcpStream> {
    let mut client = server.connect();
    client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
    server.catch_up();
    client
}

#[test]
fn a_deferred_response_learns_that_its_client_has_gone() {
    let mut server = leaving(&[]);
    // At once, and without anything that would wake the worker otherwise.
    let client = asking(&mut server, "/deferred");
    drop(client);
    server.wait_for("told: deferred gone");
    none_stays(&mut server);
    assert_eq!(server.get("/answer").text(), "[true]\n");
}

#[test]
fn a_client_that_disconnects_after_its_request_is_noticed() {
    let mut server = leaving(&[]);
    let mut client = server.connect();
    client.send("GET /deferred HTTP/1.1\r\nHost: a\r\n\r\n");
    drop(client);
    server.wait_for("told: deferred gone");
    none_stays(&mut server);
}

#[test]
fn pipelined_requests_do_not_hide_that_the_client_has_gone() {
    let mut server = leaving(&[]);
    let mut client = asking(&mut server, "/deferred");
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(100));
    drop(client);
    server.wait_for("told: deferred gone");
    none_stays(&mut server);
}

#[test]
fn a_quiet_stream_learns_that_its_client_has_gone() {
    let mut server = leaving(&[]);
    let mut clients: Vec<_> = (0..20).map(|_| asking(&mut server, "/stream")).collect();
    for client in &mut clients {
        // The head, and what has been written: nothing is left unread that would reset the connection.
        client.answer_to_head();
        let mut begun = [0; 11];
        client.read(&mut begun);
        assert_eq!(&begun, b"6\r\nbegun\n\r\n");
    }
    drop(clients);
    for _ in 0..20 {
        server.wait_for("told: stream gone");
    }
    none_stays(&mut server);
    let written = server.get("/write");
    assert!(written.text().lines().all(|line| line.contains("BrokenPipe")), "{}", written.text());
    assert_eq!(written.text().lines().count(), 20);
}

#[test]
fn the_receiver_of_an_incomplete_body_is_dropped() {
    let mut server = leaving(&[]);
    let mut client = server.connect();
    client.send("POST /receive HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
    server.catch_up();
    drop(client);
    server.wait_for("told: receiver dropped");
    none_stays(&mut server);
}

#[test]
fn a_client_that_has_only_sent_its_last_request_gets_a_prompt_answer() {
    let mut server = leaving(&[]);
    until("an answer is prompt", || {
        let mut client = asking(&mut server, "/deferred");
        let begun = Instant::now();
        client.stream().shutdown(Shutdown::Write).expect("connected");
        server.wait_for("told: deferred gone");
        assert_eq!(server.get("/answer").text(), "[true]\n");
        match client.try_answer(false) {
            Ok(answer) => {
                assert_eq!(answer.text(), "answered\n");
                Some(())
            }
            // This machine has taken its time.
            Err(error) => {
                assert!(begun.elapsed() > Duration::from_secs(4), "{error}");
                None
            }
        }
    });
    until("a stream goes on for as long as it is written to", || {
        let mut client = asking(&mut server, "/stream");
        let begun = Instant::now();
        client.stream().shutdown(Shutdown::Write).expect("connected");
        server.wait_for("told: stream gone");
        let written = server.get("/write");
        server.get("/end");
        match client.try_answer(false) {
            Ok(answer) => {
                assert_eq!(answer.text(), "begun\nmore\n");
                Some(())
            }
            Err(error) => {
                assert!(begun.elapsed() > Duration::from_secs(4), "{error}: {written:?}");
                None
            }
        }
    });
}

#[test]
fn a_client_that_has_sent_its_last_request_waits_where_that_is_asked_for() {
    let mut server = leaving(&[("FORKPOOL_HALF_CLOSE", "yes")]);
    let mut client = asking(&mut server, "/deferred");
    client.stream().shutdown(Shutdown::Write).expect("connected");
    // Longer than it would wait otherwise.
    thread::sleep(Duration::from_secs(6));
    assert_eq!(server.get("/answer").text(), "[false]\n");
    assert_eq!(client.answer().text(), "answered\n");
    assert!(client.is_closed());
}

#[test]
fn a_response_that_takes_too_long_is_replaced_by_a_504() {
    let mut server = leaving(&[("FORKPOOL_ANSWER_TIMEOUT", "300ms")]);
    let mut client = asking(&mut server, "/deferred");
    // What is pipelined behind it is answered too.
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().status, 504);
    assert_eq!(client.answer().text(), "leaving\n");
    server.wait_for("told: deferred gone");
    assert_eq!(server.get("/answer").text(), "[true]\n");
    // The application's own word counts.
    let answer = client.get("/late?1");
    assert_eq!((answer.status, answer.text()), (202, "later\n"));
    drop(server);
    let mut server = leaving(&[("FORKPOOL_ANSWER_TIMEOUT", "1ms")]);
    let mut client = asking(&mut server, "/late?3600000");
    assert_eq!(server.get("/answer").text(), "[false]\n");
    assert_eq!(client.answer().text(), "answered\n");
}

#[test]
fn a_stream_that_is_full_is_no_deadlock_on_the_worker_s_own_thread() {
    let mut server = leaving(&[]);
    assert_eq!(server.get("/own-thread").body.len(), 64 << 10);
    let line = server.wait_for("own thread: ");
    assert!(line.contains("try_write") && line.contains("another thread"), "{line}");
    assert_eq!(server.get("/").status, 200);
}

#[test]
fn a_client_without_power_is_noticed_by_keepalive() {
    let mut server = leaving(&[("FORKPOOL_TCP_KEEPALIVE", "1s")]);
    let client = asking(&mut server, "/deferred");
    // The kernel forgets the connection, and says nothing to the other side (TCP_REPAIR of tcp(7)).
    if let Err(error) = setsockopt(client.stream(), TcpRepair, &1) {
        return support::skip(&format!("no connection can be forgotten here: {error}"));
    }
    drop(client);
    server.wait_for("told: deferred gone");
    assert_eq!(server.get("/answer").text(), "[true]\n");
}

#[test]
fn the_admin_process_closes_event_streams_whose_clients_have_gone() {
    let mut command = support::testbed_command(&[("FORKPOOL_ADMIN", "127.0.0.1:0")]);
    command.env("FORKPOOL_WORKERS", "1");
    let mut server = Server::spawn(command);
    let port = server.wait_for_admin();
    let mut clients = [(); 5].map(|()| Client::new(TcpStream::connect(("127.0.0.1", port)).expect("it listens")));
    for client in &mut clients {
        client.send("GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n");
        client.read(&mut [0; 12]);
        // Its end of file, and nothing that would reset the connection.
        client.stream().shutdown(Shutdown::Write).expect("connected");
    }
    clients.iter_mut().for_each(|client| drop(client.rest()));
    let pid = server.pid();
    until("no connection stays half closed", || (half_closed(pid, port) == 0).then_some(()));
}
