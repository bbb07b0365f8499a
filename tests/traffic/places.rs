//! A worker at its limit of connections: idle connections make room for new ones, and requests in progress go on.

use std::net::TcpStream;
use std::time::Duration;

use crate::support::{self, example, testbed, until, Client, Server};

const LIMIT: &str = "FORKPOOL_MAX_CONNECTIONS";

/// A testbed whose one worker may have so many connections.
fn with_places(places: &str) -> Server {
    testbed(&[("FORKPOOL_WORKERS", "1"), (LIMIT, places)])
}

/// A connection that has had one answer.
fn kept(server: &mut Server) -> Client<TcpStream> {
    let mut client = server.connect();
    answer_later(&mut client);
    client
}

/// A request that takes longer than the step of the clock that says how long a connection has been idle.
fn answer_later(client: &mut Client<TcpStream>) {
    assert_eq!(client.get("/slow?ms=3").status, 200);
}

/// A connection with a request whose body is still to come.
fn in_progress(server: &mut Server) -> Client<TcpStream> {
    let mut client = server.connect();
    client.send("POST /slow?ms=1 HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n");
    assert_eq!(client.answer().status, 100);
    client
}

#[test]
fn the_connection_that_has_been_idle_longest_makes_room() {
    let mut server = with_places("3");
    let (mut first, mut second, mut third) = (kept(&mut server), kept(&mut server), kept(&mut server));
    // The second has been idle longest now.
    answer_later(&mut first);
    let mut fourth = kept(&mut server);
    assert!(second.is_closed());
    let mut fifth = kept(&mut server);
    assert!(third.is_closed());
    for client in [&mut first, &mut fourth, &mut fifth] {
        assert_eq!(client.get("/").status, 200);
    }
    server.wait_for("it closes those that have been idle longest");
    assert_eq!(server.count("it closes those"), 1);
}

#[test]
fn clients_that_have_sent_nothing_yet_are_closed_last() {
    let mut server = with_places("3");
    let mut silent = server.connect();
    let mut idle = kept(&mut server);
    // Until this is answered, the one before has been idle for long enough to go.
    let mut busy = kept(&mut server);
    assert_eq!(busy.get("/slow?ms=50").status, 200);
    let mut next = kept(&mut server);
    assert!(idle.is_closed());
    assert_eq!(silent.get("/").status, 200);
    assert_eq!(next.get("/").status, 200);
}

#[test]
fn connections_that_have_sent_nothing_make_room_too() {
    let mut server = with_places("8");
    let mut silent: Vec<_> = (0..60).map(|_| server.connect()).collect();
    assert_eq!(server.get("/").status, 200);
    assert!(silent[0].is_closed());
}

#[test]
fn connections_with_requests_in_progress_stay() {
    let mut server = with_places("3");
    let mut busy = [in_progress(&mut server), in_progress(&mut server)];
    let mut beginning = server.connect();
    beginning.send("GET / HTTP/1.1\r\nHo");
    let mut waiting = server.connect();
    waiting.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    // Nobody makes room before one is done.
    for client in &mut busy {
        client.send("x");
        assert_eq!(client.answer().status, 200);
    }
    beginning.send("st: a\r\n\r\n");
    assert_eq!(beginning.answer().status, 200);
    assert_eq!(waiting.answer().status, 200);
}

/// Everybody's request is answered, however many more clients there are than places.
#[test]
fn a_request_that_has_arrived_is_answered_before_its_connection_closes() {
    let mut server = with_places("4");
    let mut busy = kept(&mut server);
    let gate = support::fresh_path("places.gate");
    for _ in 0..5 {
        busy.send(format!("GET /wait?{} HTTP/1.1\r\nHost: a\r\n\r\n", gate.display()));
        server.wait_for("serves /wait");
        // They come while the worker is busy, so it finds them all at once.
        let mut clients: Vec<_> = (0..40).map(|_| server.connect()).collect();
        for client in &mut clients {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        }
        std::fs::write(&gate, "").expect("a writable directory");
        assert_eq!(busy.answer().status, 200);
        std::fs::remove_file(&gate).expect("it is there");
        for mut client in clients {
            assert_eq!(client.answer().status, 200);
        }
        busy = kept(&mut server);
    }
}

#[test]
fn a_worker_out_of_descriptors_makes_room() {
    let program = example("testbed");
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "ulimit -n 40 && exec \"$0\"", program.get_program().to_str().expect("UTF-8")]);
    command.envs([("FORKPOOL_LISTEN", "127.0.0.1:0"), ("FORKPOOL_WORKERS", "1")]);
    let mut server = Server::start(command);
    let _idle: Vec<_> = (0..10).map(|_| kept(&mut server)).collect();
    let _silent: Vec<_> = (0..120).map(|_| server.connect()).collect();
    for _ in 0..20 {
        assert_eq!(server.get("/").status, 200);
    }
    server.wait_for("it closes those that have been idle longest");
}

/// Where one worker has places, nobody is closed by the other.
#[test]
fn free_places_of_other_workers_are_taken_first() {
    let path = support::fresh_path("places.socket");
    let listen = format!("unix:{}", path.display());
    // Once more where this machine has not let a worker come in time for what the other one has left to it.
    let (_server, mut clients) = until("no worker is late", || {
        let mut server = testbed(&[("FORKPOOL_LISTEN", &listen), (LIMIT, "20")]);
        let mut clients = Vec::new();
        for _ in 0..36 {
            let mut client = support::connect_unix(&path);
            assert_eq!(client.get("/").status, 200);
            clients.push(client);
        }
        let are_open = clients.iter_mut().all(|client| client.try_get("/").is_ok());
        (are_open && server.count("it closes those") == 0).then_some((server, clients))
    });
    // When both have none left, the next one is served all the same.
    clients.extend((0..20).map(|_| support::connect_unix(&path)));
    assert_eq!(clients.last_mut().expect("there are some").get("/").status, 200);
}

/// The kernel wakes one worker for a connection, which may have no room for it while the other has.
#[test]
fn a_connection_that_wakes_a_full_worker_gets_a_free_place_of_another() {
    let path = support::fresh_path("woken.socket");
    let listen = format!("unix:{}", path.display());
    let _server = testbed(&[("FORKPOOL_LISTEN", &listen), (LIMIT, "2")]);
    let come = || {
        let mut client = support::connect_unix(&path);
        // Before an idle connection has its timeout, and so makes room.
        client.stream().set_read_timeout(Some(Duration::from_secs(30))).expect("a socket");
        let worker = client.get("/pid").text().to_owned();
        (worker, client)
    };
    let mut clients: Vec<_> = (0..4).map(|_| come()).collect();
    for _ in 0..20 {
        let (worker, gone) = clients.remove(0);
        drop(gone);
        // After this, its worker has noticed. The other one has had no turn since both were full.
        let same = clients.iter_mut().find(|(other, _)| *other == worker).expect("each has two");
        assert_eq!(same.1.get("/").status, 200);
        clients.push(come());
        // A worker that is late for it has left it to the other one, which has closed an idle connection.
        clients.retain_mut(|(_, client)| client.try_get("/").is_ok());
        clients.extend((clients.len()..4).map(|_| come()));
    }
}
